"""Sounds made for the tests."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from anyformer.tokenizers.audio import reading, sound_files


def hiss(n: int, seed: int = 0, level: float = 0.1) -> Tensor:
    """(n,) white noise."""
    return torch.randn(n, generator=torch.Generator().manual_seed(seed)) * level


def tone(frequency: float, seconds: float = 1.0, rate: int = 16_000, level: float = 0.5) -> Tensor:
    """(seconds * rate,) a sine."""
    return level * torch.sin(2 * torch.pi * frequency * torch.arange(round(seconds * rate), dtype=torch.float64) / rate)


def sound_file(
    samples: Tensor | np.ndarray, rate: int = 16_000, kind: str = "WAV", subtype: str | None = None
) -> bytes:
    """The bytes of a file; samples are (samples,) or (samples, channels)."""
    file = io.BytesIO()
    soundfile.write(file, np.asarray(samples), rate, format=kind, subtype=subtype)
    return file.getvalue()


def set_block(patch: pytest.MonkeyPatch, size: int) -> None:
    """Let recordings be decoded so many samples at a time."""
    patch.setattr(reading, "BLOCK", size)
    patch.setattr(sound_files, "BLOCK", size)
