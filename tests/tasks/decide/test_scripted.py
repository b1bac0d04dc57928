"""Scripted policies: good players, each of its own environment."""

from __future__ import annotations

import numpy as np
import pytest

from anyformer.errors import InputError
from anyformer.tasks.decide.rollout import play
from anyformer.tasks.decide.scripted import SCRIPTS, Scripted
from anyformer.tokenizers.episode.episode import EnvironmentConfig

GOOD = {
    "Acrobot-v1": -120,
    "CartPole-v1": 500,
    "MountainCar-v0": -125,
    "MountainCarContinuous-v0": 90,
    "Pendulum-v1": -200,
}


def test_there_is_one_for_each_environment_of_classic_control() -> None:
    assert {name.rpartition("-v")[0] for name in GOOD} == SCRIPTS.keys()


@pytest.mark.parametrize("name", GOOD)
def test_a_script_plays_well(name: str) -> None:
    environment = EnvironmentConfig(name)
    episodes = list(play(environment, Scripted(environment), 24, 1))
    assert np.mean([episode.total for episode in episodes]) >= GOOD[name]


def test_there_is_none_for_other_environments() -> None:
    with pytest.raises(InputError, match="no scripted policy for Hopper-v5; there are those for Acrobot, CartPole"):
        Scripted(EnvironmentConfig("Hopper-v5"))


def test_a_script_reads_what_the_environment_itself_shows() -> None:
    with pytest.raises(InputError, match="plays it as it is; leave its wrappers out"):
        Scripted(EnvironmentConfig("CartPole-v1", wrappers=("FlattenObservation",)))
