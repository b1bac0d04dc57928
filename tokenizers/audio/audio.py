"""Sound as tokens: slices of a log-mel spectrogram, or its frames through a convolution stem."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyformer.choices import Values
from anyformer.errors import InputError
from anyformer.model.lifts import Projection
from anyformer.tokenizers.audio.augmentation import SoundAugmentation
from anyformer.tokenizers.audio.mel import MelConfig, log_mel
from anyformer.tokenizers.audio.reading import read_sound, sound_length
from anyformer.tokenizers.audio.sound_files import SOUNDS
from anyformer.tokenizers.audio.waveform import set_level
from anyformer.tokenizers.mixing import Mixing
from anyformer.tokens import Tokenizer, TokenSet

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu}


@dataclass(frozen=True)
class AudioStem(Values):
    """Lifts frames by convolutions along time, each followed by an activation; as it stands, Whisper's.

    Nothing of one clip reaches another: every convolution sees zeros about each clip.
    """

    d_hidden: int | None = None
    """Channels between the convolutions; d_model when left out, as in Whisper."""
    kernel: int = 3
    """Width of each convolution; odd."""
    strides: tuple[int, ...] = (1, 2)
    """Of the convolutions, one after another: a token stands for as many frames as their product. (2, 2) shortens by 4,
    as is usual where CTC is trained."""
    activation: Literal["gelu", "relu", "silu"] = "gelu"
    """After each."""

    def __post_init__(self) -> None:
        if isinstance(self.strides, list):
            object.__setattr__(self, "strides", tuple(self.strides))
        if self.d_hidden is not None and self.d_hidden < 1:
            raise InputError(f"stem.d_hidden must be at least 1, got {self.d_hidden}")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise InputError(f"stem.kernel must be odd, got {self.kernel}")
        if not self.strides or min(self.strides) < 1:
            raise InputError(f"stem.strides must be a number for each convolution, at least 1, got {self.strides}")


@dataclass(frozen=True)
class Audio(Tokenizer):
    """Cuts a recording into tokens of equal times, one after another on the axis `time`; 3 seconds stay 3 seconds.

    Without a stem the content is slices of the log-mel spectrogram, (n, slice * n_mels), frame after frame, for a
    linear lift; where the last is not filled, it goes on in silence. With a stem it is the frames, (frames, n_mels).
    """

    mel: MelConfig = field(default_factory=MelConfig)
    """How a spectrogram is made of the sound."""
    slice: int = 4
    """Frames that a token stands for; with a stem the product of its strides."""
    stem: AudioStem | None = None
    """Convolutions in place of the linear lift."""
    max_seconds: float | None = 30.0
    """A longer recording is refused; so far do learned positions reach. null: any length."""
    pad_to_seconds: float | None = None
    """Silence is put behind a recording until it has this length: 30 for what Whisper was trained on."""
    pad_seconds: float | None = None
    """So much silence is put behind every recording, as far as max_seconds allows: to a Whisper 5 tell that it ends."""
    level: Literal["peak", "rms"] | None = None
    """Brings every recording to the same loudness: that of its loudest sample, or its mean."""
    norm: Literal["bands", "clip"] | None = None
    """Brings each band of a spectrogram, or all of it, to mean 0 and deviation 1."""
    augment: SoundAugmentation | None = None
    """What is drawn for a recording in training."""

    axes: ClassVar[tuple[str, ...]] = ("time",)
    endings: ClassVar[tuple[str, ...]] = SOUNDS

    def __post_init__(self) -> None:
        if self.slice < 1:
            raise InputError(f"slice must be at least 1, got {self.slice}")
        for name in ("max_seconds", "pad_to_seconds", "pad_seconds"):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise InputError(f"{name} must be above 0, got {getattr(self, name):g}")

    @property
    def frames_per_token(self) -> int:
        return self.slice if self.stem is None else math.prod(self.stem.strides)

    @property
    def seconds_per_token(self) -> float:  # type: ignore[override]
        """How much later each token begins than the one before it."""
        return self.frames_per_token * self.mel.hop / self.mel.rate

    @property
    def sizes(self) -> dict[str, int]:
        if self.max_seconds is None:
            return {}
        slowest = self.augment.longest if self.augment else 1.0
        return {"time": self._n_tokens(math.ceil(self.max_seconds * slowest * self.mel.rate))}

    def _n_tokens(self, n_samples: int) -> int:
        return -(-self.mel.n_frames(self._padded(n_samples)) // self.frames_per_token)

    def _padded(self, n_samples: int) -> int:
        """Samples of a recording with the silence behind it."""
        longer = n_samples + round((self.pad_seconds or 0) * self.mel.rate)
        if self.max_seconds is not None:
            longer = min(longer, int(self.max_seconds * self.mel.rate))
        return max(n_samples, longer, round((self.pad_to_seconds or 0) * self.mel.rate))

    def encode(self, record: Any, random: np.random.Generator | None = None) -> TokenSet:
        """record: a recording, whatever `read_sound` takes."""
        augment = self.augment if random is not None else None
        samples = read_sound(record, self.mel.rate, self.max_seconds)
        if augment is not None:
            samples = augment.change(samples, random)
        if self.level is not None:
            samples = set_level(samples, self.level)
        samples = F.pad(samples, (0, self._padded(len(samples)) - len(samples)))
        (mel,) = log_mel([samples], self.mel)
        if self.norm is not None:
            axes = (0,) if self.norm == "bands" else (0, 1)
            std, mean = torch.std_mean(mel, axes, correction=0)
            mel = (mel - mean) / std.clamp(min=1e-5)
        if augment is not None:
            mel = augment.hide(mel, random)
        return self._chop(mel)

    def _chop(self, mel: Tensor) -> TokenSet:
        """The tokens of a spectrogram, (frames, n_mels)."""
        n = -(-len(mel) // self.frames_per_token)
        position = torch.arange(n)[:, None]
        if self.stem is not None:
            return TokenSet(mel, position)
        mel = F.pad(mel, (0, 0, 0, n * self.slice - len(mel)), value=mel.min().item())
        return TokenSet(mel.view(n, -1), position)

    def decode(self, tokens: TokenSet) -> Tensor:
        """The spectrogram, (frames, n_mels), in whole tokens; the sound is not to be had from it."""
        return tokens.content.view(-1, self.mel.n_mels)

    def show(self, tokens: TokenSet) -> np.ndarray:
        """The spectrogram: time goes right, and frequency up."""
        mel = self.decode(tokens)
        low, high = mel.aminmax()
        grey = ((mel - low) * (255 / (high - low).clamp(min=1e-5))).to(torch.uint8)
        return grey.T.flip(0)[:, :, None].expand(-1, -1, 3).numpy()

    @property
    def unmixable(self) -> str | None:
        return None

    def mix(
        self, tokens: TokenSet, other: TokenSet, mixing: Mixing, random: np.random.Generator
    ) -> tuple[TokenSet, float]:
        """Two spectrograms as one of the first's length, which the other is cut to, or repeated to fill."""
        mel, over = self.decode(tokens), self.decode(other)
        start = int(random.integers(max(len(over) - len(mel), 0) + 1))
        over = over.repeat(-(-len(mel) // len(over)), 1)[start : start + len(mel)]
        mixed, share = mixing.blend(mel[None], over[None], random)
        return self._chop(mixed[0]), share

    def count(self, record: Any) -> int:
        # At the slowest speed, so that no batch is over its budget.
        slowest = self.augment.longest if self.augment else 1.0
        return self._n_tokens(math.ceil(sound_length(record, self.mel.rate, self.max_seconds) * slowest))

    def empty(self) -> TokenSet:
        d_content = self.mel.n_mels * (self.slice if self.stem is None else 1)
        return TokenSet(torch.zeros(0, d_content), torch.zeros(0, 1, dtype=torch.int64))

    def lift(self, d_model: int) -> nn.Module:
        if self.stem is None:
            return Projection(self.mel.n_mels * self.slice, d_model)
        return AudioLift(self.stem, self.mel.n_mels, d_model)


class AudioLift(nn.Module):
    """The weights of an `AudioStem`.

    Clips of one length go through the convolutions side by side. Others are laid into one row, with gaps of zeros
    between them as wide as the convolutions reach; what those write into the gaps is taken out again after each.
    """

    def __init__(self, config: AudioStem, n_mels: int, d_model: int) -> None:
        super().__init__()
        widths = [n_mels, *[config.d_hidden or d_model] * (len(config.strides) - 1), d_model]
        self.convolutions = nn.ModuleList(
            nn.Conv1d(wide, wider, config.kernel, stride, padding=config.kernel // 2)
            for (wide, wider), stride in zip(pairwise(widths), config.strides, strict=True)
        )
        for convolution in self.convolutions:
            nn.init.kaiming_normal_(convolution.weight)
            nn.init.zeros_(convolution.bias)
        self.activation = ACTIVATIONS[config.activation]
        self.strides, self.reach = config.strides, config.kernel // 2

    def forward(self, content: Tensor, extents: Sequence[tuple[int, ...]] = ()) -> Tensor:
        """content: (total frames, f) float; extents: (frames,) of each clip. Returns (total tokens, d)."""
        lengths = np.array([n for (n,) in extents], dtype=np.int64)
        if len(set(lengths.tolist())) <= 1:
            # Without clips the weights still take part, so that their gradients are 0 and not None.
            n = int(lengths[0]) if len(lengths) else math.prod(self.strides)
            sound = content.view(-1, n, content.shape[1]).transpose(1, 2)
            for convolution in self.convolutions:
                sound = self.activation(convolution(sound))
            return sound.transpose(1, 2).flatten(0, 1)
        starts = self._starts(lengths)
        places = _places(starts[:-1], lengths, content.device)
        row = content.new_zeros(int(starts[-1]), content.shape[1]).index_copy(0, places, content)
        sound = row.T[None]
        for convolution, stride in zip(self.convolutions, self.strides, strict=True):
            if convolution is not self.convolutions[0]:
                sound = sound * sound.new_zeros(sound.shape[2]).index_fill(0, places, 1)
            sound = self.activation(convolution(sound))
            starts, lengths = starts // stride, -(-lengths // stride)
            places = _places(starts[:-1], lengths, content.device)
        return sound[0].T.index_select(0, places)

    def _starts(self, lengths: np.ndarray) -> np.ndarray:
        """Where each clip begins in the row, at whole tokens, and where the row ends: (clips + 1,)."""
        needed, shortened = lengths, 1
        for stride in self.strides:
            needed = np.maximum(needed, shortened * (-(-lengths // shortened) + self.reach))
            shortened *= stride
        return np.cumsum([0, *(-(-needed // shortened) * shortened)])


def _places(starts: np.ndarray, lengths: np.ndarray, device: torch.device) -> Tensor:
    """The places of all frames of clips that begin at `starts`: (total,) int64."""
    before = np.cumsum(lengths) - lengths
    places = np.arange(lengths.sum()) + np.repeat(starts - before, lengths)
    return torch.from_numpy(places).to(device, non_blocking=True)
