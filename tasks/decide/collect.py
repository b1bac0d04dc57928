"""Collecting: episodes of policies of several qualities, for a run to learn from or as a Minari data set."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from anyformer.errors import InputError
from anyformer.faults import writing
from anyformer.saving.atomic import PART, sync_file, sync_folder
from anyformer.saving.model_folder import load
from anyformer.saving.run_folder import split_run
from anyformer.tasks.decide.actor import LearnedActor, PlayConfig
from anyformer.tasks.decide.decide import Decide
from anyformer.tasks.decide.play import check_environment
from anyformer.tasks.decide.rollout import Actor, Noisy, RandomActor, episode_seed, play
from anyformer.tasks.decide.scripted import Scripted
from anyformer.tokenizers.episode.environments import make, to_spec
from anyformer.tokenizers.episode.episode import EnvironmentConfig, Episode, EpisodeSource, Nested
from anyformer.tokenizers.episode.spaces import split


@dataclass(frozen=True)
class Collected(EpisodeSource):
    """Episodes that are played when they are first used, and kept in memory.

    The same config gives the same episodes. They alternate between the policies, so that any part has all qualities.
    Raises InputError, then, for a policy that is not one, or an environment that cannot be made.
    """

    environment: EnvironmentConfig
    """What is played."""
    policies: tuple[str, ...] = ("random", "scripted")
    """Who plays, the same number of episodes each: `random`; `scripted`, or `scripted:0.3` with that share of its
    actions random; a run's folder, or `runs/cartpole:target_return=200` for its target."""
    episodes: int = 200
    """How many, of all policies together."""
    seed: int = 0
    """Decides the episodes."""

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise InputError(f"episodes must be at least 1, got {self.episodes}")
        if self.seed < 0:
            raise InputError(f"seed must not be negative, got {self.seed}")
        if not self.policies or len(self.policies) > self.episodes:
            raise InputError(
                f"{self.episodes} episodes are shared by {len(self.policies)} policies: each must get one at least"
            )

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(episode) for episode in self._played])

    @property
    def spaces(self) -> tuple[Space, Space]:
        return self._played[0].observation_space, self._played[0].action_space

    @property
    def played_in(self) -> EnvironmentConfig:
        return self.environment

    def episode(self, i: int) -> Episode:
        return self._played[i]

    def name(self, i: int) -> str:
        return f"episode {i} of {self.environment.id}, played by {self.policies[i % len(self.policies)]}"

    def __len__(self) -> int:
        return self.episodes

    @cached_property
    def _played(self) -> list[Episode]:
        n = len(self.policies)
        played: list[Episode | None] = [None] * self.episodes
        for number, policy in enumerate(self.policies):
            seed = episode_seed(self.seed, number)
            actor = actor_of(policy, self.environment, seed)
            played[number::n] = play(self.environment, actor, len(range(number, self.episodes, n)), seed)
        return played  # type: ignore[return-value]


def actor_of(policy: str, environment: EnvironmentConfig, seed: int) -> Actor:
    """The actor that a text names, as `Collected.policies` says. Raises InputError if it names none."""
    env = make(environment)
    space = env.action_space
    env.close()
    name, _, options = policy.partition(":")
    if name == "random" and not options:
        return RandomActor(space, seed)
    if name == "scripted":
        actor = Scripted(environment)
        if not options:
            return actor
        return Noisy(actor, _number(policy, options, "the share of random actions"), space, seed)
    folder, _, target_return = policy.partition(":target_return=")
    if not split_run(folder)[0].is_dir():
        raise InputError(
            f"policy {policy!r}: there is no run folder {folder}; a policy is random, scripted, scripted:SHARE, RUN or "
            "RUN:target_return=NUMBER"
        )
    wanted = _number(policy, target_return, "the target return") if target_return else None
    return _learned(folder, wanted, environment, seed)


def _number(policy: str, text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"policy {policy}: {what} must be a number, got {text!r}") from None


def _learned(folder: str, target_return: float | None, environment: EnvironmentConfig, seed: int) -> Actor:
    task = load(folder)
    if not isinstance(task, Decide):
        raise InputError(f"policy {folder}: a run of {type(task).__name__}, which does not act")
    acting = task.acting_model()
    check_environment(acting, environment)
    return LearnedActor(acting, target_return, replace(acting.play or PlayConfig(), seed=seed))


