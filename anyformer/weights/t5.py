"""T5 (Raffel et al. 2020) of transformers, v1.0 and v1.1 (Flan-T5 too): its config.json and its tensors, in and out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from anyformer.model.config import RelativeConfig, TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.heads import HeadConfig
from anyformer.weights.huggingface import Design, Family, Settings, called, untyped

SHARED, HEAD = "shared.weight", "lm_head.weight"
BIAS = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
STACKS = {"encoder": ("encoder", "encoder_relative"), "decoder": ("transformer", "relative")}
"""Their stacks, ours, and the biases of ours."""


def _names() -> dict[str, str]:
    names = {SHARED: "model.embeddings.lifts.FIELD.table", HEAD: "head.output.weight"}
    for theirs, (ours, bias) in STACKS.items():
        parts = {"SelfAttention": "attention", "EncDecAttention": "cross", "DenseReluDense": "mlp"}
        if theirs == "encoder":
            del parts["EncDecAttention"]
        names |= {f"{theirs}.{BIAS}": f"model.{bias}.table"}
        for i, (part, own) in enumerate(parts.items()):
            layer, block = f"{theirs}.block.*.layer.{i}", f"model.{ours}.blocks.*"
            names[f"{layer}.layer_norm.weight"] = f"{block}.{own}_residual.norm.weight"
            if part != "DenseReluDense":
                names |= {f"{layer}.{part}.{each}.weight": f"{block}.{own}.{each}.weight" for each in "qkvo"}
        matrices = {"wi_0": "gate", "wi_1": "up", "wi": "up", "wo": "down"}
        names |= {f"{layer}.{part}.{each}.weight": f"{block}.mlp.{own}.weight" for each, own in matrices.items()}
        names[f"{theirs}.final_layer_norm.weight"] = f"model.{ours}.final_norm.weight"
    return names


NAMES = _names()
COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
UNREAD = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
"""Of the first models' files, and never read."""


def _design(settings: Settings, architecture: str) -> Design:
    kind, dropout = settings.get("feed_forward_proj", "relu"), settings.get("dropout_rate", 0.1, float)
    buckets = RelativeConfig(
        "t5",
        "word",
        n_buckets=settings.get("relative_attention_num_buckets", 32),
        max_distance=settings.get("relative_attention_max_distance", 128),
    )
    # Of `gated-gelu` transformers takes the approximation.
    told = {"gated-gelu": "gelu_new"}.get(kind, kind.removeprefix("gated-"))
    depth = settings.get("num_layers", 6)
    encoder = TransformerConfig(
        settings.get("d_model", 512),
        depth=depth,
        n_heads=settings.get("num_heads", 8),
        d_head=settings.get("d_kv", 64),
        d_ff=settings.get("d_ff", 2048),
        activation=replace(settings, values={"feed_forward_proj": told}).activation("feed_forward_proj", "relu"),
        gated=kind.startswith("gated-"),
        norm="rmsnorm",
        norm_eps=settings.get("layer_norm_epsilon", 1e-6),
        attention_scale=1.0,
        relative=buckets,
        dropout=dropout,
        attention_dropout=dropout,
        **dict.fromkeys(("q_bias", "k_bias", "v_bias", "o_bias", "mlp_bias"), False),
    )
    decoder = replace(
        encoder,
        depth=settings.get("num_decoder_layers", None, (int, type(None))) or depth,
        relative=replace(buckets, bidirectional=False),
    )
    # transformers calls every head tied and says of v1.1 that it is not scaled.
    tied = settings.get("tie_word_embeddings", True)
    return Design(
        decoder,
        EmbeddingConfig(types=False, positions=[], dropout=dropout),
        max_len=None,
        vocab_size=settings.get("vocab_size", 32128),
        output=HeadConfig(tied=tied, scaled=settings.get("scale_decoder_outputs", tied)),
        encoder=encoder,
    )


def _settings(design: Design) -> dict[str, Any]:
    config, reader, output = design.transformer, design.encoder, design.output
    buckets = reader.relative or RelativeConfig("t5", "word")
    kind = "gelu" if config.gated and config.activation == "gelu_tanh" else called(config.activation)
    return {
        "d_model": config.d_model,
        "d_kv": config.head_width,
        "d_ff": config.inner_width,
        "num_layers": reader.depth,
        "num_decoder_layers": config.depth,
        "num_heads": config.n_heads,
        "relative_attention_num_buckets": buckets.n_buckets,
        "relative_attention_max_distance": buckets.max_distance,
        "feed_forward_proj": f"gated-{kind}" if config.gated else kind,
        "layer_norm_epsilon": config.norm_eps,
        "vocab_size": design.vocab_size,
        "dropout_rate": config.dropout,
        "tie_word_embeddings": output.tied,
        "scale_decoder_outputs": output.scaled,
    }


def _apart(state: Mapping[str, Tensor], settings: Settings) -> dict[str, Tensor]:
    left_out = {*COPIES, UNREAD} | ({HEAD} if settings.get("tie_word_embeddings", True) else set())
    pieces = {name: tensor for name, tensor in state.items() if name not in left_out}
    if SHARED not in pieces and COPIES[0] in state:
        pieces[SHARED] = state[COPIES[0]]
    return pieces


def _settled(settings: Settings, state: Mapping[str, Tensor]) -> Settings:
    """transformers says of every head that it is tied, and writes those of v1.1 that are not beside the table."""
    head, table = state.get(HEAD), state.get(SHARED)
    if head is None or table is None or (head.shape == table.shape and torch.equal(head, table)):
        return settings
    scaled = settings.get("scale_decoder_outputs", settings.get("tie_word_embeddings", True))
    values = {**settings.values, "tie_word_embeddings": False, "scale_decoder_outputs": scaled}
    return replace(settings, values=values)


def _encoder_design(settings: Settings, architecture: str) -> Design:
    whole = _design(settings, architecture)
    return replace(whole, transformer=whole.encoder, encoder=None, output=None)


def _together(pieces: dict[str, Tensor]) -> dict[str, Tensor]:
    pieces = untyped(pieces, "t5")
    # Beside a gate the matrix in is called otherwise.
    gated = any(".wi_0." in name for name in pieces)
    return {name.replace(".wi.", ".wi_1.") if gated else name: tensor for name, tensor in pieces.items()}


T5 = Family(
    "t5",
    {"T5ForConditionalGeneration": "sequence"},
    _design,
    _settings,
    NAMES,
    ("encoder.block.", "decoder.block."),
    _apart,
    _together,
    settled=_settled,
    vocabulary="spiece.model",
)

T5_ENCODER = Family(
    "t5",
    {},
    _encoder_design,
    None,
    {
        theirs: ours.replace("model.encoder", "model.transformer").replace(
            "model.transformer_relative", "model.relative"
        )
        for theirs, ours in NAMES.items()
        if theirs == SHARED or theirs.startswith("encoder.")
    },
    "encoder.block.",
    _apart,
    None,
    bare={"T5EncoderModel": "bare"},
    vocabulary="spiece.model",
)
