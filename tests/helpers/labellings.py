"""The ids that frames can stand for, from every path there is."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby, product

import torch
from torch import Tensor

Labelling = tuple[int, ...]


def draw_log_probs(*shape: int, spread: float = 1.5, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(shape, generator=generator)).log_softmax(-1)


def collapse(path: Sequence[int], blank: int) -> Labelling:
    return tuple(token for token, _ in groupby(path) if token != blank)


def every_labelling(log_probs: Tensor) -> dict[Labelling, float]:
    """The probability of all ids that frames (t, v) can stand for, from all their paths."""
    t, v = log_probs.shape
    p = log_probs.double().exp().tolist()
    found: dict[Labelling, float] = defaultdict(float)
    for path in product(range(v), repeat=t):
        found[collapse(path, v - 1)] += math.prod(p[frame][token] for frame, token in enumerate(path))
    return found
