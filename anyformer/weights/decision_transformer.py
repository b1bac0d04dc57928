"""The Decision Transformer (Chen et al. 2021) of transformers: its config.json and its tensors, in and out.

Its trunk is a GPT-2 whose table of positions is never counted along: row 0 is added to every token behind the norm of
the embeddings, and stays a vector of its own here. The other rows, and the table of a vocabulary that it has not, play
no part and are left behind.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from anyformer.model.by_field import module_name
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.positions import PositionConfig
from anyformer.weights.gpt2 import GPT2, PREFIX, read_trunk, trunk_settings
from anyformer.weights.gpt2 import NAMES as TRUNK_NAMES
from anyformer.weights.huggingface import Design, Family, Settings

DISCRETE = "discrete_actions"
"""Of a config.json of ours: whether actions are numbers of things to do, which their model takes and gives as vectors
with a place for each."""
FIELDS = ("return", "state", "action")
HEADS = {"action": "predict_action.0", "state": "predict_state", "return": "predict_return"}
"""What their heads are called."""
LIFTS = "model.embeddings.lifts"
NAMES = {
    **{f"embed_{name}.*": f"{LIFTS}.{module_name(name)}.linear.*" for name in FIELDS},
    **{f"type.{name}": f"model.embeddings.types.{module_name(name)}" for name in FIELDS},
    "embed_action_table": f"{LIFTS}.action.table",
    "embed_timestep.weight": "model.embeddings.positions.STEP",
    "embed_ln.*": "model.embeddings.norm.*",
    "encoder.wpe.weight.0": "model.embeddings.offset",
    **{f"encoder.{name}": ours for name, ours in TRUNK_NAMES.items() if name.startswith(("h.", "ln_f."))},
    **{f"{theirs}.*": f"heads.{module_name(name)}.output.*" for name, theirs in HEADS.items()},
}
TRUNK = re.compile(r"encoder\.(h\.|ln_f\.)")


@dataclass(frozen=True)
class ActingDesign(Design):
    """A design, and what is seen and done."""

    d_state: int = 17
    """Numbers in a state."""
    d_action: int = 4
    """Numbers in an action, or how many things there are to do."""
    tanh: bool = True
    """Whether actions are bounded by tanh."""
    discrete: bool = False
    """Whether actions are things to do."""


def _design(settings: Settings, architecture: str) -> ActingDesign:
    # The norm of its embeddings has this eps whatever its config.json says.
    settings.require(layer_norm_epsilon=1e-5)
    max_steps = settings.get("max_ep_len", 4096)
    return ActingDesign(
        read_trunk(settings, settings.get("hidden_size", 128), depth=3, n_heads=1, activation="relu"),
        EmbeddingConfig(
            # The bias of a linear map of actions that are numbers is their type.
            types=settings.get(DISCRETE, False),
            positions=[PositionConfig(("step",), "learned", (max_steps,))],
            norm=True,
            offset=True,
            dropout=settings.get("embd_pdrop", 0.1, float),
        ),
        max_len=max_steps,
        vocab_size=1,
        d_state=settings.get("state_dim", 17),
        d_action=settings.get("act_dim", 4),
        tanh=settings.get("action_tanh", True),
        discrete=settings.get(DISCRETE, False),
    )


def _settings(design: Design) -> dict[str, Any]:
    assert isinstance(design, ActingDesign)
    return trunk_settings(design.transformer) | {
        "state_dim": design.d_state,
        "act_dim": design.d_action,
        "action_tanh": design.tanh,
        DISCRETE: design.discrete,
        "hidden_size": design.transformer.d_model,
        "max_ep_len": design.max_len,
        "n_positions": 1,
        "vocab_size": 1,
        "embd_pdrop": design.embedding.dropout,
    }


def _apart(state: Mapping[str, Tensor], settings: Settings) -> dict[str, Tensor]:
    trunk = {name.removeprefix("encoder."): tensor for name, tensor in state.items() if TRUNK.match(name)}
    pieces = {name: tensor for name, tensor in state.items() if not TRUNK.match(name)}
    pieces |= {f"encoder.{name}": piece for name, piece in GPT2.apart(trunk, settings).items()}
    if (places := pieces.pop("encoder.wpe.weight", None)) is not None:
        pieces["encoder.wpe.weight.0"] = places[0]
        if len(places) > 1:
            pieces["encoder.wpe.weight.1:"] = places[1:]
    for name, tensor in pieces.items():
        if name.startswith(HEADS["return"]):
            # Ours predicts the reward of the step before the return that is left.
            pieces[name] = torch.cat([torch.zeros_like(tensor), tensor])
    if settings.get(DISCRETE, False):
        for name, ours in {"embed_action.weight": "embed_action_table", "embed_action.bias": "type.action"}.items():
            if name in pieces:
                pieces[ours] = pieces.pop(name).movedim(0, -1)
        width = settings.get("hidden_size", 128)
        pieces |= {f"type.{name}": torch.zeros(width) for name in ("return", "state")}
    return pieces


def _together(pieces: dict[str, Tensor]) -> dict[str, Tensor]:
    kinds = {name: pieces.pop(f"type.{name}", None) for name in FIELDS}
    trunk = {name.removeprefix("encoder."): pieces.pop(name) for name in list(pieces) if TRUNK.match(name)}
    state = pieces | {f"encoder.{name.removeprefix(PREFIX)}": t for name, t in GPT2.together(trunk).items()}
    norm = state["embed_ln.weight"]
    offset = state.pop("encoder.wpe.weight.0", None)
    state["encoder.wpe.weight"] = (torch.zeros_like(norm) if offset is None else offset)[None]
    state["encoder.wte.weight"] = torch.zeros_like(norm)[None]
    if "embed_action_table" in state:
        state["embed_action.weight"] = state.pop("embed_action_table").T
        state["embed_action.bias"] = torch.zeros_like(norm) if kinds["action"] is None else kinds.pop("action")
    for name, kind in kinds.items():
        # Adding 0 would turn -0 into 0.
        if kind is not None and kind.any():
            state[f"embed_{name}.bias"] = state[f"embed_{name}.bias"] + kind
    widths = {"state": state["embed_state.weight"].shape[1], "return": 1}
    for name, width in widths.items():
        for part, shape in (("weight", (width, len(norm))), ("bias", (width,))):
            theirs = f"{HEADS[name]}.{part}"
            state[theirs] = state[theirs][-width:] if theirs in state else torch.zeros(shape)
    return state


DECISION_TRANSFORMER = Family(
    "decision_transformer",
    {"DecisionTransformerModel": "decide"},
    _design,
    _settings,
    NAMES,
    "encoder.h.",
    _apart,
    _together,
)
