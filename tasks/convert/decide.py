"""The Decision Transformer of transformers as a task that acts, and back.

Their model takes numbers as they are given to it: what scaled them stood beside it, in its user's program. Ours goes
out with all that in its config.json, and is as it was when it comes in again. Those of elsewhere lack it; whoever knows
what theirs was trained on writes `state_mean`, `state_std` and `return_scale` into its config.json.
"""

from __future__ import annotations

import math
import reprlib
from dataclasses import fields, replace
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from anyformer.errors import InputError
from anyformer.tasks.decide.actor import PlayConfig
from anyformer.tasks.decide.decide import Decide
from anyformer.tokenizers.episode.continuous import Returns, Vector
from anyformer.tokenizers.episode.discrete import Categories
from anyformer.tokenizers.episode.environments import make
from anyformer.tokenizers.episode.episode import EnvironmentConfig
from anyformer.tokenizers.episode.spaces import plain, read_space, step_tokenizer
from anyformer.tokens import Tokenizer
from anyformer.weights.decision_transformer import DISCRETE, ActingDesign
from anyformer.weights.huggingface import Settings

ENVIRONMENT, CONTEXT, SPACES = "environment", "context_length", ("observation_space", "action_space")
SCALE, KNOWN = "return_scale", "return_range"
SCALING = {"state": ("state_mean", "state_std"), "action": ("action_mean", "action_std")}
"""What our config.json says beside theirs."""


def with_spaces(settings: Settings, environment: str | None) -> Settings:
    """The settings of a config.json with the spaces of an environment, by its name, where one is given.

    Raises InputError if the model sees or does something else than there is in the environment.
    """
    if environment is None:
        return settings
    told = EnvironmentConfig(environment)
    made = make(told)
    seen, done = made.observation_space, made.action_space
    made.close()
    d_state, d_action = settings.get("state_dim", 17), settings.get("act_dim", 4)
    is_vector = isinstance(seen, spaces.Box) and math.prod(seen.shape) == d_state
    is_discrete = isinstance(done, spaces.Discrete)
    n_actions = done.n if is_discrete else math.prod(done.shape) if isinstance(done, spaces.Box) else None
    if not is_vector or n_actions != d_action:
        raise InputError(
            f"{settings.path}: the model sees {d_state} numbers and does {d_action}, and --env {environment} shows "
            f"{seen} and takes {done}; give the one that it was trained in"
        )
    own = {ENVIRONMENT: {"id": environment}, DISCRETE: bool(is_discrete)}
    own |= {name: plain(space) for name, space in zip(SPACES, (seen, done), strict=True)}
    return replace(settings, values={**settings.values, **own})


def decide_task(design: ActingDesign, settings: Settings) -> Decide:
    """The task of a config.json, without its weights. Raises InputError for what contradicts itself."""
    seen, done = (_space(settings, name, design) for name in SPACES)
    sides = {"state": (seen, Vector()), "action": (done, Categories() if design.discrete else Vector(tanh=design.tanh))}
    tokenizers: dict[str, Tokenizer] = {}
    for name, (space, given) in sides.items():
        if isinstance(given, Vector):
            mean, std = (_numbers(settings, part) for part in SCALING[name])
            if (mean is None) != (std is None):
                there, lacking = SCALING[name] if std is None else SCALING[name][::-1]
                raise InputError(f"{settings.path}: {there} stands without {lacking}; give both or none")
            given = replace(given, normalize=mean is not None, mean=mean, std=std)
        tokenizers[name] = step_tokenizer(space, given, name)
    tokenizers["return"] = Returns(scale=float(settings.get(SCALE, 1.0, float)))
    known, where = _numbers(settings, KNOWN), _environment(settings)
    if known is not None and len(known) != 2:
        raise InputError(f"{settings.path}: {KNOWN} must be the lowest and the highest return, got {list(known)}")
    return Decide(
        tokenizers,
        design.transformer,
        design.embedding,
        environment=where,
        context=settings.get(CONTEXT, 20),
        # So that all of their heads are here.
        state_loss=1.0,
        return_loss=1.0,
        play=None if where is None else PlayConfig(),
        observation_space=plain(seen),
        action_space=plain(done),
        known_returns=known,
    )


