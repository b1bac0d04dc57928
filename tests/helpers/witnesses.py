"""What several tests share: toy tokenizers, parameters redrawn so that nothing hides, and a measure of disagreement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from anyformer.batch import Batch
from anyformer.data.source import Source
from anyformer.model.lifts import Lookup, Projection
from anyformer.tokens import Sample, Tokenizer, TokenSet


@dataclass(frozen=True)
class Ids(Tokenizer):
    """A record is a list of ids; the first axis counts them, another stands at 0."""

    vocab_size: int = 11
    axes: tuple[str, ...] = ()  # type: ignore[misc]
    max_len: int = 13
    n_relations: int = 0  # type: ignore[misc]

    @property
    def sizes(self) -> dict[str, int]:
        return dict.fromkeys(self.axes, self.max_len)

    def encode(self, record: Sequence[int], random: object = None) -> TokenSet:
        place = torch.zeros(len(record), len(self.axes), dtype=torch.int64)
        place[:, :1] = torch.arange(len(record))[:, None]
        relation = None
        if self.n_relations:
            # Each token is related to itself, to its two neighbours, and to nobody further off.
            away = torch.arange(len(record)) - torch.arange(len(record))[:, None]
            relation = torch.where(away.abs() <= 1, (away + 1) % self.n_relations, -1)
        return TokenSet(torch.tensor(record, dtype=torch.int64), place, relation=relation)

    def empty(self) -> TokenSet:
        return TokenSet(torch.zeros(0, dtype=torch.int64), torch.zeros(0, len(self.axes), dtype=torch.int64))

    def lift(self, d_model: int) -> nn.Module:
        return Lookup(self.vocab_size, d_model)


@dataclass(frozen=True)
class Vectors(Tokenizer):
    """A record is a tensor (*grid, d_content), a vector at each place of a grid; without axes a set, (n, d_content)."""

    d_content: int = 3
    axes: tuple[str, ...] = ()  # type: ignore[misc]
    grid: tuple[int, ...] = ()
    bias: bool = True

    @property
    def sizes(self) -> dict[str, int]:
        return dict(zip(self.axes, self.grid, strict=True)) if self.grid else {}

    def encode(self, record: Tensor, random: object = None) -> TokenSet:
        shape = record.shape[:-1]
        content = record.reshape(-1, self.d_content)
        if not self.axes:
            return TokenSet(content)
        places = torch.cartesian_prod(*map(torch.arange, shape)).reshape(len(content), -1)
        return TokenSet(content, places, extent=tuple(shape))

    def empty(self) -> TokenSet:
        position = torch.zeros(0, len(self.axes), dtype=torch.int64)
        return TokenSet(torch.zeros(0, self.d_content), position, extent=(0,) * max(len(self.axes), 1))

    def lift(self, d_model: int) -> nn.Module:
        return Projection(self.d_content, d_model, self.bias)


@dataclass(frozen=True)
class Numbers(Source):
    """Records {"x": i, "kind": "even" | "odd"}."""

    n: int

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"x": i, "kind": "odd" if i % 2 else "even"}

    def name(self, i: int) -> str:
        return f"numbers row {i}"


def draw_ids(n: int, vocab_size: int = 11) -> list[int]:
    """n random ids."""
    return torch.randint(vocab_size, (n,)).tolist()


def count(tokens: TokenSet, start: int = 1) -> TokenSet:
    """The same tokens one after another: orders start, start + 1, ..."""
    return tokens.at(torch.arange(start, start + len(tokens)))


def redraw(module: nn.Module, spread: float = 1.5) -> None:
    """Draw every parameter and statistic anew, so that no part is so small that its absence would pass unseen.

    Norm weights and layer scales U(0.5, 1.5), biases N(0, 0.5), tables N(0, 1), matrices N(0, spread^2 / inputs):
    hidden values are of order 1 and attention is far from uniform. Fixed tables and frequencies are formulas, and stay.
    """
    for owner in module.modules():
        is_norm, kind = "Norm" in type(owner).__name__, type(owner).__name__
        for name, parameter in owner.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            with torch.no_grad():
                is_gain = (is_norm and name == "weight") or name in ("gamma", "scale")
                if is_gain:
                    parameter.uniform_(0.5, 1.5)
                elif name.endswith("bias") and parameter.ndim == 1:
                    parameter.normal_(0, 0.5)
                elif kind in (
                    "Linear",
                    "NonDynamicallyQuantizableLinear",
                    "MultiheadAttention",
                    "Conv2d",
                    "Conv1d",
                    "Conv1D",
                ):
                    n_inputs = parameter.shape[0] if kind == "Conv1D" else math.prod(parameter.shape[1:])
                    parameter.normal_(0, spread / math.sqrt(n_inputs))
                else:
                    parameter.normal_(0, 1)
        for name, buffer in owner.named_buffers(recurse=False):
            if name == "running_mean":
                buffer.normal_(0, 0.5)
            elif name == "running_var":
                buffer.uniform_(0.5, 1.5)


def error(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, in standard deviations of what it should be."""
    assert ours.shape == theirs.shape, f"{tuple(ours.shape)} is not {tuple(theirs.shape)}"
    return ((ours - theirs).abs().max() / theirs.std()).item()


def by_sample(batch: Batch, hidden: Tensor, samples: Sequence[Sample]) -> list[dict[str, Tensor]]:
    """The hidden vectors of each sample's fields, (n, d), in the sequence of its token sets."""
    parts: list[dict[str, Tensor]] = [{} for _ in samples]
    for name, vectors in batch.by_field(hidden).items():
        owners = batch.fields[name].sample
        for i, sample in enumerate(samples):
            if name in sample:
                parts[i][name] = vectors[owners == i]
    return parts
