"""Environments of gymnasium: made as a config says, one or many that step together; scores that are published."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import gymnasium
from gymnasium.envs.registration import EnvSpec, find_highest_version, get_env_id, parse_env_id
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from anyformer.errors import InputError, nearest
from anyformer.tokenizers.episode.episode import EnvironmentConfig

__all__ = ["EnvironmentConfig", "Reference", "ends_at_goal", "from_spec", "make", "make_vector", "reference", "to_spec"]

WRAPPERS = sorted(
    set(gymnasium.wrappers.__all__)
    # Those that reset by themselves, which would mix episodes, open a window or write files, or give no numpy arrays.
    - {"Autoreset", "HumanRendering", "RecordVideo", "RenderCollection", "vector"}
    - {"ArrayConversion", "JaxToNumpy", "JaxToTorch", "NumpyToTorch"}
)
"""The wrappers that a config may name."""


def make(config: EnvironmentConfig, render: bool = False) -> gymnasium.Env:
    """One environment as the config says, wrappers and limit of steps included.

    render: it draws its pictures, for `env.render()`: (rows, columns, 3) uint8.
    Raises InputError for an id that is not known (with the nearest that are), a package that is not opened or
    installed, and arguments or wrappers that cannot be used.
    """
    _check_id(config.id)
    kwargs = dict(config.kwargs) | ({"render_mode": "rgb_array"} if render else {})
    if reserved := kwargs.keys() & {"id", "max_episode_steps", "disable_env_checker"}:
        raise InputError(f"environment {config.id}: {min(reserved)} does not stand under kwargs")
    try:
        with warnings.catch_warnings():
            # That there is a newer version: this one was asked for by name. That it draws no pictures is said below.
            warnings.simplefilter("ignore")
            # The checker warns of what the first episode would fail on, with less said.
            env = gymnasium.make(config.id, config.max_episode_steps, disable_env_checker=True, **kwargs)
    except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
        mujoco = ":mujoco" in str(gymnasium.registry[config.id.rpartition(":")[2]].entry_point).replace(".", ":")
        extra = "; pip install 'anyformer[mujoco]' brings what it needs" if mujoco else ""
        raise InputError(f"environment {config.id} cannot be made: {_line(error)}{extra}") from None
    except Exception as error:
        raise InputError(f"environment {config.id} cannot be made: {_line(error)}") from error
    if render and "rgb_array" not in (env.metadata.get("render_modes") or ()):
        raise InputError(f"environment {config.id} draws no pictures: rgb_array is none of its render_modes")
    for wrapper in config.wrappers:
        name, arguments = (wrapper, {}) if isinstance(wrapper, str) else next(iter(wrapper.items()))
        if name not in WRAPPERS:
            raise InputError(
                f"environment {config.id}: there is no wrapper {name!r} among those of gymnasium.wrappers that can "
                f"be used{nearest(name, WRAPPERS)}"
            )
        try:
            env = getattr(gymnasium.wrappers, name)(
                env, **{key: _tuples(value) for key, value in (arguments or {}).items()}
            )
        except Exception as error:
            env.close()
            raise InputError(f"environment {config.id}: wrapper {name} cannot be used: {_line(error)}") from error
    return env


def _tuples(value: Any) -> Any:
    """A value with tuples for its lists: YAML and JSON have lists alone, and some wrappers take a shape as a tuple."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def make_vector(
    config: EnvironmentConfig,
    n: int,
    render: bool = False,
    around: Callable[[gymnasium.Env], gymnasium.Env] | None = None,
) -> SyncVectorEnv:
    """n such environments, stepped together. None resets by itself: `reset(options={"reset_mask": ...})` does.

    render: the first one draws its pictures.
    around: puts a wrapper around each, outside of all others.
    """

    def one(number: int) -> gymnasium.Env:
        env = make(config, render and number == 0)
        return env if around is None else around(env)

    return SyncVectorEnv([lambda i=i: one(i) for i in range(n)], autoreset_mode=AutoresetMode.DISABLED)


