"""The Vision Transformer (Dosovitskiy et al. 2021) of transformers, without a head: its config.json and its tensors,
in. Those with timm's names are in `timm_vit`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from anyformer.errors import InputError
from anyformer.model.by_field import weight_name
from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.positions import PositionConfig
from anyformer.weights.huggingface import Design, Family, Settings

LAYER, BLOCK = "encoder.layer.*", "model.transformer.blocks.*"
PATCHES, PLACES = "embeddings.patch_embeddings.projection.weight", "embeddings.position_embeddings"
NAMES = {
    "embeddings.cls_token": weight_name("model.embeddings.lifts.class.table"),
    "embeddings.patch_embeddings.projection.*": "model.embeddings.lifts.image.linear.*",
    f"{PLACES}[0]": "model.embeddings.positions.SLOT",
    f"{PLACES}[1:]": "model.embeddings.positions.ROW",
    f"{LAYER}.attention.attention.query.*": f"{BLOCK}.attention.q.*",
    f"{LAYER}.attention.attention.key.*": f"{BLOCK}.attention.k.*",
    f"{LAYER}.attention.attention.value.*": f"{BLOCK}.attention.v.*",
    f"{LAYER}.attention.output.dense.*": f"{BLOCK}.attention.o.*",
    f"{LAYER}.layernorm_before.*": f"{BLOCK}.attention_residual.norm.*",
    f"{LAYER}.layernorm_after.*": f"{BLOCK}.mlp_residual.norm.*",
    f"{LAYER}.intermediate.dense.*": f"{BLOCK}.mlp.up.*",
    f"{LAYER}.output.dense.*": f"{BLOCK}.mlp.down.*",
    "layernorm.*": "model.transformer.final_norm.*",
}
PREFIX = "vit."
"""Of all names in files of models with a head."""


@dataclass(frozen=True)
class PictureDesign(Design):
    """A design, and the pictures that it reads."""

    size: tuple[int, int] = (224, 224)
    """Rows and columns."""
    patch: int = 16
    channels: int = 3


def _design(settings: Settings, architecture: str) -> PictureDesign:
    size, patch = (_pair(settings, name, default) for name, default in (("image_size", 224), ("patch_size", 16)))
    if patch[0] != patch[1]:
        raise InputError(f"{settings.path}: patch_size: {list(patch)} cannot be brought in; only squares can")
    has_bias, dropout = settings.get("qkv_bias", True), settings.get("hidden_dropout_prob", 0.0, float)
    return PictureDesign(
        TransformerConfig(
            settings.get("hidden_size", 768),
            depth=settings.get("num_hidden_layers", 12),
            n_heads=settings.get("num_attention_heads", 12),
            d_ff=settings.get("intermediate_size", 3072),
            activation=settings.activation("hidden_act", "gelu"),
            norm_eps=settings.get("layer_norm_eps", 1e-12),
            dropout=dropout,
            attention_dropout=settings.get("attention_probs_dropout_prob", 0.0, float),
            init_std=settings.get("initializer_range", 0.02, float),
            **dict.fromkeys(("q_bias", "k_bias", "v_bias"), has_bias),
        ),
        EmbeddingConfig(
            types=False,
            positions=[PositionConfig(("row", "column"), "joint"), PositionConfig(("slot",), "joint")],
            dropout=dropout,
        ),
        max_len=None,
        vocab_size=0,
        options={"class_token": True},
        size=size,
        patch=patch[0],
        channels=settings.get("num_channels", 3),
    )


def _pair(settings: Settings, name: str, default: int) -> tuple[int, int]:
    value = settings.get(name, default, (int, list))
    found = value if isinstance(value, list) else [value, value]
    if len(found) != 2 or not all(isinstance(side, int) for side in found):
        raise InputError(f"{settings.path}: {name} is {value!r}, which is not a value for it")
    return found[0], found[1]


def _apart(state: Mapping[str, Tensor], settings: Settings) -> dict[str, Tensor]:
    pieces = {}
    for full_name, tensor in state.items():
        name = full_name.removeprefix(PREFIX)
        if name == PATCHES:
            pieces[name] = tensor.flatten(1)
        elif name == PLACES:
            pieces |= {f"{name}[0]": tensor[0, :1], f"{name}[1:]": tensor[0, 1:]}
        else:
            pieces[name] = tensor[0] if name == "embeddings.cls_token" else tensor
    return pieces


VIT = Family("vit", {}, _design, None, NAMES, "encoder.layer.", _apart, None, bare={"ViTModel": "bare"})
