"""How one vector of a sample is read: of its class token, its first, their mean, or a mean by learned attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from anyformer.batch import Batch
from anyformer.data.chopper import Chopper
from anyformer.errors import InputError
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.model.learned_tokens import LearnedTokens
from anyformer.tasks.targets.target import linear
from anyformer.tokens import Sample

OWN_FIELD = "class"
"""The field that a task adds to every sample: the class token, if one is read, and the registers after it."""
Read = Literal["class", "first", "mean", "attention"]


def own_tokens(n: int, placed: bool) -> dict[str, LearnedTokens]:
    """The field of n class and register tokens that every sample gets, if there are any."""
    return {OWN_FIELD: LearnedTokens(n, placed)} if n else {}


@dataclass(frozen=True)
class ReadChopper(Chopper):
    """Records to samples of which one vector is read."""

    own: Mapping[str, LearnedTokens]
    """The field of class and register tokens, added to every sample."""
    first: str | None
    """The field whose first token is read, which every record must have."""

    def conditions(
        self, record: Mapping[str, Any], random: np.random.Generator | None = None, empty_too: bool = False
    ) -> Sample:
        sample = super().conditions(record, random, empty_too)
        if self.first is not None and not len(sample.get(self.first, ())):
            raise InputError(
                f"field {self.first!r} must hold the token that is read (read: first), and the record has none"
            )
        return sample

    @cached_property
    def own_tokens(self) -> Sample:
        return {name: tokenizer.encode() for name, tokenizer in self.own.items()}

    def count(self, record: Mapping[str, Any]) -> int:
        return super().count(record) + sum(tokenizer.n for tokenizer in self.own.values())


def first_places(batch: Batch, name: str) -> Tensor:
    """Where the first token of a field stands in the flattened (rows * length) layout, (samples,) int64.

    Every sample must have one.
    """
    tokens = batch.fields[name]
    samples = torch.arange(batch.n_samples, device=tokens.sample.device)
    return tokens.index[torch.searchsorted(tokens.sample, samples)]


class Pool(nn.Module):
    """One vector a sample out of its tokens: that of one token, their mean, or a mean by learned attention.

    Attention is a softmax over one score a token (SeqPool, Hassani et al. 2021, 3.2).
    """

    def __init__(
        self, read: str, names: Sequence[str], transformer: TransformerConfig, norm: bool = False, dense: bool = False
    ) -> None:
        """norm, dense: whether the vector is normed, and goes through a square matrix and a tanh."""
        super().__init__()
        d_model = transformer.d_model
        self.names = list(names)
        self.one = {"class": OWN_FIELD, "first": self.names[0]}.get(read)
        """The field whose first token is read alone, if there is one."""
        self.score = nn.Linear(d_model, 1) if read == "attention" else None
        self.norm = nn.LayerNorm(d_model, eps=transformer.norm_eps) if norm else None
        self.dense = linear(d_model, d_model, transformer) if dense else None

    def forward(self, hidden: Tensor, batch: Batch) -> Tensor:
        """hidden: (rows, length, d). Returns (samples, d)."""
        hidden = hidden.flatten(0, 1)
        return self._finish(self._mean(hidden, batch) if self.one is None else hidden[first_places(batch, self.one)])

    def _finish(self, pooled: Tensor) -> Tensor:
        pooled = pooled if self.norm is None else self.norm(pooled)
        return pooled if self.dense is None else self.dense(pooled).tanh()

    def _mean(self, hidden: Tensor, batch: Batch) -> Tensor:
        """hidden: (rows * length, d). Returns (samples, d)."""
        parts = [batch.fields[name] for name in self.names]
        sample = torch.cat([tokens.sample for tokens in parts])
        index = torch.cat([tokens.index for tokens in parts])
        vectors = hidden[index]
        # A token that was taken out of the rows stands where padding is, and does not count.
        weight = (batch.layout.segment.flatten()[index] > 0).to(vectors.dtype)[:, None]
        if self.score is not None:
            # Scores are bounded by their greatest in the batch's sample, as any softmax is.
            score = self.score(vectors)
            greatest = score.new_full((batch.n_samples,), -torch.inf)
            greatest = greatest.scatter_reduce(0, sample, score.detach().squeeze(1), "amax")
            weight = weight * (score - greatest[sample, None]).exp()
        total = weight.new_zeros(batch.n_samples, 1).index_add(0, sample, weight)
        pooled = vectors.new_zeros(batch.n_samples, vectors.shape[1]).index_add(0, sample, vectors * weight)
        # At least 1 where there is a token at all.
        return pooled / total.clamp(min=1)

    def read(self, model: Anyformer, batch: Batch) -> Tensor:
        """As `forward`, of a batch that nothing else is wanted of; hidden vectors that are not read are left out."""
        if self.one is None:
            return self(model(batch), batch)
        # One place of each sample is read, so the last block works out those alone; in a row of fewer samples than
        # another its first place as often as it takes.
        places = first_places(batch, self.one)
        row, place = places // batch.shape[1], places % batch.shape[1]
        number = batch.layout.segment.flatten()[places] - 1
        read = place.new_zeros(batch.shape[0], batch.n_per_row).index_put((row, number), place)
        return self._finish(model(batch, read=read)[row, number])
