"""Marian (Junczys-Dowmunt et al. 2018) of transformers: the encoder-decoder of Vaswani et al. 2017, in and out.

Its sines are a formula here: a table of them in the file is compared and left there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from anyformer.errors import InputError
from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.heads import HeadConfig
from anyformer.model.positions import PositionConfig, SinusoidalPositions
from anyformer.weights.huggingface import Design, Family, Settings, called, untyped

PARTS = {
    **{f"self_attn.{part}_proj.*": f"attention.{part}.*" for part in "qkv"},
    "self_attn.out_proj.*": "attention.o.*",
    "self_attn_layer_norm.*": "attention_residual.norm.*",
    **{f"encoder_attn.{part}_proj.*": f"cross.{part}.*" for part in "qkv"},
    "encoder_attn.out_proj.*": "cross.o.*",
    "encoder_attn_layer_norm.*": "cross_residual.norm.*",
    "fc1.*": "mlp.up.*",
    "fc2.*": "mlp.down.*",
    "final_layer_norm.*": "mlp_residual.norm.*",
}
STACKS = {"encoder": "encoder", "decoder": "transformer"}
"""Their stacks and ours."""
LAYERS = tuple(f"model.{stack}.layers." for stack in STACKS)

BLOCKS = {
    f"model.{theirs}.layers.*.{part}": f"model.{ours}.blocks.*.{own}"
    for theirs, ours in STACKS.items()
    for part, own in PARTS.items()
}
"""The blocks of both, named as BART names them (Lewis et al. 2020), and Whisper too."""

SHARED, BIAS = "model.shared.weight", "final_logits_bias"
NAMES = {
    SHARED: "model.embeddings.lifts.FIELD.table",
    BIAS: "head.bias",
    **BLOCKS,
}
COPIES = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
SINES = ("model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight")
PLACES = PositionConfig(("word",), "sinusoidal", sines="halves")
ROUNDED = 1e-3
"""What a sine may be off in a file of 16 bits a number."""


def read_stacks(
    settings: Settings, d_model: int, depth: int, n_heads: int, d_ff: int, **others: Any
) -> tuple[TransformerConfig, TransformerConfig]:
    """The decoder and the encoder that a config.json says, by the names that BART has for their sizes, and Whisper too.

    d_model, depth, n_heads, d_ff: where it leaves them out. others: options of both.
    """
    decoder, encoder = (
        TransformerConfig(
            settings.get("d_model", d_model),
            depth=settings.get(f"{stack}_layers", depth),
            n_heads=settings.get(f"{stack}_attention_heads", n_heads),
            d_ff=settings.get(f"{stack}_ffn_dim", d_ff),
            activation=settings.activation("activation_function", "gelu"),
            attention_dropout=settings.get("attention_dropout", 0.0, float),
            init_std=settings.get("init_std", 0.02, float),
            **others,
        )
        for stack in ("decoder", "encoder")
    )
    return decoder, encoder


def stack_settings(design: Design) -> dict[str, Any]:
    """The way back."""
    config = design.transformer
    sizes = {}
    for stack, own in (("encoder", design.encoder), ("decoder", config)):
        sizes[f"{stack}_layers"] = own.depth
        sizes[f"{stack}_attention_heads"] = own.n_heads
        sizes[f"{stack}_ffn_dim"] = own.inner_width
    return sizes | {
        "d_model": config.d_model,
        "activation_function": called(config.activation),
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "activation_dropout": 0.0,
        "init_std": config.init_std,
    }


def _design(settings: Settings, architecture: str) -> Design:
    vocab_size = settings.get("vocab_size", 58101)
    # Without either there are three tables: of the source, of the target and of the output.
    settings.require(share_encoder_decoder_embeddings=True, tie_word_embeddings=True)
    if settings.values.get("decoder_vocab_size") is not None:
        settings.require(decoder_vocab_size=vocab_size)
    # Of the first models' files.
    settings.require(normalize_embedding=False, normalize_before=False, add_final_layer_norm=False)
    dropout = settings.get("dropout", 0.1, float)
    decoder, encoder = read_stacks(settings, 1024, 12, 16, 4096, norm_position="post", dropout=dropout)
    return Design(
        decoder,
        EmbeddingConfig(types=False, positions=[PLACES], scale=settings.get("scale_embedding", False), dropout=dropout),
        max_len=settings.get("max_position_embeddings", 1024),
        vocab_size=vocab_size,
        output=HeadConfig(bias=True),
        encoder=encoder,
    )


def _settings(design: Design) -> dict[str, Any]:
    return stack_settings(design) | {
        # Of sines there are as many as are asked for; there a number must be said.
        "max_position_embeddings": design.max_len or 1024,
        "vocab_size": design.vocab_size,
        "decoder_vocab_size": design.vocab_size,
        "share_encoder_decoder_embeddings": True,
        "scale_embedding": design.embedding.scale,
        "tie_word_embeddings": True,
    }


def _apart(state: Mapping[str, Tensor], settings: Settings) -> dict[str, Tensor]:
    pieces = {}
    for name, tensor in state.items():
        if name in SINES:
            _check_sines(name, tensor, settings)
        elif name == BIAS:
            pieces[name] = tensor[0]
        elif name not in COPIES:
            pieces[name] = tensor
    if SHARED not in pieces and COPIES[0] in state:
        pieces[SHARED] = state[COPIES[0]]
    # Files without it are of models that have none.
    pieces.setdefault(BIAS, torch.zeros(settings.get("vocab_size", 58101)))
    return pieces


def _check_sines(name: str, table: Tensor, settings: Settings) -> None:
    """Raise InputError for a table of positions that is not the sines."""
    sines = SinusoidalPositions(PLACES, table.shape[1])(torch.arange(len(table))[:, None])
    if (table.float() - sines).abs().max() > ROUNDED:
        raise InputError(f"{settings.path}: {name} holds other positions than sines, and cannot be brought in")


def _together(pieces: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor[None] if name == BIAS else tensor for name, tensor in untyped(pieces, "marian").items()}


MARIAN = Family(
    "marian",
    {"MarianMTModel": "sequence"},
    _design,
    _settings,
    NAMES,
    LAYERS,
    _apart,
    _together,
    vocabulary="source.spm",
)
