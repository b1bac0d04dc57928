"""Sound: the one door through which recordings come in, as samples of one channel at one rate.

`read_sound` makes samples of anything that is a recording, or says why it is none; `sound_length` reads its header
alone; `pieces` goes through a recording of any length in bounded memory, cut at its pauses.
"""

from __future__ import annotations

import io
import math
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
import soundfile
import torch
from torch import Tensor

from anyformer.data.files import read_file
from anyformer.errors import InputError

MIN_RATE, MAX_RATE = 1_000, 768_000
"""Samples a second. A header that says less or more, as 2 GHz, is that of a damaged file."""
MAX_CHANNELS = 64
MAX_LEVEL = 16.0
"""Samples run from -1 to 1, and those of floats may go somewhat beyond; what goes further was never scaled."""
SILENCE = 1e-5
"""The level below which a recording is silent and is not made louder: -100 dB."""
BLOCK = 2**18
"""Samples of a channel that are decoded at a time."""
PAUSE = 0.3
"""Seconds whose loudness tells a pause."""
UNKNOWN = 0x7FFF0000
"""From this number of bytes on a program did not know how many it would write into a pipe."""
SILENT_END = 1024
"""Samples."""
LOSSY_END = 4096
"""Samples of the last block of a file that is coded in blocks, of which some may be announced and not be there."""
MP3_START = 20_000
"""Samples that are decoded before those that are wanted, since MP3 keeps parts of a sound in what comes before it."""


