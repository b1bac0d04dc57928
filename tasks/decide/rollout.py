"""Playing: an actor acts in many environments at once, and what happened comes out as episodes.

Knows no model: an actor is anything that turns what is seen into actions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium import Space

from anyformer.errors import InputError
from anyformer.tokenizers.episode.environments import ends_at_goal, make_vector
from anyformer.tokenizers.episode.episode import EnvironmentConfig, Episode, Nested, as_arrays, stack, take, transform
from anyformer.tokenizers.episode.spaces import split

AT_ONCE = 32
"""Environments that are stepped together where nothing else is said: the gain beyond is small on a CPU."""


class Actor(Protocol):
    """Acts in rows, each of which is an environment with its own episode.

    `begin` names rows before the first `act` that holds them; from then on every `act` has a value for each row that
    has begun and not left, in ascending sequence of their numbers.
    """

    def begin(self, rows: Sequence[int]) -> None:
        """New episodes start in these rows; whatever was known of those before in them is over."""

    def act(self, observations: Nested, rewards: np.ndarray, taken: Nested | None) -> Nested:
        """The actions (n, ...) for what is seen (n, ...), both nested as their spaces are.

        rewards: (n,) float64 of the last step; 0 in rows that have just begun.
        taken: the actions (n, ...) that were really taken last, which may be others than this actor's; in rows that
        have just begun their values mean nothing. None if that is so in all rows.
        """

    def leave(self, rows: Sequence[int]) -> None:
        """These rows play no more: later `act`s are without them."""


def play(
    environment: EnvironmentConfig,
    actor: Actor,
    n_episodes: int,
    seed: int,
    n_environments: int | None = None,
    frames: Callable[[np.ndarray], None] | None = None,
) -> Iterator[Episode]:
    """Play episodes, many environments together; they come in the sequence of their numbers.

    Every environment plays its own share, so that short episodes are no more likely to be among them. Episode k begins
    with an environment seeded by (seed, k), however many there are.

    n_environments: how many at once; n_episodes, and at most 32, by default.
    frames: is given the pictures of the first environment, (rows, columns, 3) uint8, as they come: of the episodes
    0, n_environments, 2 n_environments, ...
    Raises InputError, naming environment, episode and step, where an environment raises, gives a reward that is no
    finite number, what is not of the shape of its space or no picture, and for actions outside the space.
    """
    if n_episodes < 1 or (n_environments is not None and n_environments < 1):
        raise InputError(f"to play takes at least 1 episode and 1 environment, got {n_episodes} and {n_environments}")
    n = min(n_episodes, n_environments or AT_ONCE)
    slots: list[Slot] = []

    def slot(env: gymnasium.Env) -> gymnasium.Env:
        slots.append(Slot(env, environment, frames if not slots else None))
        return slots[-1]

    together = make_vector(environment, n, frames is not None, slot)
    try:
        yield from _play(together, slots, actor, n_episodes, seed)
    finally:
        together.close()


def _play(
    together: gymnasium.vector.SyncVectorEnv, slots: Sequence[Slot], actor: Actor, n_episodes: int, seed: int
) -> Iterator[Episode]:
    n = len(slots)
    for row, slot in enumerate(slots):
        slot.number = row
    observations, _ = together.reset(seed=[episode_seed(seed, k) for k in range(n)])
    rows, rewards, taken = np.arange(n), np.zeros(n), None
    played: dict[int, Episode] = {}
    following = 0
    actor.begin(list(range(n)))
    while len(rows):
        seen = take(as_arrays(together.single_observation_space, observations), rows)
        actions = as_arrays(together.single_action_space, actor.act(seen, rewards[rows], taken))
        # All environments are stepped; those that play no more do nothing with the action that they get.
        places = np.searchsorted(rows, np.arange(n)).clip(max=len(rows) - 1)
        observations, rewards, terminated, truncated, _ = together.step(take(actions, places))
        over = np.flatnonzero(terminated | truncated)
        begin, leave = [], []
        for row in over.tolist():
            slot = slots[row]
            played[slot.number] = slot.episode(bool(terminated[row]), bool(truncated[row]))
            slot.number = slot.number + n if slot.number + n < n_episodes else None
            (leave if slot.number is None else begin).append(row)
        if len(over):
            seeds = [None if slot.number is None else episode_seed(seed, slot.number) for slot in slots]
            observations, _ = together.reset(seed=seeds, options={"reset_mask": np.isin(np.arange(n), over)})
            rewards[over] = 0.0
            stay = ~np.isin(rows, leave)
            rows, actions = rows[stay], take(actions, stay)
            if leave:
                actor.leave(leave)
            if begin:
                actor.begin(begin)
        taken = None if len(begin) == len(rows) else actions
        while following in played:
            yield played.pop(following)
            following += 1


def episode_seed(seed: int, number: int) -> int:
    """What an episode's environment is seeded with; far apart for neighbours of either."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])


