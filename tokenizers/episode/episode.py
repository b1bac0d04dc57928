"""Episodes of an agent: what it saw, did and got, from a reset to the end; and sources of them.

Observations and actions are nested as their gymnasium space is: a dict of a `Dict`, a tuple of a `Tuple`, and at the
leaves arrays whose first axis is the step. Files of episodes are read by files.py and played ones
written by tasks/decide/collect.py.
"""

from __future__ import annotations

import reprlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from anyformer.choices import Values
from anyformer.data.source import Source, Subset
from anyformer.errors import InputError
from anyformer.tokenizers.episode.spaces import check, split

Nested = Any
"""Arrays, or dicts and tuples of them; their first axis is the step, or the environment."""


@dataclass(frozen=True)
class EnvironmentConfig(Values):
    """Which environment an agent acts in; `environments.py` makes it."""

    id: str
    """Its name with its version, as gymnasium has it registered: CartPole-v1; `package:Name-v0` for one that a package
    of yours registers, which --unsafe_imports must open."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """What it is told when it is made: `{is_slippery: false}`."""
    wrappers: tuple[str | dict[str, Any], ...] = ()
    """Wrappers of gymnasium.wrappers around it, the innermost first, by name or with arguments:
    `[FlattenObservation, ResizeObservation: {shape: [8, 8]}]`."""
    max_episode_steps: int | None = None
    """Steps after which an episode is cut off (`truncated`); as the environment is registered when left out."""

    def __post_init__(self) -> None:
        if self.max_episode_steps is not None and self.max_episode_steps < 1:
            raise InputError(f"max_episode_steps must be at least 1, got {self.max_episode_steps}")
        for wrapper in self.wrappers:
            if not isinstance(wrapper, str) and len(wrapper) != 1:
                raise InputError(
                    f"wrappers: each is a name, or one name with its arguments, got {reprlib.repr(wrapper)}"
                )


@dataclass(frozen=True, eq=False)
class Episode:
    """What happened from a reset to the end, t steps: seen before each, done in each, got for each.

    Raises InputError, when it is made, for lengths that do not match, no step at all, values that are not finite, and
    actions outside their space; the message begins with the episode's name.
    """

    observations: Nested
    """(t, ...), or (t + 1, ...) where what was seen after the last step is known. Text as an array of strings."""
    actions: Nested
    """(t, ...)."""
    rewards: np.ndarray
    """(t,) float32."""
    observation_space: Space
    action_space: Space
    terminated: bool = False
    """Whether the task itself came to its end: a goal, a fall."""
    truncated: bool = False
    """Whether it was cut off, at a limit of steps. Neither where the record does not say."""
    success: bool | None = None
    """Whether the goal was reached, where the environment or the record says."""
    name: str = "episode"
    """Where it comes from, for messages: "demos.npz episode 17"."""
    environment: EnvironmentConfig | None = None
    """What it was played in, where that is known."""

    def __post_init__(self) -> None:
        rewards = np.asarray(self.rewards, dtype=np.float32)
        object.__setattr__(self, "rewards", rewards)
        if rewards.ndim != 1:
            raise InputError(f"{self.name}: rewards must be one number a step, got {rewards.shape}")
        if not len(rewards):
            raise InputError(f"{self.name} has no step; leave it out")
        with _named(self.name):
            seen = split(self.observation_space, "observation", self.observations)
            done = split(self.action_space, "action", self.actions)
        t = len(rewards)
        for what, array in done.items():
            if len(array) != t:
                raise InputError(f"{self.name}: {len(array)} of {what} and {t} rewards; each step needs one of both")
        for what, array in seen.items():
            if len(array) not in (t, t + 1):
                raise InputError(
                    f"{self.name}: {len(array)} of {what} and {t} rewards; there must be {t}, or {t + 1} with what was "
                    "seen after the last step"
                )
            if len(array) != len(next(iter(seen.values()))):
                raise InputError(f"{self.name}: {what} and {next(iter(seen))} have different numbers of steps")
        for what, array in {"reward": rewards, **seen, **done}.items():
            if array.dtype.kind == "f" and not (finite := np.isfinite(array).reshape(len(array), -1).all(1)).all():
                step = int(finite.argmin())
                raise InputError(
                    f"{self.name}: {what}, step {step}: must be finite, got {_short(array[step])}; mend the data"
                )
        check(self.action_space, "action", self.actions, self.name)

    def __len__(self) -> int:
        return len(self.rewards)

    def __repr__(self) -> str:
        return f"<{self.name}: {len(self)} steps, return {self.total:g}>"

    def returns_to_go(self) -> np.ndarray:
        """(t,) float32: the rewards of each step and of all after it, without discount."""
        return self.rewards[::-1].cumsum(dtype=np.float64)[::-1].astype(np.float32)

    @property
    def total(self) -> float:
        """The return: the sum of its rewards."""
        return float(self.rewards.sum(dtype=np.float64))


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Put the episode's name before what is wrong with it."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def _short(value: Any) -> str:
    return " ".join(np.array2string(np.asarray(value), threshold=8, edgeitems=3).split())


class EpisodeSource(Source):
    """Episodes by number; its records are `{"episode": Episode}`."""

    @abstractmethod
    def episode(self, i: int) -> Episode:
        """Episode i, read when it is asked for."""

    @property
    @abstractmethod
    def lengths(self) -> np.ndarray:
        """(n,) int64, the steps of every episode."""

    @property
    @abstractmethod
    def spaces(self) -> tuple[Space, Space]:
        """Of the observations and of the actions."""

    @property
    @abstractmethod
    def played_in(self) -> EnvironmentConfig | None:
        """The environment that the episodes are of, where that is known."""

    @property
    def reference(self) -> tuple[float, float] | None:
        """The returns that a normalised score takes as 0 and as 100, where the data itself names them."""
        return None

    id_name = "episode"

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"episode": self.episode(range(len(self))[i])}


def origin(source: Source) -> EpisodeSource:
    """The source of episodes that a source is, or is a part of. Raises InputError for anything else."""
    return _parts(source)[0]


def lengths(source: Source) -> np.ndarray:
    """(n,) int64: the steps of every episode of a source of episodes, or of a part of one."""
    whole, indices = _parts(source)
    return whole.lengths if indices is None else whole.lengths[indices]


def _parts(source: Source) -> tuple[EpisodeSource, np.ndarray | None]:
    """The source of episodes that a source is a part of, and which of them."""
    indices: np.ndarray | None = None
    while isinstance(source, Subset):
        indices = source.indices if indices is None else source.indices[indices]
        source = source.source
    if not isinstance(source, EpisodeSource):
        raise InputError(
            f"{type(source).__name__} has no episodes; give Episodes with the path of a file, Minari with the name of "
            "a set, or Collected"
        )
    return source, indices


def stack(space: Space, values: Sequence[Any]) -> Nested:
    """Single values of a space, one after another, as nested arrays (t, ...) of the types of the space."""
    if isinstance(space, spaces.Dict):
        return {key: stack(inner, [value[key] for value in values]) for key, inner in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(stack(inner, [value[i] for value in values]) for i, inner in enumerate(space.spaces))
    if isinstance(space, spaces.Text):
        return np.asarray(values, dtype=np.str_)
    return np.asarray(values, dtype=space.dtype)


def as_arrays(space: Space, values: Any) -> Nested:
    """A batch as a vector environment or a file has it, every leaf as an array, of strings where it is text."""
    if isinstance(space, spaces.Dict):
        return {key: as_arrays(inner, values[key]) for key, inner in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(as_arrays(inner, value) for inner, value in zip(space.spaces, values, strict=True))
    return np.asarray(values)


def take(values: Nested, index: Any) -> Nested:
    """The same rows of all arrays: by an index, a slice, or an array of indices."""
    return transform(lambda array: array[index], values)


def transform(function: Callable[..., Any], *values: Nested) -> Nested:
    """What a function makes of the arrays at each leaf, nested as they are."""
    if isinstance(values[0], Mapping):
        return {key: transform(function, *(each[key] for each in values)) for key in values[0]}
    if isinstance(values[0], tuple):
        return tuple(transform(function, *parts) for parts in zip(*values, strict=True))
    return function(*values)
