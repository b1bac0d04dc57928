"""Acting: cached as recomputed, rows that do not know of each other, resets, what was really done, one environment."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from anyformer.errors import InputError
from anyformer.model.attention.cache import Cache
from anyformer.tasks.decide.actor import LearnedActor, PlayConfig
from anyformer.tasks.decide.batch import RETURN, Steps, cut
from anyformer.tasks.decide.rollout import Noisy, episode_seed, play
from anyformer.tokenizers.episode.continuous import Vector
from anyformer.tokenizers.episode.discrete import Bins
from anyformer.tokenizers.episode.environments import make
from anyformer.tokenizers.episode.episode import Episode
from tests.helpers.worlds import decider, walks, world

CONTEXT = 5
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "a picture and a vector": ("picture", {}),
    "texts of any length and two choices": ("text", {}),
    "a nested action": ("pair", {}),
    "bins, one after another": ("box", {"tokenizers": {"action": Bins(n_bins=11)}}),
    "a drawn vector without returns": ("box", {"tokenizers": {"action": Vector(loss="gaussian")}, "returns": False}),
}


class Watched(LearnedActor):
    """Notes what the newest state of each row was read as, and which steps were then in its context."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.read: dict[tuple[int, int], list[tuple[Tensor, int, int]]] = {}
        self.episodes: dict[int, int] = {}

    def begin(self, rows: Any) -> None:
        super().begin(rows)
        for row in rows:
            self.episodes[row] = self.episodes.get(row, -1) + 1

    def _read(self, begun: np.ndarray) -> tuple[Tensor, Cache]:
        hidden, cache = super()._read(begun)
        for i, row in enumerate(self.numbers):
            seen = hidden[i].clone(), int(self.history.first[i]), int(self.history.step[i])
            self.read.setdefault((row, self.episodes[row]), []).append(seen)
        return hidden, cache


