"""Augmentation of series: cut, scaled, moved, and with noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from anyformer.choices import Values
from anyformer.errors import InputError


@dataclass(frozen=True)
class SeriesAugmentation(Values):
    """What is drawn for a series whenever it comes up in training. Nothing by default."""

    jitter: float = 0.0
    """Normal noise is added to every value, of so many standard deviations of its channel (Um et al. 2017)."""
    scale: float = 0.0
    """Each channel is multiplied by a number from N(1, scale)."""
    shift: float = 0.0
    """Each channel is moved by a number from N(0, shift), in its standard deviations."""
    crop: float = 1.0
    """A stretch of at least this share of the steps is kept, of a length and place that are drawn."""

    def __post_init__(self) -> None:
        for name in ("jitter", "scale", "shift"):
            if getattr(self, name) < 0:
                raise InputError(f"augment.{name} must be at least 0, got {getattr(self, name)}")
        if not 0 < self.crop <= 1:
            raise InputError(f"augment.crop must be above 0 and at most 1, got {self.crop}")

    def cut(self, n: int, random: np.random.Generator) -> slice:
        """Which of n steps are kept."""
        if self.crop == 1:
            return slice(0, n)
        length = int(random.integers(max(math.ceil(self.crop * n), 1), n + 1))
        start = int(random.integers(n - length + 1))
        return slice(start, start + length)

    def change(self, values: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Standardised values, (channels, steps), to the same."""
        channels = len(values)
        if self.scale:
            values = values * random.normal(1, self.scale, (channels, 1))
        if self.shift:
            values = values + random.normal(0, self.shift, (channels, 1))
        if self.jitter:
            values = values + random.normal(0, self.jitter, values.shape)
        return values
