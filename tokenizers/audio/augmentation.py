"""Augmentation of sound: part, speed, loudness and noise of the samples, and masks over the spectrogram.

Everything is drawn from the generator that a sample is given, a function of (seed, epoch, index).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from anyformer.choices import Values
from anyformer.errors import InputError
from anyformer.tokenizers.audio.waveform import SILENCE, resample


@dataclass(frozen=True)
class SpecAugment(Values):
    """Parts of a spectrogram are hidden, and its time is bent (Park et al. 2019). What is hidden becomes its mean."""

    n_frequency_masks: int = 2
    """How many runs of bands are hidden."""
    frequency_mask: int = 27
    """Bands of each at the most: from 0 to so many are drawn."""
    n_time_masks: int = 2
    """How many runs of frames are hidden."""
    time_mask: int = 100
    """Frames of each at the most."""
    time_share: float = 1.0
    """And no more than this share of the clip each."""
    warp: int = 0
    """A frame is drawn, and moved by up to so many frames; those about it are stretched and squeezed."""

    def __post_init__(self) -> None:
        for name in ("n_frequency_masks", "frequency_mask", "n_time_masks", "time_mask", "warp"):
            if getattr(self, name) < 0:
                raise InputError(f"augment.masks.{name} must be at least 0, got {getattr(self, name)}")
        if not 0 <= self.time_share <= 1:
            raise InputError(f"augment.masks.time_share must be between 0 and 1, got {self.time_share}")

    def hide(self, mel: Tensor, random: np.random.Generator) -> Tensor:
        """(frames, n_mels) to the same."""
        n, f = mel.shape
        mel = self._bend(mel, random) if self.warp else mel.clone()
        mean = mel.mean()
        for _ in range(self.n_frequency_masks):
            start, width = _run(f, self.frequency_mask, random)
            mel[:, start : start + width] = mean
        for _ in range(self.n_time_masks):
            start, width = _run(n, min(self.time_mask, int(self.time_share * n)), random)
            mel[start : start + width] = mean
        return mel

    def _bend(self, mel: Tensor, random: np.random.Generator) -> Tensor:
        n = len(mel)
        if n <= 2 * self.warp:
            return mel.clone()
        middle = int(random.integers(self.warp, n - self.warp))
        moved = min(max(middle + int(random.integers(-self.warp, self.warp + 1)), 1), n - 1)
        return torch.cat([_stretch(mel[:middle], moved), _stretch(mel[middle:], n - moved)])


def _stretch(mel: Tensor, n: int) -> Tensor:
    """As many frames as n, between which is interpolated; (frames, n_mels) to (n, n_mels)."""
    return F.interpolate(mel.T[None], n, mode="linear", align_corners=True)[0].T


def _run(n: int, longest: int, random: np.random.Generator) -> tuple[int, int]:
    """Where a run begins, and how long it is, within n places."""
    width = int(random.integers(min(longest, n) + 1))
    return int(random.integers(n - width + 1)), width


@dataclass(frozen=True)
class SoundAugmentation(Values):
    """What is drawn for a recording whenever it comes up in training. Nothing by default."""

    crop: float = 1.0
    """A part of at least this share of it is kept, of a length and place that are drawn."""
    speeds: tuple[float, ...] = ()
    """One of these factors makes it faster or slower, and higher or lower: (0.9, 1.0, 1.1) (Ko et al. 2015)."""
    gain: float = 0.0
    """It is made louder or softer by up to so many decibels, each way. Without effect where `level` is given."""
    noise: tuple[float, float] | None = None
    """White noise is added, so many decibels softer than its mean power: from the first to the second."""
    noise_chance: float = 1.0
    """How many of the recordings get it."""
    masks: SpecAugment | None = None
    """What is hidden of its spectrogram."""

    def __post_init__(self) -> None:
        for name in ("speeds", "noise"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if not 0 < self.crop <= 1:
            raise InputError(f"augment.crop must be above 0 and at most 1, got {self.crop}")
        if any(not 0.1 <= speed <= 10 for speed in self.speeds):
            raise InputError(f"augment.speeds must lie between 0.1 and 10, got {list(self.speeds)}")
        if self.gain < 0:
            raise InputError(f"augment.gain must be at least 0, got {self.gain}")
        if self.noise is not None and not self.noise[0] <= self.noise[1]:
            raise InputError(f"augment.noise must be two levels in decibels, low <= high, got {list(self.noise)}")
        if not 0 <= self.noise_chance <= 1:
            raise InputError(f"augment.noise_chance must be between 0 and 1, got {self.noise_chance}")

    @property
    def longest(self) -> float:
        """The factor by which a recording may become longer."""
        return max(1.0, *(1 / speed for speed in self.speeds)) if self.speeds else 1.0

    def change(self, samples: Tensor, random: np.random.Generator) -> Tensor:
        """(samples,) float32 to (about samples / speed,), or less."""
        if self.crop < 1:
            kept = int(random.integers(max(math.ceil(self.crop * len(samples)), 1), len(samples) + 1))
            start = int(random.integers(len(samples) - kept + 1))
            samples = samples[start : start + kept]
        if self.speeds:
            speed = Fraction(float(random.choice(self.speeds))).limit_denominator(1000)
            samples = resample(samples, speed.numerator, speed.denominator)
        if self.noise is not None and random.random() < self.noise_chance:
            power = samples.square().mean().item()
            softer = random.uniform(*self.noise)
            if power > SILENCE**2:
                white = torch.from_numpy(random.standard_normal(len(samples), dtype=np.float32))
                samples = samples + white * math.sqrt(power / 10 ** (softer / 10))
        if self.gain:
            samples = samples * 10 ** (random.uniform(-self.gain, self.gain) / 20)
        return samples

    def hide(self, mel: Tensor, random: np.random.Generator) -> Tensor:
        """(frames, n_mels) to the same."""
        return mel if self.masks is None else self.masks.hide(mel, random)
