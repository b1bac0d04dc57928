"""Log-mel spectrograms: what is heard, by frequency band, in frames of 25 ms every 10 ms.

One function, `log_mel`, for one clip in a data worker and for a batch of clips of any lengths on a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from anyformer.choices import Values
from anyformer.errors import InputError

CHUNK = 512
"""Frames that a CPU transforms at a time."""


@dataclass(frozen=True)
class MelConfig(Values):
    """How sound becomes a spectrogram.

    whisper: frames about every hop, the clip mirrored at its edges, a Hann window, power, Slaney's mel scale with
    bands of equal area, log10 down to 8 below the clip's loudest, scaled by (x + 4) / 4 (Radford et al. 2022, 2.2, and
    their code). htk: frames that lie within the clip, pre-emphasis 0.97, a Hamming window, magnitudes, bands of equal
    height on HTK's mel scale, the natural logarithm, for samples from -32,768 to 32,767 (the HTK Book, 5.2 and 5.4).
    """

    settings: Literal["whisper", "htk"] = "whisper"
    """Whose."""
    rate: int = 16_000
    """Samples a second; recordings of other rates are resampled."""
    window: int = 400
    """Samples of a frame."""
    hop: int = 160
    """Samples from one frame to the next."""
    n_mels: int = 80
    """Bands. Whisper's latest sizes have 128."""
    f_min: float = 0.0
    """Hz where the lowest begins."""
    f_max: float | None = None
    """Hz where the highest ends; half the rate when left out."""

    def __post_init__(self) -> None:
        for name in ("rate", "hop", "n_mels"):
            if getattr(self, name) < 1:
                raise InputError(f"mel.{name} must be at least 1, got {getattr(self, name)}")
        if self.window < self.hop:
            raise InputError(
                f"mel.window must be at least hop={self.hop}, so that nothing is left out, got {self.window}"
            )
        if not 0 <= self.f_min < self.highest <= self.rate / 2:
            raise InputError(
                f"mel.f_min and f_max must lie between 0 and {self.rate / 2:g}, half the rate, the first below the "
                f"second, got {self.f_min:g} and {self.highest:g}"
            )
        if not filter_bank(self).any(0).all():
            raise InputError(
                f"mel.n_mels={self.n_mels} leaves bands without a frequency; use fewer, or a longer window"
            )

    @property
    def highest(self) -> float:
        return self.rate / 2 if self.f_max is None else self.f_max

    @property
    def n_fft(self) -> int:
        """Points of the Fourier transform: HTK's are the next power of 2."""
        return self.window if self.settings == "whisper" else 2 ** math.ceil(math.log2(self.window))

    def n_frames(self, n_samples: int) -> int:
        """Frames of a clip; at least 1, for which silence is put behind a shorter one."""
        n_samples = max(n_samples, self.shortest)
        return n_samples // self.hop if self.settings == "whisper" else 1 + (n_samples - self.window) // self.hop

    @property
    def shortest(self) -> int:
        """Samples that it takes for a frame."""
        return max(self.window // 2 + 1, self.hop) if self.settings == "whisper" else self.window


def log_mel(clips: Sequence[Tensor], config: MelConfig, device: torch.device | str | None = None) -> list[Tensor]:
    """The spectrogram of each clip as if it were alone: (frames, n_mels) float32; see `MelConfig.n_frames`.

    clips: (samples,) float each, at the config's rate, of any lengths.
    device: where it is computed and stays; where the first clip is when left out.
    """
    if not clips:
        return []
    device = clips[0].device if device is None else torch.device(device)
    margin = config.window // 2 if config.settings == "whisper" else 0
    parts, counts, starts, length = [], [], [], 0
    for clip in clips:
        clip = clip.detach().to(device, torch.float32)
        if len(clip) < config.shortest:
            clip = F.pad(clip, (0, config.shortest - len(clip)))
        # From a whole number of hops on, so that the frames of all clips are one view.
        gap = -length % config.hop
        starts.append((length + gap) // config.hop)
        counts.append(config.n_frames(len(clip)))
        length += gap + len(clip) + 2 * margin
        parts += [clip.new_zeros(gap), clip[1 : margin + 1].flip(0), clip, clip[-margin - 1 : -1].flip(0)[:margin]]
    frames = torch.cat(parts).unfold(0, config.window, config.hop)[: starts[-1] + counts[-1]]

    # A CPU takes some at a time, which stay in its cache.
    mel = torch.cat([_bands(part, config) for part in frames.split(CHUNK if device.type == "cpu" else len(frames))])
    if len(clips) > 1:
        # Without the frames that lie between clips.
        real = np.concatenate([np.arange(start, start + n) for start, n in zip(starts, counts, strict=True)])
        mel = mel.index_select(0, torch.from_numpy(real).to(device))
    if config.settings == "htk":
        return list(mel.clamp_(min=1.0).log_().split(counts))
    mel.clamp_(min=1e-10).log10_()
    if len(clips) == 1:
        loudest = mel.amax()
    else:
        clip_of = torch.from_numpy(np.repeat(np.arange(len(clips)), counts)).to(device)
        loudest = mel.new_full((len(clips),), -10).scatter_reduce_(0, clip_of, mel.amax(1), "amax")[clip_of, None]
    return list(mel.clamp_(min=loudest - 8).add_(4).div_(4).split(counts))


def _bands(frames: Tensor, config: MelConfig) -> Tensor:
    """What each band holds of frames (n, window): power, or HTK's magnitude. (n, n_mels)"""
    window, bank = _on_device(config, frames.device)
    if config.settings == "htk":
        frames = frames * 2.0**15
        before = torch.cat([frames[:, :1], frames[:, :-1]], 1)
        return torch.fft.rfft((frames - 0.97 * before) * window, config.n_fft).abs() @ bank
    spectrum = torch.fft.rfft(frames * window)
    return spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag) @ bank


@lru_cache(maxsize=16)
def _on_device(config: MelConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """The window of a frame, (window,), and the filters, (frequencies, n_mels)."""
    if config.settings == "htk":
        window = torch.hamming_window(config.window, periodic=False, dtype=torch.float64)
    else:
        window = torch.hann_window(config.window, dtype=torch.float64)
    return window.float().to(device), torch.from_numpy(filter_bank(config)).float().to(device)


@lru_cache(maxsize=16)
def filter_bank(config: MelConfig) -> np.ndarray:
    """How much each frequency counts in each band: triangles, (n_fft // 2 + 1, n_mels) float64."""
    to_mel = _slaney if config.settings == "whisper" else _htk
    frequencies = np.linspace(0, config.rate / 2, config.n_fft // 2 + 1)
    edges = np.linspace(to_mel(config.f_min), to_mel(config.highest), config.n_mels + 2)
    if config.settings == "htk":
        # Its triangles are straight in mel.
        return _triangles(to_mel(frequencies), edges)
    edges = np.where(edges < 15, edges * 200 / 3, 1000 * np.exp((edges - 15) * math.log(6.4) / 27))
    return _triangles(frequencies, edges) * 2 / (edges[2:] - edges[:-2])


def _triangles(places: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Each rises from an edge to 1 at the next, and falls to 0 at the one after."""
    steps = np.diff(edges)
    rising = (places[:, None] - edges[:-2]) / steps[:-1]
    falling = (edges[2:] - places[:, None]) / steps[1:]
    return np.maximum(np.minimum(rising, falling), 0)


def _slaney(frequency: np.ndarray | float) -> np.ndarray:
    """Mels as in Slaney's Auditory Toolbox (1998): 66.7 Hz each up to 1,000, then 27 for a factor of 6.4."""
    above = 15 + 27 / math.log(6.4) * np.log(np.maximum(frequency, 1000) / 1000)
    return np.where(np.asarray(frequency) < 1000, np.asarray(frequency) * 3 / 200, above)


def _htk(frequency: np.ndarray | float) -> np.ndarray:
    """Mels as in the HTK Book, 5.4."""
    return 2595 * np.log10(1 + np.asarray(frequency) / 700)
