"""Rotary position embedding (Su et al. 2021): angles of the named axes, and the rotation of queries and keys."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from anyformer.batch import Batch
from anyformer.model.attention.places import coordinates
from anyformer.model.config import RotaryConfig
from anyformer.model.layers import Frequencies

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines by which queries or keys are turned, each (b, 1, n, d_head / 2)."""


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn pairs of features by their angles (RoFormer, Su et al. 2021, 3.2.2).

    x: (b, h, n, k), pairs (i, i + k / 2). rotation: cosines and sines, each (b, 1, n, k / 2).
    """
    cos, sin = rotation
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)


class Rotary(Frequencies):
    """The angles by which attention turns queries and keys, from the positions of a batch."""

    def __init__(self, config: RotaryConfig, d_head: int) -> None:
        pairs = d_head // (2 * len(config.axes))
        super().__init__(config.base ** (-torch.arange(pairs) / pairs))
        self.axes = config.axes

    def forward(self, batch: Batch, axes: Mapping[str, tuple[str, ...]]) -> tuple[Tensor, Tensor]:
        """axes: those of each field. Returns cosines and sines, each (b, 1, n, d_head / 2); the first axis has the
        first pairs."""
        coordinate = coordinates(batch, axes, self.axes).to(self.frequency.dtype)
        angle = (coordinate[..., None] * self.frequency).flatten(2)[:, None]
        return angle.cos(), angle.sin()
