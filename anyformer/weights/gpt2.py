"""GPT-2 (Radford et al. 2019) of transformers: its config.json and its tensors, in and out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.heads import HeadConfig
from anyformer.weights.huggingface import Design, Family, Settings, called

BLOCK = "model.transformer.blocks.*"
NAMES = {
    "wte.weight": "model.embeddings.lifts.FIELD.table",
    "wpe.weight": "model.embeddings.positions.WORD",
    **{f"h.*.attn.c_attn.{part}.*": f"{BLOCK}.attention.{part}.*" for part in "qkv"},
    "h.*.attn.c_proj.*": f"{BLOCK}.attention.o.*",
    "h.*.mlp.c_fc.*": f"{BLOCK}.mlp.up.*",
    "h.*.mlp.c_proj.*": f"{BLOCK}.mlp.down.*",
    "h.*.ln_1.*": f"{BLOCK}.attention_residual.norm.*",
    "h.*.ln_2.*": f"{BLOCK}.mlp_residual.norm.*",
    "ln_f.*": "model.transformer.final_norm.*",
    "lm_head.weight": "head.output.weight",
}
PREFIX = "transformer."
"""Of all names but the head's; the files of the first models lack it."""
MASK = re.compile(r"h\.\d+\.attn\.(masked_)?bias")
"""The causal mask, which old files hold."""


def read_trunk(settings: Settings, d_model: int, depth: int, n_heads: int, activation: str) -> TransformerConfig:
    """The stack that a config.json says. depth, n_heads, activation: where it leaves them out.

    Raises InputError for one that we have no counterpart of.
    """
    settings.require(scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
    return TransformerConfig(
        d_model,
        depth=settings.get("n_layer", depth),
        n_heads=settings.get("n_head", n_heads),
        d_ff=settings.get("n_inner", None, (int, type(None))) or 4 * d_model,
        activation=settings.activation("activation_function", activation),
        norm_eps=settings.get("layer_norm_epsilon", 1e-5),
        attention_scale=None if settings.get("scale_attn_weights", True) else 1.0,
        dropout=settings.get("resid_pdrop", 0.1, float),
        attention_dropout=settings.get("attn_pdrop", 0.1, float),
        init_std=settings.get("initializer_range", 0.02, float),
    )


def trunk_settings(config: TransformerConfig) -> dict[str, Any]:
    """The way back, without the width."""
    return {
        "n_layer": config.depth,
        "n_head": config.n_heads,
        "n_inner": config.inner_width,
        "activation_function": called(config.activation),
        "layer_norm_epsilon": config.norm_eps,
        "scale_attn_weights": config.attention_scale in (None, config.head_width**-0.5),
        "resid_pdrop": config.dropout,
        "attn_pdrop": config.attention_dropout,
        "initializer_range": config.init_std,
    }


def _design(settings: Settings, architecture: str) -> Design:
    is_bare = architecture in GPT2.bare
    return Design(
        read_trunk(settings, settings.get("n_embd", 768), depth=12, n_heads=12, activation="gelu_new"),
        EmbeddingConfig(types=False, dropout=settings.get("embd_pdrop", 0.1, float)),
        max_len=settings.get("n_positions", 1024),
        vocab_size=settings.get("vocab_size", 50257),
        output=None if is_bare else HeadConfig(tied=settings.get("tie_word_embeddings", True)),
        options={"causal": True} if is_bare else {},
    )


def _settings(design: Design) -> dict[str, Any]:
    return trunk_settings(design.transformer) | {
        "n_embd": design.transformer.d_model,
        "n_positions": design.max_len,
        "vocab_size": design.vocab_size,
        "embd_pdrop": design.embedding.dropout,
        "tie_word_embeddings": design.output.tied,
    }


def _apart(state: Mapping[str, Tensor], settings: Settings) -> dict[str, Tensor]:
    pieces = {}
    for full_name, tensor in state.items():
        name = full_name.removeprefix(PREFIX)
        if MASK.fullmatch(name) or (name == "lm_head.weight" and settings.get("tie_word_embeddings", True)):
            continue
        if ".c_" in name and name.endswith(".weight"):
            # It multiplies from the right.
            tensor = tensor.movedim(0, -1)
        if ".c_attn." in name:
            stem, _, end = name.rpartition(".")
            pieces |= {f"{stem}.{part}.{end}": piece for part, piece in zip("qkv", tensor.tensor_split(3), strict=True)}
        else:
            pieces[name] = tensor
    return pieces


def _together(pieces: dict[str, Tensor]) -> dict[str, Tensor]:
    kind = pieces.pop("type", None)
    # Adding 0 would turn -0 into 0.
    if kind is not None and kind.any():
        pieces["wpe.weight"] = pieces["wpe.weight"] + kind
    state = {}
    for name, tensor in pieces.items():
        if ".c_attn." in name:
            stem, part, end = name.rsplit(".", 2)
            if part != "q":
                continue
            name = f"{stem}.{end}"
            tensor = torch.cat([pieces[f"{stem}.{each}.{end}"] for each in "qkv"])
        if ".c_" in name and name.endswith(".weight"):
            tensor = tensor.T
        state[name if name == "lm_head.weight" else PREFIX + name] = tensor
    return state


GPT2 = Family(
    "gpt2",
    {"GPT2LMHeadModel": "language"},
    _design,
    _settings,
    NAMES,
    "h.",
    _apart,
    _together,
    bare={"GPT2Model": "bare"},
)
