"""Mixup and cutmix: one training sample is blended with another, pixels by the tokenizer and classes by the task."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from anyformer.choices import Values
from anyformer.errors import InputError


@dataclass(frozen=True)
class Mixing(Values):
    """Each picture or spectrogram is blended with another of the training set, drawn for it, and so is its class."""

    mixup: float = 0.0
    """Pixels (of a spectrogram its levels) are averaged, with a share from Beta(mixup, mixup) (Zhang et al. 2018); 0
    leaves it out."""
    cutmix: float = 0.0
    """A rectangle of the other takes the place of its own, of an area from Beta(cutmix, cutmix) (Yun et al. 2019); 0
    leaves it out. With both, either comes half of the time."""
    chance: float = 1.0
    """How many of the pictures are blended at all."""

    def __post_init__(self) -> None:
        if self.mixup < 0 or self.cutmix < 0 or not self.mixup + self.cutmix:
            raise InputError(
                f"mix needs mixup or cutmix above 0 and neither below, got {self.mixup} and {self.cutmix}; "
                "leave mix out to blend nothing"
            )
        if not 0 < self.chance <= 1:
            raise InputError(f"mix.chance must be above 0 and at most 1, got {self.chance}")

    def partner(self, n: int, random: np.random.Generator) -> int | None:
        """Which of n samples to blend with, if any."""
        return int(random.integers(n)) if random.random() < self.chance else None

    def blend(self, pixels: Tensor, other: Tensor, random: np.random.Generator) -> tuple[Tensor, float]:
        """Two pictures as one, each (c, rows, columns), and the share of it that is the first's."""
        by_box = random.random() < 0.5 if self.mixup and self.cutmix else bool(self.cutmix)
        share = float(random.beta(*[self.cutmix if by_box else self.mixup] * 2))
        if not by_box:
            return other.lerp(pixels, share), share
        rows, columns = pixels.shape[1:]
        height, width = (side * math.sqrt(1 - share) for side in (rows, columns))
        row, column = random.uniform(0, rows), random.uniform(0, columns)
        top, bottom = (min(max(round(row + end * height / 2), 0), rows) for end in (-1, 1))
        left, right = (min(max(round(column + end * width / 2), 0), columns) for end in (-1, 1))
        pixels = pixels.clone()
        pixels[:, top:bottom, left:right] = other[:, top:bottom, left:right]
        return pixels, 1 - (bottom - top) * (right - left) / (rows * columns)