def _check_id(name: str) -> None:
    """Raise InputError where an id is none that is registered, or would import what nobody opened."""
    module, colon, inner = name.rpartition(":")
    if colon and module not in sys.modules:
        # To import it is to run its code, and a data set or a run may have come from anywhere.
        raise InputError(
            f"environment {name}: the package {module} is not opened; --unsafe_imports {module} does, if you trust it "
            f"(in Python: import {module})"
        )
    if inner in gymnasium.registry:
        return
    try:
        space, base, version = parse_env_id(inner)
    except gymnasium.error.Error:
        raise InputError(f"environment {name!r}: an id is a name with a version, as in CartPole-v1") from None
    newest = find_highest_version(space, base)
    if newest is not None and version is None:
        raise InputError(f"environment {name}: give its version, as in {get_env_id(space, base, newest)}")
    near = f"; there is {get_env_id(space, base, newest)}" if newest is not None else nearest(inner, gymnasium.registry)
    raise InputError(
        f"there is no environment {name}{near}"
        + ("" if near else "; one that a package registers is named package:Name-v0")
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def to_spec(config: EnvironmentConfig) -> EnvSpec:
    """gymnasium's specification of an environment, in plain values, for data sets. Raises InputError as `make` does."""
    env = make(config)
    spec = env.spec
    env.close()
    creator = spec.entry_point
    if callable(creator):
        creator = f"{creator.__module__}:{creator.__qualname__}"
    return replace(spec, id=config.id, entry_point=creator, vector_entry_point=None)


def from_spec(text: str) -> EnvironmentConfig:
    """The config of an environment from the JSON of gymnasium's EnvSpec, as Minari keeps it.

    Only names and plain values are taken: what the text says of code to import is left alone.
    Raises InputError for other text.
    """
    try:
        spec = json.loads(text)
        wrappers = tuple(
            {each["name"]: each["kwargs"]} if each.get("kwargs") else each["name"]
            for each in spec.get("additional_wrappers") or ()
        )
        kwargs = {name: value for name, value in (spec.get("kwargs") or {}).items() if name != "render_mode"}
        return EnvironmentConfig(str(spec["id"]), kwargs, wrappers, spec.get("max_episode_steps"))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"env_spec is none of gymnasium's: {error!r}") from None


# Scores


class Reference(NamedTuple):
    """Returns by which others are normalised: 0 is as good as random, 100 as an expert."""

    random: float
    expert: float


REFERENCES: Mapping[str, Reference] = {
    # Means of 500 random and 500 scripted episodes:
    # anyformer collect --env CartPole-v1 --policy random --policy scripted --episodes 1000 --output DIR
    "Acrobot-v1": Reference(-499.46, -87.72),
    "CartPole-v1": Reference(21.77, 500.0),
    "MountainCar-v0": Reference(-200.0, -119.82),
    "MountainCarContinuous-v0": Reference(-33.39, 95.79),
    "Pendulum-v1": Reference(-1229.48, -136.99),
    # Published with D4RL (Fu et al. 2020), in infos.py of its package; they are used for later versions too.
    "HalfCheetah": Reference(-280.178953, 12135.0),
    "Hopper": Reference(-20.272305, 3234.3),
    "Walker2d": Reference(1.629008, 4592.3),
}
"""By the id of the environment, or by its name without version."""


def reference(config: EnvironmentConfig) -> Reference | None:
    """The returns that are known of an environment; None where none are."""
    return REFERENCES.get(config.id.rpartition(":")[2]) or REFERENCES.get(name_of(config))


def name_of(config: EnvironmentConfig) -> str:
    """The name of an environment without package and version."""
    return parse_env_id(config.id.rpartition(":")[2])[1]


def ends_at_goal(config: EnvironmentConfig) -> bool:
    """Whether an episode of this environment is `terminated` at its goal and nowhere else: that is its success."""
    return name_of(config) in ("Acrobot", "MountainCar", "MountainCarContinuous")
