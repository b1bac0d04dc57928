"""BERT (Devlin et al. 2019) of transformers: its config.json and its tensors, in and out; and RoBERTa (Liu et al.
2019), which is one with other places, in.

One sentence at a time: its token type is the type vector of our field, and the types of other sentences stay out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.heads import HeadConfig
from anyformer.weights.huggingface import Design, Family, Settings, called
from anyformer.weights.tensors import HEAD

LAYER, BLOCK = "bert.encoder.layer.*", "model.transformer.blocks.*"
TYPES = "bert.embeddings.token_type_embeddings.weight"
NAMES = {
    "bert.embeddings.word_embeddings.weight": "model.embeddings.lifts.FIELD.table",
    "bert.embeddings.position_embeddings.weight": "model.embeddings.positions.WORD",
    f"{TYPES}[0]": "model.embeddings.types.FIELD",
    "bert.embeddings.LayerNorm.*": "model.embeddings.norm.*",
    f"{LAYER}.attention.self.query.*": f"{BLOCK}.attention.q.*",
    f"{LAYER}.attention.self.key.*": f"{BLOCK}.attention.k.*",
    f"{LAYER}.attention.self.value.*": f"{BLOCK}.attention.v.*",
    f"{LAYER}.attention.output.dense.*": f"{BLOCK}.attention.o.*",
    f"{LAYER}.attention.output.LayerNorm.*": f"{BLOCK}.attention_residual.norm.*",
    f"{LAYER}.intermediate.dense.*": f"{BLOCK}.mlp.up.*",
    f"{LAYER}.output.dense.*": f"{BLOCK}.mlp.down.*",
    f"{LAYER}.output.LayerNorm.*": f"{BLOCK}.mlp_residual.norm.*",
    "cls.predictions.transform.dense.*": "head.dense.*",
    "cls.predictions.transform.LayerNorm.*": "head.norm.*",
    "cls.predictions.bias": "head.bias",
    "bert.pooler.dense.*": "pool.dense.*",
    "classifier.*": f"{HEAD}*",
}
PREFIX = "bert."
POOLING = {"read": "first", "pool_dense": True, "pool_norm": False, "n_registers": 0}
"""What its classifiers read."""
OLD = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
"""How the first models' files call the parts of a norm."""


def _design(settings: Settings, architecture: str) -> Design:
    settings.require(
        is_decoder=False, add_cross_attention=False, position_embedding_type="absolute", tie_word_embeddings=True
    )
    activation, dropout = settings.activation("hidden_act", "gelu"), settings.get("hidden_dropout_prob", 0.1, float)
    head_dropout = settings.get("classifier_dropout", None, (int, float, type(None)))
    return Design(
        TransformerConfig(
            settings.get("hidden_size", 768),
            depth=settings.get("num_hidden_layers", 12),
            n_heads=settings.get("num_attention_heads", 12),
            d_ff=settings.get("intermediate_size", 3072),
            activation=activation,
            norm_position="post",
            norm_eps=settings.get("layer_norm_eps", 1e-12),
            dropout=dropout,
            attention_dropout=settings.get("attention_probs_dropout_prob", 0.1, float),
            init_std=settings.get("initializer_range", 0.02, float),
        ),
        EmbeddingConfig(norm=True, dropout=dropout),
        max_len=settings.get("max_position_embeddings", 512),
        vocab_size=settings.get("vocab_size", 30522),
        output=HeadConfig(bias=True, transform=activation) if architecture == "BertForMaskedLM" else None,
        head_dropout=dropout if head_dropout is None else head_dropout,
        options=POOLING if architecture == "BertForSequenceClassification" else {},
    )


def _settings(design: Design) -> dict[str, Any]:
    config = design.transformer
    return {
        "hidden_size": config.d_model,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.n_heads,
        "intermediate_size": config.inner_width,
        "max_position_embeddings": design.max_len,
        "vocab_size": design.vocab_size,
        "type_vocab_size": 1,
        "hidden_act": called(config.activation),
        "layer_norm_eps": config.norm_eps,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "classifier_dropout": design.head_dropout,
        "initializer_range": config.init_std,
    }


def _apart(state: Mapping[str, Tensor], settings: Settings) -> dict[str, Tensor]:
    # Alone, without a head, the model's names have nothing before them.
    pieces, is_bare = {}, any(name.startswith(("embeddings.", "encoder.")) for name in state)
    for full_name, tensor in state.items():
        name = PREFIX + full_name if is_bare else full_name
        for old, new in OLD.items():
            name = re.sub(rf"{re.escape(old)}$", new, name)
        if name == TYPES:
            pieces[f"{TYPES}[0]"] = tensor[0]
            if len(tensor) > 1:
                pieces[f"{TYPES}[1:]"] = tensor[1:]
        elif name == "cls.predictions.decoder.bias":
            pieces.setdefault("cls.predictions.bias", tensor)
        elif name not in ("cls.predictions.decoder.weight", "bert.embeddings.position_ids"):
            pieces[name] = tensor
    return pieces


def _together(pieces: dict[str, Tensor]) -> dict[str, Tensor]:
    kind = pieces.pop("type", None)
    kind = torch.zeros_like(pieces["bert.embeddings.word_embeddings.weight"][0]) if kind is None else kind
    return pieces | {TYPES: kind[None]}


BERT = Family(
    "bert",
    {"BertForMaskedLM": "masked", "BertForSequenceClassification": "classify"},
    _design,
    _settings,
    NAMES,
    "bert.encoder.layer.",
    _apart,
    _together,
    bare={"BertModel": "bare"},
)

PLACES = "bert.embeddings.position_embeddings.weight"


def _roberta_design(settings: Settings, architecture: str) -> Design:
    n_places = settings.get("max_position_embeddings", 512) - _n_unused(settings)
    design = _design(settings, architecture)
    return replace(design, max_len=n_places, vocab_size=settings.get("vocab_size", 50265))


def _n_unused(settings: Settings) -> int:
    """Rows of its table before the place of the first token: places are counted behind the id of the padding."""
    return settings.get("pad_token_id", 1) + 1


def _roberta_apart(state: Mapping[str, Tensor], settings: Settings) -> dict[str, Tensor]:
    pieces = _apart({re.sub("^roberta[.]", PREFIX, name): tensor for name, tensor in state.items()}, settings)
    return {name: tensor[_n_unused(settings) :] if name == PLACES else tensor for name, tensor in pieces.items()}


ROBERTA = Family(
    "roberta",
    {},
    _roberta_design,
    None,
    NAMES,
    "bert.encoder.layer.",
    _roberta_apart,
    None,
    bare={"RobertaModel": "bare"},
)
XLM_ROBERTA = replace(ROBERTA, model_type="xlm-roberta", bare={"XLMRobertaModel": "bare"})
"""The same of many languages."""
