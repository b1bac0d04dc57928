"""The small layers of a block: norm, dropout, activations and the MLP; and the choice of places in rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyformer.model.config import NormName, TransformerConfig
from anyformer.model.lora import project


def make_norm(kind: NormName, width: int, config: TransformerConfig) -> nn.Module:
    """A norm over the last axis, of `width`, with the config's eps and gains."""
    make = nn.LayerNorm if kind == "layernorm" else nn.RMSNorm
    return make(width, eps=config.norm_eps, elementwise_affine=config.norm_affine)


class Frequencies(nn.Module):
    """What turns positions into angles: `frequency`, in float32 at least, whatever the weights are cast to. In bfloat16
    no two positions above 256 that are neighbours would differ."""

    def __init__(self, frequency: Tensor) -> None:
        super().__init__()
        self.register_buffer("frequency", frequency, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = self.frequency
        super()._apply(fn, recurse)
        if self.frequency.itemsize < before.itemsize and self.frequency.itemsize < torch.float32.itemsize:
            self.frequency = before.to(self.frequency.device)
        return self


def dropout(x: Tensor, p: float) -> Tensor:
    """x with numbers set to 0, each with probability p (at least 0, below 1), and the rest divided by 1 - p.

    On a CPU a mask of 16 random bits a number takes half the time of torch's, and p is rounded to 1 / 65,536.
    """
    if x.device.type != "cpu":
        return F.dropout(x, p)
    n_dropped = min(round(p * 2**16), 2**16 - 1)
    # Four numbers share a draw of 64 bits, from the lowest int64 on.
    drawn = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    kept = drawn[: x.numel()].view(x.shape) >= n_dropped - 2**15
    return x * kept.to(x.dtype).mul_(2**16 / (2**16 - n_dropped))


ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
    "silu": F.silu,
}


class MLP(nn.Module):
    """Two matrices with an activation between, gated or not."""

    def __init__(self, config: TransformerConfig, width: int | None = None) -> None:
        """width: the inner one; the config's when left out."""
        super().__init__()
        width = config.inner_width if width is None else width
        self.activation = ACTIVATIONS[config.activation]
        self.up = nn.Linear(config.d_model, width, bias=config.mlp_bias)
        self.gate = nn.Linear(config.d_model, width, bias=config.mlp_bias) if config.gated else None
        self.down = nn.Linear(width, config.d_model, bias=config.mlp_bias)

    def forward(self, x: Tensor, adapts: Tensor | None = None) -> Tensor:
        """x: (..., d). adapts: (...) boolean, where adapters act; everywhere when left out."""
        if self.gate is None:
            return project(self.down, self.activation(project(self.up, x, adapts)), adapts)
        gated = self.activation(project(self.gate, x, adapts)) * project(self.up, x, adapts)
        return project(self.down, gated, adapts)


def take(x: Tensor | None, place: Tensor, dim: int) -> Tensor | None:
    """The vectors at some places of every row: x (b or 1, ..., n, d) along `dim`, place (b, r). None stays None."""
    if x is None:
        return None
    index = place.view(len(place), *[1] * (dim - 1), place.shape[1], 1)
    x = x.expand(len(place), *x.shape[1:])
    return x.gather(dim, index.expand(-1, *x.shape[1:dim], -1, x.shape[-1]))