def recomputed(actor: LearnedActor, episode: Episode, first: int, step: int, target_return: float) -> Tensor:
    """The hidden vector of the state of a step, from exactly the steps from `first` on, in one pass without a cache."""
    task = actor.acting
    values = {name: array for name, array in cut(episode, *task.spaces).items() if name in task.tokenizers}
    if RETURN in values:
        got = np.concatenate([[0.0], np.cumsum(episode.rewards.astype(np.float64))[:-1]])
        values[RETURN] = target_return - got
    fields = {}
    for name, array in values.items():
        stop = step if name in actor.fields.actions else step + 1
        steps = np.arange(first, stop)
        if len(steps):
            fields[name] = Steps(array[first:stop], steps, np.zeros(len(steps), np.int64), steps - first)
    batch = actor.fields.lay(fields, 1)
    with torch.inference_mode():
        return task.model(batch)[0, -1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("past_context", ["halve", "exact"])
def test_what_is_cached_is_what_would_be_computed_of_the_steps_in_the_context(kind: str, past_context: str) -> None:
    name, options = KINDS[kind]
    task = decider(walks(name), **options)
    target_return = 3.0 if task.returns else None
    actor = Watched(task.acting_model(), target_return, PlayConfig(past_context=past_context, temperature=1.0))
    # Half of what is done is not what the actor chose; rows begin anew and leave at different times.
    noisy = Noisy(actor, 0.5, task.spaces[1])
    episodes = list(play(world(name), noisy, 7, seed=1, n_environments=3))
    compared = dropped = 0
    for number, episode in enumerate(episodes):
        read = actor.read[number % 3, number // 3]
        assert [step for _, _, step in read] == list(range(len(episode)))
        n_before = 0
        for hidden, first, step in read:
            n = step - first + 1
            # All steps until the context is full; then all but the older half, or the newest that fit.
            n_before += 1
            if n_before > CONTEXT:
                n_before = CONTEXT if past_context == "exact" else CONTEXT - CONTEXT // 2 + 1
                dropped += 1
            assert n == n_before
            expected = recomputed(actor, episode, first, step, 3.0)
            torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=1e-5)
            compared += 1
    assert compared == sum(map(len, episodes))
    assert dropped >= 5, "no episode was longer than the context"


def test_an_episode_is_the_same_however_many_are_played_beside_it() -> None:
    task = decider(walks("box"), tokenizers={"action": Bins(n_bins=11)})

    def played(n: int) -> list[Any]:
        actor = LearnedActor(task.acting_model(), 4.0)
        return [episode.actions.tolist() for episode in play(world("box"), actor, 6, 0, n)]

    alone = played(1)
    assert played(4) == alone
    assert played(6) == alone
    assert len({str(each) for each in alone}) > 1


def test_rows_that_come_later_take_their_place_among_the_others() -> None:
    """As a loop of one's own may do; each row does what it would do alone."""
    task = decider(walks("box"), tokenizers={"action": Bins(n_bins=11)})
    random = np.random.default_rng(0)
    seen, got = random.random((6, 3, 2), dtype=np.float32), random.random((6, 3))

    def act(rows_by_step: dict[int, list[int]], of: list[int], begins: dict[int, list[int]]) -> dict[int, list]:
        actor, done, taken = LearnedActor(task.acting_model(), 4.0), {row: [] for row in of}, None
        for step in range(6):
            rows = rows_by_step[step]
            if step in begins:
                actor.begin(begins[step])
            before = None if taken is None else np.stack([taken.get(row, np.zeros(2, np.float32)) for row in rows])
            rewards = np.array([0.0 if row in begins.get(step, ()) else got[step, row] for row in rows])
            actions = actor.act(seen[step, rows], rewards, before)
            taken = dict(zip(rows, actions, strict=True))
            for row, action in taken.items():
                done[row].append(action.tolist())
        return done

    together = act({i: [0, 2] if i < 3 else [0, 1, 2] for i in range(6)}, [0, 1, 2], {0: [2, 0], 3: [1], 5: [2]})
    for row, begins in ((0, {0: [0]}), (2, {0: [2], 5: [2]})):
        assert act({i: [row] for i in range(6)}, [row], begins)[row] == together[row]


def test_a_policy_plays_in_a_loop_of_ones_own() -> None:
    task = decider(walks("pair"))
    policy = task.policy(target_return=2.0)
    expected = list(play(world("pair"), LearnedActor(task.acting_model(), 2.0), 2, seed=5, n_environments=1))
    env = make(world("pair"))
    for episode in expected:
        observation, _ = env.reset(seed=episode_seed(5, expected.index(episode)))
        policy.reset()
        reward, over, rewards = None, False, []
        while not over:
            action = policy(observation, reward)
            assert action in env.action_space
            observation, reward, terminated, truncated, _ = env.step(action)
            over = terminated or truncated
            rewards.append(reward)
        assert rewards == episode.rewards.tolist()


def test_what_a_policy_cannot_use_leaves_it_as_it_was() -> None:
    task = decider(walks("box"))
    policy, unharmed = task.policy(target_return=2.0), task.policy(target_return=2.0)
    seen = np.array([0.1, 0.2], np.float32)
    with pytest.raises(InputError, match="state"):
        policy("nothing")
    with pytest.raises(InputError, match="state: what is seen must be finite, got nan"):
        policy(seen * np.float32("nan"))
    np.testing.assert_array_equal(policy(seen), unharmed(seen))
    with pytest.raises(InputError, match="the reward must be finite, got nan"):
        policy(seen, float("nan"))
    np.testing.assert_array_equal(policy(seen, 1.0), unharmed(seen, 1.0))
    with pytest.raises(InputError, match="the target return must be finite, got inf"):
        task.policy(target_return=float("inf"))


@pytest.mark.parametrize(
    ("kind", "seen", "message"),
    [
        ("text", "x" * 7, r"^state\.text: a text of 7 characters, and the space holds 6; mend the data or the space$"),
        ("text", "xz", r"^state\.text: the space has no character 'z'; mend the data$"),
        ("pair", 6, r"^state\.0: is 6, and the space is from 0 to 5; mend the data or the space$"),
    ],
)
def test_what_is_no_value_of_the_space_leaves_a_policy_as_it_was(kind: str, seen: Any, message: str) -> None:
    def whole(part: Any) -> Any:
        return {"text": part, "where": np.zeros(2)} if kind == "text" else (part, np.zeros(2, np.int8))

    task = decider(walks(kind))
    policy, unharmed = task.policy(target_return=2.0), task.policy(target_return=2.0)
    for part in ("x", "xy") if kind == "text" else (0, 1):
        with pytest.raises(InputError, match=message):
            policy(whole(seen), 1.0)
        np.testing.assert_equal(policy(whole(part), 1.0), unharmed(whole(part), 1.0))


def test_the_return_that_is_left_is_what_was_asked_less_what_was_got() -> None:
    task = decider(walks())
    told = []

    class Told(LearnedActor):
        def _read(self, begun: np.ndarray) -> Any:
            told.append(self._left.tolist())
            return super()._read(begun)

    (episode,) = play(world(), Told(task.acting_model(), 4.0), 1, 0)
    assert [left for (left,) in told] == pytest.approx([4.0 - episode.rewards[:i].sum() for i in range(len(episode))])


def test_what_is_drawn_is_decided_by_the_seed() -> None:
    task = decider(walks("text"))

    def played(seed: int, temperature: float) -> list[Any]:
        actor = LearnedActor(task.acting_model(), 4.0, PlayConfig(temperature=temperature, seed=seed))
        return [episode.actions.tolist() for episode in play(world("text"), actor, 4, 0)]

    assert played(1, 1.0) == played(1, 1.0)
    assert played(1, 1.0) != played(2, 1.0)
    assert played(1, 0.0) == played(2, 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"episodes": 0}, "play.episodes must be at least 1, got 0"),
        ({"n_environments": 0}, "play.n_environments must be at least 1, got 0"),
        ({"temperature": -1.0}, "play.temperature must be a number from 0, got -1.0"),
        ({"seed": -1}, "play.seed must not be negative, got -1"),
    ],
)
def test_what_cannot_be_played_says_why(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PlayConfig(**options)