def _space(settings: Settings, name: str, design: ActingDesign) -> Space:
    """What is seen or done: as the config.json says, or as theirs is without saying so."""
    if (told := settings.get(name, None, (str, type(None)))) is not None:
        return read_space(told)
    if name == "action_space" and design.discrete:
        return spaces.Discrete(design.d_action)
    width = design.d_state if name == "observation_space" else design.d_action
    bound = 1.0 if name == "action_space" and design.tanh else math.inf
    return spaces.Box(-bound, bound, (width,), np.float32)


def _numbers(settings: Settings, name: str) -> tuple[float, ...] | None:
    values = settings.get(name, None, (list, type(None)))
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values or ()):
        raise InputError(f"{settings.path}: {name} must be a list of numbers, got {reprlib.repr(values)}")
    return None if values is None else tuple(map(float, values))


def _environment(settings: Settings) -> EnvironmentConfig | None:
    told = settings.get(ENVIRONMENT, None, (dict, type(None)))
    if told is None:
        return None
    if "id" not in told or told.keys() - {part.name for part in fields(EnvironmentConfig)}:
        raise InputError(
            f"{settings.path}: {ENVIRONMENT} must have an id, kwargs and wrappers, got {reprlib.repr(told)}"
        )
    return EnvironmentConfig(**{**told, "wrappers": tuple(told.get("wrappers", ()))})


# Out


def decide_design(task: Decide) -> ActingDesign:
    """What a config.json would say of the task. Raises InputError for what theirs does not support."""
    state, action = (task.tokenizers.get(name) for name in ("state", "action"))
    is_discrete = isinstance(action, Categories)
    wrong = {
        "returns: false": not task.returns,
        # The norm of the embeddings has this one.
        f"transformer.norm_eps: {task.transformer.norm_eps}": task.transformer.norm_eps != 1e-5,
        "an observation other than one vector": not isinstance(state, Vector),
        "an action other than one vector or one choice": not (isinstance(action, Vector) or is_discrete),
    }
    if not any(wrong.values()):
        wrong |= {
            "actions of several choices": is_discrete and action.n_each != 1,
            "loss: gaussian": not is_discrete and action.loss == "gaussian",
            "tanh on bounds other than -1 to 1, or on normalised actions": not is_discrete
            and action.tanh
            and (action.normalize or not (np.abs(action.bounds) == 1).all()),
        }
    if found := [what for what, is_there in wrong.items() if is_there]:
        raise InputError(
            f"DecisionTransformerModel of transformers does not support {found[0]}; train a model without it"
        )
    placed, modules = task.model.embeddings.placed, task.model.embeddings.positions
    positions = [replace(each, sizes=tuple(own.sizes) or None) for each, own in zip(placed, modules, strict=True)]
    max_steps = next((own.sizes[0] for own in modules if own.sizes), 0)
    return ActingDesign(
        task.transformer,
        # Where there is none, it is 0.
        replace(task.embedding, positions=positions, offset=True),
        max_len=max_steps,
        vocab_size=1,
        d_state=state.n_values,
        d_action=action.n_ids if is_discrete else action.n_values,
        tanh=not is_discrete and action.tanh,
        discrete=is_discrete,
    )


def decide_settings(task: Decide) -> dict[str, Any]:
    """What a config.json says beside the design: what scales the numbers, and where the model acts."""
    told: dict[str, Any] = {name: getattr(task, name) for name in SPACES}
    if task.environment is not None:
        told[ENVIRONMENT] = {name: value for name, value in vars(task.environment).items() if value}
    for name, parts in SCALING.items():
        tokenizer = task.tokenizers[name]
        if isinstance(tokenizer, Vector) and tokenizer.normalize:
            told |= dict(zip(parts, map(list, (tokenizer.mean, tokenizer.std)), strict=True))
    told |= {CONTEXT: task.context, SCALE: task.tokenizers["return"].scale}
    if task.known_returns is not None:
        told[KNOWN] = list(task.known_returns)
    return told
