"""Tokenizers whose records are token sets, and samples of them drawn at random."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import nn

from anyformer.tokens import Sample, Tokenizer, TokenSet


@dataclass(frozen=True)
class Toy(Tokenizer):
    """A record is its token set."""

    n_axes: int = 0
    feature: tuple[int, ...] = ()
    kinds: int = 0

    @property
    def n_relations(self) -> int:  # type: ignore[override]
        return self.kinds

    def encode(self, record: TokenSet, random: object = None) -> TokenSet:
        return record

    def empty(self) -> TokenSet:
        dtype = torch.float32 if self.feature else torch.int64
        return TokenSet(torch.zeros(0, *self.feature, dtype=dtype), torch.zeros(0, self.n_axes, dtype=torch.int64))

    def lift(self, d_model: int) -> nn.Module:
        raise NotImplementedError


TOYS = {"bag": Toy(), "word": Toy(1), "patch": Toy(2, (3,))}
"""Three fields: a set without positions, one axis, and two axes with float content."""


def words(*ids: int, order: int | list[int] = 0, relation: list[list[int]] | None = None) -> TokenSet:
    """Tokens of one axis, placed 0, 1, 2, ..."""
    return TokenSet(
        torch.tensor(ids, dtype=torch.int64),
        torch.arange(len(ids))[:, None],
        None if relation is None else torch.zeros(len(ids), dtype=torch.int64),
        relation=None if relation is None else torch.tensor(relation),
    ).at(order if isinstance(order, int) else torch.tensor(order, dtype=torch.int64))


@st.composite
def token_sets(draw: st.DrawFn, name: str) -> TokenSet:
    """A set of 0 to 4 tokens, each of other content; orders and positions with ties."""
    n, axes = draw(st.integers(0, 4)), TOYS[name].n_axes
    numbers = st.integers(0, 2)
    position = draw(st.lists(st.lists(numbers, min_size=axes, max_size=axes), min_size=n, max_size=n))
    order = draw(st.lists(numbers, min_size=n, max_size=n))
    content = 10 * torch.arange(n) + draw(st.integers(0, 9))
    if TOYS[name].feature:
        content = content[:, None] + torch.tensor([0.0, 0.25, 0.5])
    return TokenSet(
        content, torch.tensor(position, dtype=torch.int64).reshape(n, axes), torch.tensor(order, dtype=torch.int64)
    )


def fields() -> st.SearchStrategy[Sample]:
    return st.fixed_dictionaries({}, optional={name: token_sets(name) for name in TOYS})


@st.composite
def samples_in_rows(draw: st.DrawFn) -> tuple[list[Sample], list[int]]:
    samples = draw(st.lists(fields(), min_size=1, max_size=5))
    return samples, draw(st.lists(st.integers(0, 2), min_size=len(samples), max_size=len(samples)))