def read_sound(record: Any, rate: int = 16_000, max_seconds: float | None = None) -> Tensor:
    """The one door for sound.

    record: a path (also into a zip), the bytes of a file, an array at `rate`, `(array, its rate)`, or a dict of one of
        them: `{"path": ...}`, `{"bytes": ...}`, `{"array": ..., "sampling_rate": ...}`; there `start` and `end`, in
        seconds, say which part is read. An array is (samples,), (channels, samples) or (samples, channels): of floats
        from -1 to 1, or of integers.
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


def _pause(samples: np.ndarray, earliest: int, rate: int) -> int:
    """The place, from the earliest on, about which the least is heard."""
    step, around = rate // 100, round(50 * PAUSE)
    first, n = earliest // step - around, len(samples) // step
    power = np.square(samples[first * step : n * step], dtype=np.float64).reshape(-1, step).mean(1)
    heard = np.convolve(power, np.ones(2 * around), mode="valid")
    # The last of those equally quiet, for the longest piece.
    return (first + len(heard) - 1 - int(heard[::-1].argmin()) + around) * step


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


# The door


@dataclass(frozen=True)
class _Part:
    """The part of an opened recording that is wanted."""

    name: str
    rate: int
    n: int
    """Samples of each channel."""
    sound: Any
    """A `_File`, or an array that is read like one; it stands where the part begins."""

    def blocks(self) -> Iterator[np.ndarray]:
        """All samples, mixed to one channel: arrays of at most `BLOCK` float32."""
        done = 0
        while done < self.n:
            block = _read(self.sound, min(BLOCK, self.n - done), self.name)
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
    source, name, start, end = record, "recording", 0.0, None
    if isinstance(record, Mapping):
        name, start, end = record.get("path") or name, record.get("start") or 0.0, record.get("end")
        rate = record.get("sampling_rate") or rate
        source = next((record[key] for key in ("array", "bytes", "path") if record.get(key) is not None), None)
    elif isinstance(record, tuple) and len(record) == 2:
        source, rate = record
    if isinstance(source, str | Path):
        source = name = str(source)
    if isinstance(source, np.ndarray | Tensor):
        sound: Any = _Array(source, rate)
    elif isinstance(source, str | bytes):
        sound = _open_file(source, name)
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
        first, n = _span(name, sound.samplerate, _count(sound, name), start, end)
        if max_seconds is not None and n > max_seconds * sound.samplerate:
            raise InputError(
                f"{name}: {_spoken(n / sound.samplerate)} long, more than max_seconds={max_seconds:g}; "
                "cut it, raise max_seconds, or leave it out"
            )
        if first:
            begun = max(first - MP3_START, 0) if sound.format == "MP3" else first
            sound.seek(begun)
            if begun < first:
                _read(sound, first - begun, name)
        yield _Part(name, sound.samplerate, n, sound)


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


class _Array:
    """An array that is read as a file is."""

    def __init__(self, array: np.ndarray | Tensor, rate: int) -> None:
        array = array.detach().cpu().numpy() if isinstance(array, Tensor) else array
        shape = array.shape
        if array.ndim == 1:
            array = array[:, None]
        elif array.ndim == 2 and shape[0] < shape[1]:
            array = array.T
        if array.ndim != 2 or array.dtype.kind not in "fiu":
            raise InputError(
                f"an array must be numbers, (samples,) or (channels, samples), to be sound, got {array.dtype} {shape}"
            )
        if not isinstance(rate, int | np.integer):
            raise InputError(f"the rate of an array must be an integer, (array, rate), got {rate!r}")
        self.array, self.samplerate, self.place, self.format = array, int(rate), 0, "array"
        self.frames, self.channels = array.shape

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...

    def seek(self, place: int) -> None:
        self.place = place

    def read(self, n: int, **options: Any) -> np.ndarray:
        """(at most n, channels) float32"""
        part = self.array[self.place : self.place + n]
        self.place += len(part)
        if part.dtype.kind == "f":
            return part.astype(np.float32)
        half = 2.0 ** (8 * part.dtype.itemsize - 1)
        # Without a sign silence is the middle of the range.
        return (part / half - (part.dtype.kind == "u")).astype(np.float32)


class _File(soundfile.SoundFile):
    """A file that is read from front to back.

    Else the package seeks after each reading, with which MP3 loses what it needs of the past, and a stream of unknown
    length its end.
    """

    def seekable(self) -> bool:
        return False


def _read(sound: Any, n: int, name: str) -> np.ndarray:
    """The next samples: (at most n, channels) float32."""
    try:
        return sound.read(n, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise InputError(f"{name}: damaged or truncated: {error}") from None


def _count(sound: Any, name: str) -> int:
    """Samples of a channel; by reading all where the header does not say, as that of a FLAC out of a pipe."""
    if sound.frames < 2**62:
        return sound.frames
    n = 0
    while found := len(_read(sound, BLOCK, name)):
        n += found
    sound.seek(0)
    return n


def _open_file(source: str | bytes, name: str) -> _File:
    """A file whose header has been read."""
    try:
        if isinstance(source, str) and os.path.isfile(source):
            with open(source, "rb") as file:
                _check_whole(file, name)
            return _File(source)
        file = io.BytesIO(read_file(source) if isinstance(source, str) else source)
        _check_whole(file, name)
        file.seek(0)
        return _File(file)
    except OSError as error:
        raise InputError(f"{name}: {error.strerror}") from None
    except (soundfile.LibsndfileError, TypeError):  # The latter for what is called .raw.
        raise InputError(f"{name}: not a sound that can be read (wav, flac, ogg, mp3, aiff)") from None


def _check_whole(file: IO[bytes], name: str) -> None:
    """Raise InputError for a file that is cut off, where libsndfile would read less of it without a word."""
    head, size = file.read(4), file.seek(0, io.SEEK_END)
    if not size:
        raise InputError(f"{name}: the file is empty")
    if head in (b"RIFF", b"RF64", b"RIFX", b"FORM"):
        said = _chunk(file, size, ">" if head in (b"RIFX", b"FORM") else "<")
        if said > size:
            raise InputError(f"{name}: damaged or truncated: the header says {said:,} bytes, the file has {size:,}")
    elif head == b"OggS":
        # The last page, of 65,307 bytes at most: a flag says that it is, and it lists how long its parts are.
        file.seek(max(size - 65_307, 0))
        page = file.read()
        page = page[page.rfind(b"OggS") :]
        if len(page) < 27 or not page[5] & 4 or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]]):
            raise InputError(f"{name}: damaged or truncated: it breaks off before its last page")


def _chunk(file: IO[bytes], size: int, order: str) -> int:
    """Where the samples of a WAV or AIFF file end as it says; 0 where it does not."""
    place, wide = 12, 0
    while place + 8 <= size:
        file.seek(place)
        kind, n = struct.unpack(f"{order}4sI", file.read(8))
        if kind == b"ds64":  # Where 32 bits are too few.
            wide = int.from_bytes(file.read(16)[8:], "little")
        if kind in (b"data", b"SSND"):
            n = wide if n == 0xFFFFFFFF else n
            return 0 if UNKNOWN <= n <= 0xFFFFFFFF else place + 8 + n
        place += 8 + n + n % 2
    return 0


SOUNDS = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff")
"""And of those with sound."""
