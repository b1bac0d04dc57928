"""Heads that predict ids: the output layer and its cross-entropy, which never holds all logits at once in training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyformer.choices import Values
from anyformer.errors import InputError
from anyformer.model.config import ActivationName, TransformerConfig
from anyformer.model.layers import ACTIVATIONS, make_norm
from anyformer.model.lifts import Lookup
from anyformer.model.lora import full_weight
from anyformer.model.losses.cross_entropy import linear_cross_entropy


@dataclass(frozen=True)
class HeadConfig(Values):
    """The output layer over a vocabulary."""

    tied: bool = True
    """Whether its matrix is the table that lifts the ids (Press and Wolf 2017)."""
    bias: bool = False
    """Whether every id has a bias."""
    scaled: bool = False
    """Whether hidden vectors are divided by sqrt(d_model) (T5 v1.0, with a tied table)."""
    transform: ActivationName | None = None
    """A square matrix, this activation and a LayerNorm before the output (BERT); none when left out."""
    zero: bool = False
    """Whether the matrix starts at 0, where it is not tied: every id is as likely as any other at the start."""

    def __post_init__(self) -> None:
        if self.tied and self.zero:
            raise InputError(
                "output.zero: a tied matrix lifts the ids too and cannot start at 0; set output.tied: false"
            )


class Head(nn.Module):
    """Predicts ids from hidden vectors."""

    def __init__(self, lookup: Lookup, transformer: TransformerConfig, config: HeadConfig = HeadConfig()) -> None:
        """lookup: what lifts the ids that are predicted, whose table is the matrix of a tied head."""
        super().__init__()
        self.config = config
        n_ids, d_model = lookup.table.shape
        # In a tuple, so that the table has one name and one owner among the parameters.
        self._lookup = (lookup,)
        self.dense = self.norm = None
        if config.transform is not None:
            self.dense = nn.Linear(d_model, d_model)
            nn.init.trunc_normal_(self.dense.weight, std=transformer.init_std)
            nn.init.zeros_(self.dense.bias)
            self.norm = make_norm("layernorm", d_model, transformer)
        self.output = None
        if not config.tied:
            self.output = nn.Linear(d_model, n_ids, bias=False)
            nn.init.trunc_normal_(self.output.weight, std=transformer.init_std)
            if config.zero:
                nn.init.zeros_(self.output.weight)
        self.bias = nn.Parameter(torch.zeros(n_ids)) if config.bias else None

    @property
    def lookup(self) -> Lookup:
        """What lifts the ids that are predicted."""
        return self._lookup[0]

    @property
    def weight(self) -> Tensor:
        """(v, d), the matrix of the output layer."""
        return self._lookup[0].table if self.output is None else full_weight(self.output)

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden: (..., d). Returns the logits of all ids, (..., v)."""
        return F.linear(self._prepare(hidden), self.weight, self.bias)

    def loss(
        self, hidden: Tensor, target: Tensor, label_smoothing: float = 0.0, weights: Tensor | None = None
    ) -> Tensor:
        """The sum of the cross-entropies of ids, in nats, (); see `linear_cross_entropy`.

        hidden: (n, d). target: (n,) int64. weights: (n,) or None.
        """
        hidden = self._prepare(hidden)
        return linear_cross_entropy(
            hidden, self.weight, self.bias, target, label_smoothing=label_smoothing, weights=weights
        )

    def _prepare(self, hidden: Tensor) -> Tensor:
        if self.dense is not None:
            hidden = self.norm(ACTIVATIONS[self.config.transform](self.dense(hidden)))
        return hidden / math.sqrt(hidden.shape[-1]) if self.config.scaled else hidden
