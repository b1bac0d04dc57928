"""Policies written by hand for gymnasium's classic-control environments: good players to learn from.

Their mean returns are those of 500 episodes, which tokenizers/episode/environments.py gives as references, with the
command.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from anyformer.errors import InputError
from anyformer.tokenizers.episode.environments import name_of
from anyformer.tokenizers.episode.episode import EnvironmentConfig, Nested


def balance(observations: np.ndarray) -> np.ndarray:
    """CartPole: push to where the pole leans and turns, and the cart is and goes, so that it comes back. Mean
    return 500."""
    place, speed, angle, turning = observations.T
    return (angle + 0.5 * turning + 0.1 * place + 0.2 * speed > 0).astype(np.int64)


def rock(observations: np.ndarray) -> np.ndarray:
    """MountainCar: push the way the car goes, so that every swing is higher. Mean return -119.8."""
    return np.where(observations[:, 1] >= 0, 2, 0)


def rock_gently(observations: np.ndarray) -> np.ndarray:
    """MountainCarContinuous: the same at half the force, because the square of it is what an episode costs. Mean
    return 95.8."""
    return np.where(observations[:, 1:] >= 0, 0.5, -0.5).astype(np.float32)


def kick(observations: np.ndarray) -> np.ndarray:
    """Acrobot: turn the joint onwards, relative to the upper arm, as a child on a swing moves its legs. Mean return
    -87.7."""
    upper, lower = observations[:, 4], observations[:, 5]
    return np.where(lower > upper, 2, 0)


def swing_up(observations: np.ndarray) -> np.ndarray:
    """Pendulum: bring its energy to that of standing still at the top (Åström and Furuta 2000), and hold it there.
    Mean return -137.0."""
    up, aside, turning = observations.T
    energy = turning**2 / 6 + 5 * (up - 1)
    swing = np.where(turning >= 0, -100 * energy, 100 * energy)
    hold = -8 * np.arctan2(aside, up) - 2 * turning
    return np.clip(np.where(up > 0.9, hold, swing), -2, 2)[:, None].astype(np.float32)


SCRIPTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Acrobot": kick,
    "CartPole": balance,
    "MountainCar": rock,
    "MountainCarContinuous": rock_gently,
    "Pendulum": swing_up,
}
"""By the name of the environment without its version: observations (n, d) to actions (n,) or (n, k)."""


class Scripted:
    """The actor that plays an environment by its script. Raises InputError if there is none for it."""

    def __init__(self, environment: EnvironmentConfig) -> None:
        if name_of(environment) not in SCRIPTS:
            raise InputError(
                f"there is no scripted policy for {environment.id}; there are those for {', '.join(SCRIPTS)}"
            )
        if environment.wrappers:
            raise InputError(f"the scripted policy for {environment.id} plays it as it is; leave its wrappers out")
        self.script = SCRIPTS[name_of(environment)]

    def begin(self, rows: Sequence[int]) -> None:
        pass

    def act(self, observations: Nested, rewards: np.ndarray, taken: Nested | None) -> Nested:
        return self.script(observations)

    def leave(self, rows: Sequence[int]) -> None:
        pass