class Slot(gymnasium.Wrapper):
    """One of the environments that are played together: writes down its episode, and idles once it plays no more.

    Because idle ones answer without stepping, all can be stepped together to the end.
    """

    def __init__(
        self, env: gymnasium.Env, config: EnvironmentConfig, frames: Callable[[np.ndarray], None] | None = None
    ) -> None:
        super().__init__(env)
        self.config, self.frames = config, frames
        self.number: int | None = None
        """Of the episode that is played; None idles."""
        self.seen: list[Any] = []
        self.done: list[Any] = []
        self.got: list[float] = []
        self.success: bool | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if self.number is None:
            return self.seen[-1], {}
        self.seen, self.done, self.got, self.success = [], [], [], None
        with self._named("when it was reset"):
            observation, info = self.env.reset(seed=seed, options=options)
            picture = self._see(observation)
        self._show(picture)
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.number is None:
            return self.seen[-1], 0.0, False, False, {}
        self.done.append(_copy(action))
        with self._named(f"in step {len(self.got)}"):
            observation, reward, terminated, truncated, info = self.env.step(action)
            number = np.asarray(reward)
            if number.ndim or number.dtype.kind not in "biuf" or not np.isfinite(number):
                raise InputError(f"the reward must be a finite number, got {reward}")
            picture = self._see(observation)
            for name in ("success", "is_success"):
                if name in info:
                    self.success = bool(self.success or info[name])
            terminated, truncated = bool(terminated), bool(truncated)
        self.got.append(float(number))
        self._show(picture)
        return observation, self.got[-1], terminated, truncated, {}

    def _see(self, observation: Any) -> Any:
        """Keep what is seen. Returns its picture where that is wanted."""
        # What is not of the space would fail where all environments are put together, and none is known.
        split(self.observation_space, "observation", stack(self.observation_space, [observation]))
        # Some environments give the same array again and again.
        self.seen.append(_copy(observation))
        if self.frames is None:
            return None
        picture = self.env.render()
        if np.ndim(picture) != 3 or picture.shape[2] != 3:
            raise InputError(f"it must draw pictures (rows, columns, 3), got {np.shape(picture) or picture}")
        return picture

    def _show(self, picture: Any) -> None:
        if self.frames is not None:
            self.frames(picture)

    @contextmanager
    def _named(self, when: str) -> Iterator[None]:
        """Make of what breaks one InputError that names environment, episode and step."""
        where = f"episode {self.number}, {when}"
        try:
            yield
        except InputError as error:
            raise InputError(f"environment {self.config.id}, {where}: {' '.join(str(error).split())}") from None
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
            raise InputError(f"environment {self.config.id} raised in {where}: {reason}") from error

    def episode(self, terminated: bool, truncated: bool) -> Episode:
        """What has been played since the last reset."""
        success = terminated if self.success is None and ends_at_goal(self.config) else self.success
        return Episode(
            stack(self.observation_space, self.seen),
            stack(self.action_space, self.done),
            np.asarray(self.got, dtype=np.float32),
            self.observation_space,
            self.action_space,
            terminated,
            truncated,
            success,
            f"{self.config.id} episode {self.number}",
            self.config,
        )


def _copy(value: Any) -> Any:
    """The value, which nothing changes any more. Arrays have a quicker way than what is nested."""
    return value.copy() if isinstance(value, np.ndarray) else copy.deepcopy(value)


class RandomActor:
    """Draws every action from the space."""

    def __init__(self, action_space: Space, seed: int = 0) -> None:
        self.space = copy.deepcopy(action_space)
        self.space.seed(seed)

    def begin(self, rows: Sequence[int]) -> None:
        pass

    def act(self, observations: Nested, rewards: np.ndarray, taken: Nested | None) -> Nested:
        return stack(self.space, [self.space.sample() for _ in rewards])

    def leave(self, rows: Sequence[int]) -> None:
        pass


class Noisy:
    """Another actor, some of whose actions are replaced by random ones.

    epsilon: the share that is replaced, from 0 to 1.
    """

    def __init__(self, actor: Actor, epsilon: float, action_space: Space, seed: int = 0) -> None:
        if not 0 <= epsilon <= 1:
            raise InputError(f"the share of random actions must be from 0 to 1, got {epsilon:g}")
        self.actor, self.epsilon = actor, epsilon
        self.noise, self.random = RandomActor(action_space, seed), np.random.default_rng(seed)

    def begin(self, rows: Sequence[int]) -> None:
        self.actor.begin(rows)

    def act(self, observations: Nested, rewards: np.ndarray, taken: Nested | None) -> Nested:
        meant = self.actor.act(observations, rewards, taken)
        replaced = self.random.random(len(rewards)) < self.epsilon

        def either(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            return np.where(replaced.reshape(-1, *[1] * (a.ndim - 1)), b, a)

        return transform(either, meant, self.noise.act(observations, rewards, taken))

    def leave(self, rows: Sequence[int]) -> None:
        self.actor.leave(rows)