def collect(name: str, policies: Sequence[str], n: int, seed: int, folder: str | Path) -> str:
    """Play episodes and write them as a Minari data set. Returns a line for each policy of how it went.

    name: of the environment. The rest is as `Collected` and `write_minari` say.
    """
    if Path(folder).exists():
        raise InputError(f"{folder} is there already; choose another folder")
    try:
        # Now, and not when all has been played.
        Path(folder).absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error.strerror}") from None
    episodes = Collected(EnvironmentConfig(name), tuple(policies), n, seed)
    lines = summary(episodes, policies)
    write_minari(episodes, folder, ", ".join(policies))
    return lines


# Minari's format


def write_minari(episodes: EpisodeSource, folder: str | Path, algorithm: str = "") -> None:
    """Write episodes as a Minari data set, whole or not at all: FOLDER/data/main_data.hdf5 and metadata.json.

    Pictures are kept as they are, not as JPEG. Where $MINARI_DATASETS_PATH is the folder that FOLDER is in, Minari
    finds it by its name, which should end in a version: `cartpole-v0`.

    algorithm: who played, for the metadata.
    Raises InputError for a folder that is there already, and episodes without what was seen last.
    """
    target = Path(folder)
    if target.exists():
        raise InputError(f"{target} is there already; choose another folder")
    # Minari joins a relative path to itself.
    part = target.absolute().with_name(target.name + PART)
    shutil.rmtree(part, ignore_errors=True)
    try:
        with writing(target):
            _write_storage(part, episodes, target.resolve().name, algorithm)
            os.replace(part, target)
            sync_folder(target.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_storage(part: Path, episodes: EpisodeSource, name: str, algorithm: str) -> None:
    # Only an export needs it.
    import minari
    from minari.dataset.minari_storage import MinariStorage

    (part / "data").mkdir(parents=True)
    seen, done = episodes.spaces
    spec = None if episodes.played_in is None else to_spec(episodes.played_in)
    storage = MinariStorage.new(part / "data", seen, done, spec, jpeg_encoding=False)
    storage.update_episodes(_buffer(episodes.episode(i)) for i in range(len(episodes)))
    storage.update_metadata(
        {"dataset_id": _minari_id(name), "minari_version": minari.__version__, "algorithm_name": algorithm}
    )
    for file in (part / "data").iterdir():
        sync_file(file)
    sync_folder(part / "data")


def _buffer(episode: Episode) -> Any:
    """An episode as Minari takes it. Raises InputError where what was seen last is not known."""
    from minari.data_collector import EpisodeBuffer

    t = len(episode)
    if all(len(seen) == t for seen in split(episode.observation_space, "", episode.observations).values()):
        raise InputError(f"{episode.name}: what was seen after the last step is not known, and Minari needs it")
    last = np.arange(t) == t - 1
    # What an environment says beside the observation, of the reset too.
    infos = {} if episode.success is None else {"success": np.append(False, last & episode.success)}
    return EpisodeBuffer(
        observations=_as_lists(episode.observation_space, episode.observations),
        actions=_as_lists(episode.action_space, episode.actions),
        rewards=episode.rewards,
        terminations=last & episode.terminated,
        truncations=last & episode.truncated,
        infos=infos,
    )


def _as_lists(space: Space, values: Nested) -> Nested:
    """Nested values with texts as lists, which is how Minari takes them."""
    if isinstance(space, spaces.Dict):
        return {key: _as_lists(inner, values[key]) for key, inner in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_as_lists(inner, value) for inner, value in zip(space.spaces, values, strict=True))
    return list(map(str, values)) if isinstance(space, spaces.Text) else values


def _minari_id(name: str) -> str:
    """A name as Minari has them: letters, digits, - and _, and a version at the end."""
    plain = re.sub(r"[^-\w]+", "_", name)
    return plain if re.search(r".-v\d+$", plain) else f"{plain}-v0"


def summary(episodes: EpisodeSource, names: Sequence[str]) -> str:
    """A line for each policy of how its episodes went; episode i is of policy i modulo their number."""
    lines = []
    width = max(map(len, names))
    for number, name in enumerate(names):
        some = [episodes.episode(i) for i in range(number, len(episodes), len(names))]
        totals = np.array([episode.total for episode in some])
        lines.append(
            f"{name:<{width}}  {len(some)} episodes, {sum(map(len, some))} steps, return {totals.mean():.2f} "
            f"({totals.min():.2f} to {totals.max():.2f})"
        )
    return "\n".join(lines)
