"""Reading of sound: files, bytes and arrays become samples of one channel at one rate.

Every recording of a record is read by `read_sound`, which refuses what is none, is damaged or is too long;
`sound_length` reads its header alone; `pieces` goes through a recording of any length in bounded memory, cut at its
pauses, and `windows` so that each begins where it is told.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from anyformer.data.values import is_json, is_missing, parse_json, to_array, to_number
from anyformer.errors import InputError
from anyformer.tokenizers.audio.joined_files import LOSSY_END, check_end
from anyformer.tokenizers.audio.sound_files import BLOCK, SoundArray, count_samples, open_file, read_block
from anyformer.tokenizers.audio.waveform import resample, resampled_length

MIN_RATE, MAX_RATE = 1_000, 768_000
"""Samples a second. A header that says less or more, as 2 GHz, is that of a damaged file."""
MAX_CHANNELS = 64
MAX_LEVEL = 16.0
"""Samples run from -1 to 1, and those of floats may go somewhat beyond; what goes further was never scaled."""
PAUSE = 0.3
"""Seconds whose loudness tells a pause."""
EARLIER = {"MP3": 20_000, "OGG": 2**18}
"""Samples that are decoded before those that are wanted: MP3 keeps parts of a sound in what comes before it, and to a
place in the last page of Ogg Vorbis libsndfile comes up to a block too late."""


def read_sound(record: Any, rate: int = 16_000, max_seconds: float | None = None) -> Tensor:
    """Read a recording.

    record: a path (also into a zip), the bytes of a file, an array at `rate`, `(array, its rate)`, or a dict of one of
        them: `{"path": ...}`, `{"bytes": ...}`, `{"array": ..., "sampling_rate": ...}`; there `start` and `end`, in
        seconds, say which part is read. An array is (samples,), (channels, samples) or (samples, channels): of floats
        from -1 to 1, or of integers as wide as their type; int64, of which numpy makes whole numbers, of 16 bits.
        It may be lists of numbers, or columns of a table with one each. Several recordings one after another in a file
        are one. Numbers may be text, as in a CSV, and a dict or lists JSON.
    rate: samples a second of what is returned; another rate is resampled.
    max_seconds: a longer part is refused before it is decoded.
    Returns (samples,) float32: the mean of the channels.
    Raises InputError that names the file and the reason: no sound, no samples, cut off, not a number, ...
    """
    with _open(record, rate, max_seconds) as part:
        blocks = list(part.blocks())
        samples = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        return resample(torch.from_numpy(samples), part.rate, rate)


def sound_length(record: Any, rate: int = 16_000, max_seconds: float | None = None) -> int:
    """How many samples `read_sound` returns, from its header alone. Takes and raises the same."""
    with _open(record, rate, max_seconds) as part:
        return resampled_length(part.n, part.rate, rate)


def sound_seconds(record: Any, rate: int = 16_000) -> float:
    """How long a recording is, from its header alone; `rate` is that of a bare array."""
    with _open(record, rate) as part:
        return part.n / part.rate


class Piece(NamedTuple):
    """A part of a long recording."""

    start: float
    """Seconds after the recording begins."""
    end: float
    samples: Tensor
    """(samples,) float32"""


def pieces(record: Any, rate: int = 16_000, max_seconds: float = 30.0) -> Iterator[Piece]:
    """Go through a recording of any length in pieces of at most so many seconds, cut where it is quietest.

    A cut lies in the second half of what a piece may hold, so that only the last can be shorter. One piece is in memory
    at a time. Takes and raises what `read_sound` does.
    """
    if max_seconds < 1:
        raise InputError(f"a recording is cut into pieces of a second or more, got max_seconds={max_seconds:g}")
    with _open(record, rate) as part:
        blocks, held, start = part.blocks(), np.zeros(0, np.float32), 0
        limit = int(max_seconds * part.rate)
        rest = min(part.rate, limit // 4)  # so much at least is left for the last piece
        while True:
            while len(held) < limit + rest and (block := next(blocks, None)) is not None:
                held = np.concatenate([held, block])
            cut = len(held)
            if cut > limit:
                cut = _pause(held[: min(limit, cut - rest)], limit // 2, part.rate)
            samples = resample(torch.from_numpy(held[:cut].copy()), part.rate, rate)
            yield Piece(start / part.rate, (start + cut) / part.rate, samples)
            held, start = held[cut:], start + cut
            if not len(held):
                return


def windows(record: Any, rate: int = 16_000, seconds: float = 30.0) -> Generator[Piece, float | None, None]:
    """Go through a recording of any length in windows of so many seconds, the last of which may be shorter.

    Each begins as many seconds after the one before it as is sent, or where that ended. One is in memory at a time.
    Takes and raises what `read_sound` does.
    """
    with _open(record, rate) as part:
        blocks, held, start = part.blocks(), np.zeros(0, np.float32), 0
        limit = int(seconds * part.rate)
        while True:
            while len(held) < limit and (block := next(blocks, None)) is not None:
                held = np.concatenate([held, block])
            if not len(held):
                return
            n = min(len(held), limit)
            samples = resample(torch.from_numpy(held[:n].copy()), part.rate, rate)
            sent = yield Piece(start / part.rate, (start + n) / part.rate, samples)
            n = n if sent is None else min(max(round(sent * part.rate), 1), n)
            held, start = held[n:], start + n


def _pause(samples: np.ndarray, earliest: int, rate: int) -> int:
    """The place, from the earliest on, about which the least is heard."""
    step, around = rate // 100, round(50 * PAUSE)
    first, n = earliest // step - around, len(samples) // step
    power = np.square(samples[first * step : n * step], dtype=np.float64).reshape(-1, step).mean(1)
    heard = np.convolve(power, np.ones(2 * around), mode="valid")
    # The last of those equally quiet, for the longest piece.
    return (first + len(heard) - 1 - int(heard[::-1].argmin()) + around) * step


@dataclass(frozen=True)
class _Part:
    """The part of an opened recording that is wanted."""

    name: str
    rate: int
    n: int
    """Samples of each channel."""
    sound: Any
    """A `SoundFile`, or a `SoundArray` that is read like one; it stands where the part begins."""
    ends: bool
    """Whether the part goes to the end of the recording."""

    def blocks(self) -> Iterator[np.ndarray]:
        """All samples, mixed to one channel: arrays of at most `BLOCK` float32."""
        done = 0
        while done < self.n:
            block = read_block(self.sound, min(BLOCK, self.n - done), self.name)
            if not len(block):
                if self.sound.format in ("OGG", "MP3") and self.n - done <= LOSSY_END:
                    yield np.zeros(self.n - done, np.float32)
                    return
                said, found = _spoken(self.n / self.rate), _spoken(done / self.rate)
                raise InputError(f"{self.name}: damaged or truncated: the header says {said}, {found} can be read")
            mixed = block[:, 0] if block.shape[1] == 1 else block.mean(1)
            self._check(mixed, done)
            yield mixed
            done += len(block)
        if self.ends:
            check_end(self.sound, self.name)

    def _check(self, samples: np.ndarray, done: int) -> None:
        low, high = samples.min(), samples.max()
        # Written so that NaN fails too.
        if low >= -MAX_LEVEL and high <= MAX_LEVEL:
            return
        if math.isfinite(low) and math.isfinite(high):
            raise InputError(
                f"{self.name}: samples must lie between -1 and 1, got {low:g} to {high:g}; divide them by their range"
            )
        place = int(np.isfinite(samples).argmin())
        raise InputError(f"{self.name}: sample {done + place:,} is {samples[place]}; repair it, or leave it out")


def _spoken(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.4g} seconds"
    hours, minutes = divmod(int(seconds) // 60, 60)
    return f"{hours}:{minutes:02}:{int(seconds) % 60:02} hours"


@contextmanager
def _open(record: Any, rate: int, max_seconds: float | None = None) -> Iterator[_Part]:
    """What a record asks for, opened; `rate` is that of a bare array."""
    record = parse_json(record) if is_json(record) else record
    source, name, start, end = record, "recording", 0.0, None
    if isinstance(record, Mapping) and record.keys() & {"array", "bytes", "path"}:
        name = record.get("path") or name
        start, end = (_seconds(record, key, other) for key, other in (("start", 0.0), ("end", None)))
        rate = _rate(record, rate)
        source = next((record[key] for key in ("array", "bytes", "path") if record.get(key) is not None), None)
    elif isinstance(record, tuple) and len(record) == 2:
        source, rate = record
    if isinstance(source, Mapping | list):
        source = to_array(source, "a recording")
    if isinstance(source, str | Path):
        source = name = str(source)
    if isinstance(source, np.ndarray | Tensor):
        sound: Any = SoundArray(source, rate)
    elif isinstance(source, str | bytes):
        sound = open_file(source, name)
    else:
        kind = type(source).__name__
        raise InputError(
            f"a recording must be a path, the bytes of a file, an array, (array, rate) or a dict of one, got {kind}"
        )
    with sound:
        if not (MIN_RATE <= sound.samplerate <= MAX_RATE and sound.channels <= MAX_CHANNELS):
            raise InputError(
                f"{name}: the header says {sound.samplerate:,} samples a second, channels: {sound.channels}; needed "
                f"are {MIN_RATE:,} to {MAX_RATE:,} samples and at most {MAX_CHANNELS} channels"
            )
        total = count_samples(sound, name)
        first, n = _span(name, sound.samplerate, total, start, end)
        if max_seconds is not None and n > max_seconds * sound.samplerate:
            raise InputError(
                f"{name}: {_spoken(n / sound.samplerate)} long, more than max_seconds={max_seconds:g}; "
                "cut it, raise max_seconds, or leave it out"
            )
        if first:
            begun = max(first - EARLIER.get(sound.format, 0), 0)
            sound.seek(begun)
            while begun < first and len(block := read_block(sound, first - begun, name)):
                begun += len(block)
        yield _Part(name, sound.samplerate, n, sound, first + n == total)


def _seconds(record: Mapping[str, Any], key: str, otherwise: float | None) -> float | None:
    return otherwise if is_missing(record.get(key)) else to_number(record[key], key)


def _rate(record: Mapping[str, Any], otherwise: int) -> Any:
    if is_missing(record.get("sampling_rate")):
        return otherwise
    rate = to_number(record["sampling_rate"], "sampling_rate")
    return int(rate) if rate.is_integer() else rate


def _span(name: str, rate: int, n: int, start: float, end: float | None) -> tuple[int, int]:
    """The first sample between two times, and how many there are."""
    if not n:
        raise InputError(f"{name}: holds no samples")
    first, last = round(start * rate), n if end is None else round(end * rate)
    # What ends with the recording often says so in rounded seconds.
    if not 0 <= first < min(last, n) or last > n + 0.1 * rate:
        ends = "its end" if end is None else f"{end:g} seconds"
        raise InputError(f"{name}: has {_spoken(n / rate)}, and no part from {start:g} to {ends}")
    return first, min(last, n) - first
