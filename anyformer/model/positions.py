"""Embeddings of positions: learned tables and sinusoids, apart or joint over the axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from anyformer.choices import Values
from anyformer.errors import InputError
from anyformer.model.layers import Frequencies
from anyformer.tokens import Tokenizer


@dataclass(frozen=True)
class PositionConfig(Values):
    """A position embedding for every field that has these axes. Fields with an axis in common share it."""

    axes: tuple[str, ...]
    """Names of the axes."""
    scheme: Literal["learned", "joint", "sinusoidal"] = "learned"
    """learned: a table for each axis, summed. joint: one table over the grid of all axes (ViT); it resizes to another
    grid.
    sinusoidal: sines and cosines, d_model divided evenly among the axes."""
    sizes: tuple[int, ...] | None = None
    """Places on each axis, for the tables; what the tokenizers say when left out. Sines on one axis become a table by
    them, which is not learned; weights from elsewhere may bring another."""
    sines: Literal["interleaved", "halves", "whisper"] = "interleaved"
    """interleaved: sine and cosine in turn (Vaswani et al. 2017, 3.5). halves: sines, then cosines (Marian). whisper:
    halves whose slowest frequency is 1 / base exactly."""
    base: float = 10_000.0
    """Of the sinusoidal frequencies."""

    def __post_init__(self) -> None:
        if not self.axes:
            raise InputError("positions.axes must name at least one axis, got none")
        if self.sizes is not None and len(self.sizes) != len(self.axes):
            axes = ", ".join(self.axes)
            raise InputError(f"positions.sizes must have a number for each of the axes {axes}, got {list(self.sizes)}")
        if self.sizes is not None and min(self.sizes) < 1:
            raise InputError(f"positions.sizes must be at least 1, got {list(self.sizes)}")
        if self.base <= 0:
            raise InputError(f"positions.base must be above 0, got {self.base}")
        if self.scheme == "sinusoidal" and self.sizes is not None and len(self.axes) > 1:
            raise InputError(
                "positions.sizes makes a table of the sines on one axis; leave it out where there are several"
            )


class LearnedPositions(nn.Module):
    """A table of vectors for each axis; a token gets the sum of its rows."""

    def __init__(self, sizes: Sequence[int], d_model: int) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.tables = nn.ParameterList(torch.empty(size, d_model).normal_(std=0.02) for size in sizes)

    def forward(self, position: Tensor) -> Tensor:
        """position: (total, axes) int64. Returns (total, d)."""
        return sum(F.embedding(position[:, i], table) for i, table in enumerate(self.tables))


class JointPositions(nn.Module):
    """One table over the grid of all axes."""

    def __init__(self, sizes: Sequence[int], d_model: int) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.table = nn.Parameter(torch.empty(math.prod(sizes), d_model).normal_(std=0.02))

    def forward(self, position: Tensor) -> Tensor:
        """position: (total, axes) int64. Returns (total, d)."""
        place = position[:, 0]
        for i, size in enumerate(self.sizes[1:], start=1):
            place = place * size + position[:, i]
        return F.embedding(place, self.table)

    def resize(self, sizes: tuple[int, int]) -> None:
        """Stretch the table of two axes to a grid of other sizes, in place; an optimiser made before does not know
        it."""
        self.table = nn.Parameter(resize_grid(self.table.detach(), self.sizes, sizes))
        self.sizes = sizes


def resize_grid(table: Tensor, sizes: tuple[int, int], new_sizes: tuple[int, int]) -> Tensor:
    """A joint table for another grid, by antialiased bicubic interpolation (ViT, Dosovitskiy et al. 2021, 3.2).

    table: (rows * columns, d). Returns (new rows * new columns, d).
    """
    if sizes == new_sizes:
        return table
    grid = rearrange(table, "(row column) d -> 1 d row column", row=sizes[0])
    grid = F.interpolate(grid.float(), size=new_sizes, mode="bicubic", antialias=True).to(table.dtype)
    return rearrange(grid, "1 d row column -> (row column) d")


class SinusoidalPositions(Frequencies):
    """Sines and cosines of the position at falling frequencies; nothing is learned, and positions may be continuous."""

    def __init__(self, config: PositionConfig, d_model: int) -> None:
        if d_model % (2 * len(config.axes)):
            raise InputError(
                f"sinusoidal positions on {len(config.axes)} axes need a d_model that is a multiple of "
                f"{2 * len(config.axes)}, got {d_model}"
            )
        pairs = d_model // (2 * len(config.axes))
        steps = max(pairs - 1, 1) if config.sines == "whisper" else pairs
        super().__init__(config.base ** (-torch.arange(pairs) / steps))
        self.sizes = ()  # any position has its sines
        self.interleaved = config.sines == "interleaved"

    def forward(self, position: Tensor) -> Tensor:
        """position: (total, axes). Returns (total, d): the features of the first axis, then those of the next."""
        angle = position[:, :, None] * self.frequency
        if self.interleaved:
            return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)
        return torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(1)


class SineTable(nn.Module):
    """Sines on one axis as a table, which is not learned. Others may be loaded in its place: Whisper's are rounded."""

    def __init__(self, config: PositionConfig, d_model: int) -> None:
        super().__init__()
        self.sizes = tuple(config.sizes)
        places = torch.arange(self.sizes[0])[:, None]
        self.register_buffer("table", SinusoidalPositions(config, d_model)(places))

    def forward(self, position: Tensor) -> Tensor:
        """position: (total, 1) int64. Returns (total, d)."""
        return F.embedding(position[:, 0], self.table)


def make_positions(config: PositionConfig, tokenizers: Mapping[str, Tokenizer], d_model: int) -> nn.Module:
    """The module of a position config; sizes that it leaves out are those of the tokenizers."""
    if config.scheme == "sinusoidal":
        return (SinusoidalPositions if config.sizes is None else SineTable)(config, d_model)
    sizes = config.sizes
    if sizes is None:
        known = [
            [tokenizer.sizes[axis] for tokenizer in tokenizers.values() if axis in tokenizer.sizes]
            for axis in config.axes
        ]
        for axis, found in zip(config.axes, known, strict=True):
            if not found:
                raise InputError(
                    f"learned positions on the axis {axis!r} need its size, which no tokenizer tells; "
                    f"give transformer.rotary: {{axes: [{', '.join(config.axes)}]}}, or embedding.positions with sizes "
                    "or scheme: sinusoidal"
                )
        sizes = tuple(max(found) for found in known)
    return (LearnedPositions if config.scheme == "learned" else JointPositions)(sizes, d_model)
