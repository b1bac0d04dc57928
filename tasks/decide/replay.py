"""What a policy would do in recorded episodes, where it sees what was seen and has done what was done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from anyformer.errors import InputError
from anyformer.tasks.decide.actor import ActingModel, LearnedActor
from anyformer.tasks.decide.batch import ACTION, cut
from anyformer.tasks.decide.play import RolloutConfig
from anyformer.tokenizers.episode.episode import Episode, stack, take
from anyformer.tokenizers.episode.spaces import join, split


def replay(acting: ActingModel, episodes: Sequence[Episode], options: RolloutConfig) -> list[list[dict[str, Any]]]:
    """The steps of each episode, `{"step", "action", "true_action"}`: what it would have done, and what was done.

    Raises InputError for an episode of other spaces, and for options that are for playing.
    """
    if options.sweep or options.plan or options.video is not None:
        raise InputError("--sweep, --plan and --video are for playing; leave them out where episodes are given")
    seen, done = acting.spaces
    for episode in episodes:
        cut(episode, seen, done)  # Which says what is wrong with it.
    actor = LearnedActor(acting, options.target_return, options.play(options.target_return))
    one = actor.target_return
    if options.target_return is None:
        # A row for each episode, which all begin with the first step.
        actor.target_return = np.array([episode.total for episode in episodes])  # type: ignore[assignment]
    found: list[list[dict[str, Any]]] = [[] for _ in episodes]
    actor.begin(range(len(episodes)))
    rows: list[int] = list(range(len(episodes)))
    for step in range(max(map(len, episodes), default=0)):
        if over := [row for row in rows if len(episodes[row]) == step]:
            actor.leave(over)
            rows = [row for row in rows if row not in set(over)]
        now = [episodes[row] for row in rows]
        observations = stack(seen, [take(episode.observations, step) for episode in now])
        rewards = np.array([episode.rewards[step - 1] if step else 0.0 for episode in now])
        taken = stack(done, [take(episode.actions, step - 1) for episode in now]) if step else None
        actions = join(done, ACTION, split(done, ACTION, actor.act(observations, rewards, taken)))
        actor.target_return = one
        for row, action in zip(rows, actions, strict=True):
            true = take(episodes[row].actions, step)
            found[row].append({"step": step, "action": plain(action), "true_action": plain(true)})
    return found


def plain(value: Any) -> Any:
    """A nested value as numbers, texts, lists and dicts."""
    if isinstance(value, Mapping):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, tuple):
        return [plain(part) for part in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def flat_row(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values as columns: `action_0`, `action_gripper_1`.

    >>> flat_row({"step": 0, "action": {"arm": [0.5, 1.0], "grip": 1}})
    {'step': 0, 'action_arm_0': 0.5, 'action_arm_1': 1.0, 'action_grip': 1}
    """
    row: dict[str, Any] = {}
    for name, value in values.items():
        inner = value if isinstance(value, Mapping) else dict(enumerate(value)) if isinstance(value, list) else None
        row |= {name: value} if inner is None else flat_row({f"{name}_{key}": part for key, part in inner.items()})
    return row
