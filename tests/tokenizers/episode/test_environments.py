"""Environments: made as a config says, one error for what cannot be, published scores."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from anyformer.errors import InputError
from anyformer.tokenizers.episode.environments import (
    WRAPPERS,
    ends_at_goal,
    from_spec,
    make,
    make_vector,
    reference,
    to_spec,
)
from anyformer.tokenizers.episode.episode import EnvironmentConfig
from tests.helpers import small_environments


def test_an_environment_is_made_with_its_arguments_wrappers_and_limit() -> None:
    config = EnvironmentConfig(
        "Counter-v0",
        {"longest": 50, "reuse": False},
        ({"FrameStackObservation": {"stack_size": 3}}, "FlattenObservation"),
        max_episode_steps=2,
    )
    env = make(config)
    assert env.observation_space.shape == (3,)
    assert env.unwrapped.longest == 50
    env.reset(seed=3)
    assert env.unwrapped.length > 2
    assert env.step(0)[3] is False
    seen, _, terminated, truncated, _ = env.step(0)
    assert (seen.tolist(), terminated, truncated) == ([0, 1, 2], False, True)
    assert make(config, render=True).render_mode == "rgb_array"


@pytest.mark.parametrize("name", ["tests.helpers.small_environments:Counter-v0", "Counter-v0"])
def test_a_package_that_was_imported_may_be_named(name: str) -> None:
    assert make(EnvironmentConfig(name)).spec.id == "Counter-v0"


def test_naming_a_package_runs_none_of_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "strange_package.py").write_text("raise SystemExit('run')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"strange_package is not opened; unsafe_imports=\['strange_package'\]"):
        make(EnvironmentConfig("strange_package:Car-v0"))
    assert "strange_package" not in sys.modules


@pytest.mark.parametrize(
    "name, message",
    [
        ("CartPol-v1", "there is no environment CartPol-v1; did you mean 'CartPole-v1'"),
        ("CartPole-v7", "there is no environment CartPole-v7; there is CartPole-v1"),
        ("CartPole", "environment CartPole: give its version, as in CartPole-v1"),
        ("Xyzzy-v3", "no environment Xyzzy-v3; one that a package registers is named package:Name-v0"),
        (
            "tests.helpers.small_environments:Lihgts-v0",
            "no environment tests.helpers.small_environments:Lihgts-v0; did you mean 'Lights-v0'",
        ),
        ("no name", "environment 'no name': an id is a name with a version"),
    ],
)
def test_an_unknown_id_names_the_nearest(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make(EnvironmentConfig(name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"kwargs": {"colour": 1}}, "environment Counter-v0 cannot be made: .*unexpected keyword argument 'colour'"),
        ({"kwargs": {"max_episode_steps": 1}}, "max_episode_steps does not stand under kwargs"),
        ({"wrappers": ("FlatenObservation",)}, "there is no wrapper 'FlatenObservation'.*'FlattenObservation'"),
        ({"wrappers": ("Autoreset",)}, "there is no wrapper 'Autoreset'"),
        ({"wrappers": ("os.system",)}, "there is no wrapper 'os.system'"),
        ({"wrappers": ({"FrameStackObservation": {}},)}, "wrapper FrameStackObservation cannot be used: .*stack_size"),
    ],
)
def test_arguments_and_wrappers_that_cannot_be_used(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make(EnvironmentConfig("Counter-v0", **options))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"max_episode_steps": 0}, "max_episode_steps must be at least 1, got 0"),
        ({"wrappers": ({"A": {}, "B": {}},)}, "wrappers: each is a name, or one name with its arguments"),
    ],
)
def test_a_config_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        EnvironmentConfig("Counter-v0", **options)


def test_what_an_environment_needs_and_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mujoco", None)
    for name in [name for name in sys.modules if name.startswith("gymnasium.envs.mujoco")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(InputError, match=r"Hopper-v5 cannot be made: .*; pip install 'anyformer\[mujoco\]' brings"):
        make(EnvironmentConfig("Hopper-v5"))


def test_what_draws_no_pictures_is_said() -> None:
    gymnasium.register("Undrawn-v0", lambda render_mode=None: small_environments.Lights())
    try:
        with pytest.raises(InputError, match="environment Undrawn-v0 draws no pictures: rgb_array is none of its"):
            make(EnvironmentConfig("Undrawn-v0"), render=True)
    finally:
        del gymnasium.registry["Undrawn-v0"]


def test_an_older_version_is_made_without_a_word() -> None:
    assert make(EnvironmentConfig("CartPole-v0")).spec.max_episode_steps == 200


def test_the_wrappers_that_may_be_named_are_wrappers() -> None:
    assert len(WRAPPERS) > 20
    assert all(issubclass(getattr(gymnasium.wrappers, name), gymnasium.Wrapper) for name in WRAPPERS)


def test_environments_together_reset_when_they_are_told() -> None:
    together = make_vector(EnvironmentConfig("Counter-v0"), 3, render=True)
    assert together.metadata["autoreset_mode"] == AutoresetMode.DISABLED
    assert [env.unwrapped.render_mode for env in together.envs] == ["rgb_array", None, None]
    together.reset(seed=[1, 2, 3])
    for env in together.envs:
        env.unwrapped.length = 5
    together.step(np.ones(3, np.int64))
    seen, _ = together.reset(seed=[0, 0, 0], options={"reset_mask": np.array([True, False, False])})
    assert seen[:, 0].tolist() == [0, 1, 1]


def test_the_specification_of_an_environment_gives_its_config_back() -> None:
    config = EnvironmentConfig(
        "tests.helpers.small_environments:Counter-v0",
        {"longest": 50, "reuse": False},
        ({"ReshapeObservation": {"shape": (1, 1)}}, "FlattenObservation"),
        7,
    )
    text = to_spec(config).to_json()
    assert from_spec(text) == EnvironmentConfig(
        "tests.helpers.small_environments:Counter-v0",
        {"longest": 50, "reuse": False},
        ({"ReshapeObservation": {"shape": [1, 1]}}, "FlattenObservation"),
        7,
    )
    assert make(from_spec(text)).observation_space == make(config).observation_space


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"id": "A-v0", "additional_wrappers": [1]}'])
def test_another_text_is_no_specification(text: str) -> None:
    with pytest.raises(InputError, match="env_spec is none of gymnasium's"):
        from_spec(text)


def test_a_reference_is_known_by_the_name_of_the_environment() -> None:
    hopper = reference(EnvironmentConfig("Hopper-v5"))
    assert hopper == reference(EnvironmentConfig("Hopper-v2"))
    assert hopper == (-20.272305, 3234.3)
    assert reference(EnvironmentConfig("tests.helpers.small_environments:Counter-v0")) is None


def test_where_an_end_is_a_goal() -> None:
    assert ends_at_goal(EnvironmentConfig("MountainCar-v0"))
    assert not ends_at_goal(EnvironmentConfig("CartPole-v1"))
