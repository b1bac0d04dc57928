"""Files of sound and arrays, opened and read from front to back, a block at a time.

What libsndfile would read less of without a word, as a file that is cut off, is refused; `reading.py` makes samples of
the rest.
"""

from __future__ import annotations

import io
import os
import struct
from functools import lru_cache
from typing import IO, Any

import numpy as np
import soundfile
from torch import Tensor

from anyformer.data.files import read_file
from anyformer.errors import InputError
from anyformer.local_files import file_version
from anyformer.tokenizers.audio.joined_files import UNKNOWN, JoinedSound, find_recordings, join

SOUNDS = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff")
"""What the names of files with sound end in."""
BLOCK = 2**18
"""Samples of a channel that are decoded at a time."""


class SoundArray:
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
        self.half = _half_range(array)
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
        # Without a sign silence is the middle of the range.
        return (part / self.half - (part.dtype.kind == "u")).astype(np.float32)


def _half_range(array: np.ndarray) -> float:
    """What the loudest sample of an array is, that is 1.

    An array of integers is as wide as its samples, but for int64, which numpy makes of any list of whole numbers: these
    are of 16 bits. Raises InputError where the samples show another width, as they would become silence.
    """
    bits = 8 * array.dtype.itemsize
    if array.dtype.kind == "f" or not array.size:
        return 1.0
    low, high = int(array.min()), int(array.max())
    peak = max(high, -low)
    if array.dtype.kind == "u":
        # Where silence is in the middle nothing stays at the bottom.
        is_clear = bits == 8 or high >= 2 ** (bits - 8)
    elif bits == 64:
        is_clear = peak == 0 or (128 <= peak <= 2**15 and low < 0)
        bits = 16
    elif bits == 32:
        # What is narrower lies, in files and elsewhere, in the upper bits.
        is_clear = peak == 0 or peak >= 2**23 or (peak > 2**16 and not (array & 255).any())
    else:
        is_clear = True
    if is_clear:
        return 2.0 ** (bits - 1)
    raise InputError(
        f"samples of {array.dtype} lie between {low:,} and {high:,}, so that their width is not clear; give them as "
        "floats from -1 to 1, or by array.astype('int16') where they are of 16 bits"
    )


class SoundFile(soundfile.SoundFile):
    """A file that is read from front to back.

    Else the package seeks after each reading, with which MP3 loses what it needs of the past, and a stream of unknown
    length its end.
    """

    def seekable(self) -> bool:
        return False


def read_block(sound: Any, n: int, name: str) -> np.ndarray:
    """The next samples: (at most n, channels) float32."""
    try:
        return sound.read(n, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise InputError(f"{name}: damaged or truncated: {error}") from None


def count_samples(sound: Any, name: str) -> int:
    """Samples of a channel; by reading all where the header does not say, as that of a FLAC out of a pipe."""
    if sound.frames < 2**62:
        return sound.frames
    n = 0
    while found := len(read_block(sound, BLOCK, name)):
        n += found
    sound.seek(0)
    return n


def open_file(source: str | bytes, name: str) -> SoundFile | JoinedSound:
    """A file whose header has been read; where it holds several recordings, those of all of them."""
    try:
        if isinstance(source, str) and os.path.isfile(source):
            spans = _find_once(source, name, file_version(source))
            if len(spans) == 1:
                return SoundFile(source)
            with open(source, "rb") as file:
                return join(file, spans, SoundFile, name)
        content = io.BytesIO(read_file(source) if isinstance(source, str) else source)
        _check_whole(content, name)
        spans = find_recordings(content, name)
        content.seek(0)
        return SoundFile(content) if len(spans) == 1 else join(content, spans, SoundFile, name)
    except OSError as error:
        raise InputError(f"{name}: {error.strerror}") from None
    except (soundfile.LibsndfileError, TypeError):  # The latter for what is called .raw.
        raise InputError(f"{name}: not a sound that can be read (wav, flac, ogg, mp3, aiff)") from None


@lru_cache(maxsize=4096)
def _find_once(path: str, name: str, version: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """The recordings of a file that is whole. Kept, as an Ogg is walked through for it, however little is then read."""
    with open(path, "rb") as file:
        _check_whole(file, name)
        return tuple(find_recordings(file, name))


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
