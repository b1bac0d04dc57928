"""Waveforms, (samples,) float32 from -1 to 1: at another rate, and at another level."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

SILENCE = 1e-5
"""The level below which a recording is silent and is not made louder: -100 dB."""


SILENT_END = 1024
"""Samples."""


def resample(samples: Tensor, old: int, new: int) -> Tensor:
    """Samples at another rate: (samples,) to (`resampled_length`,), all frequencies kept that both rates can hold.

    The spectrum of the whole is cut off or filled with zeros, so that any two rates will do.
    """
    n = resampled_length(len(samples), old, new)
    if old == new:
        return samples
    old, new = old // math.gcd(old, new), new // math.gcd(old, new)
    # Silence behind it, since the end of a spectrum's sound goes on at its start; a number of small factors is quick.
    n_steps = -(-(len(samples) + SILENT_END) // old)
    unit = 1 << max(n_steps.bit_length() - 4, 0)
    n_steps = -(-n_steps // unit) * unit
    spectrum = torch.fft.rfft(samples, n_steps * old)
    return torch.fft.irfft(spectrum, n_steps * new)[:n] * (new / old)


def resampled_length(n: int, old: int, new: int) -> int:
    """How many samples n become at another rate."""
    return -(-n * new // old)


def set_level(samples: Tensor, level: Literal["peak", "rms"]) -> Tensor:
    """The samples made louder or softer: peak: the loudest is 1; rms: the root of their mean square is 0.1.

    Silence stays what it is.
    """
    loudness, wanted = (samples.abs().amax(), 1.0) if level == "peak" else (samples.square().mean().sqrt(), 0.1)
    return samples if loudness < SILENCE else samples * (wanted / loudness)
