"""Files in which several recordings lie one after another, as `cat a.ogg b.ogg`, internet radio and recorders do.

libsndfile reads the first, and says nothing of the others. Here it is found where each begins, without decoding any,
and they are read as one. Only of FLAC, which does not say how long a recording is in bytes, this shows no sooner than
at its end.
"""

from __future__ import annotations

import io
import mmap
import re
import struct
from collections.abc import Callable, Sequence
from typing import IO, Any

import numpy as np
import soundfile

from anyformer.errors import InputError

UNKNOWN = 0x7FFF0000
"""From this number of bytes on a program did not know how many it would write into a pipe."""
LOSSY_END = 4096
"""Samples of the last block of a file that is coded in blocks, of which some may be announced and not be there."""
OGG_SOUNDS = b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex   "
CHUNKS = b"RIFF", b"RIFX", b"FORM"
"""What WAV and AIFF files begin with."""
FLAC_HEAD = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")
NO_LENGTH = re.compile(rb"RIFF....WAVEfmt ", re.DOTALL)


class JoinedSound:
    """Recordings that are read as one is."""

    def __init__(self, parts: list[Callable[[], soundfile.SoundFile]], frames: list[int], like: Any) -> None:
        """parts: open each. frames: samples of a channel of each. like: one of them."""
        self.parts, self.ends = parts, np.cumsum(frames)
        self.samplerate, self.channels, self.format = like.samplerate, like.channels, like.format
        self.frames = int(self.ends[-1])
        self.seek(0)

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None:
        self.sound.close()

    def seek(self, place: int) -> None:
        self.place = place
        self._open(int(np.searchsorted(self.ends[:-1], place, side="right")))
        self.sound.seek(place - (int(self.ends[self.number - 1]) if self.number else 0))

    def _open(self, number: int) -> None:
        self.number, self.sound = number, self.parts[number]()

    def read(self, n: int, **options: Any) -> np.ndarray:
        """(at most n, channels) float32, of one of the recordings."""
        if self.place == self.ends[self.number] and self.number + 1 < len(self.parts):
            self.sound.close()
            self._open(self.number + 1)
        left = int(self.ends[self.number]) - self.place
        block = self.sound.read(min(n, left), **options)
        if not len(block) and 0 < left <= LOSSY_END and self.format in ("OGG", "MP3"):
            block = np.zeros((min(n, left), self.channels), np.float32)
        self.place += len(block)
        return block


def join(file: IO[bytes], spans: Sequence[tuple[int, int]], kind: type[soundfile.SoundFile], name: str) -> JoinedSound:
    """The recordings of a file, of which spans are the first byte and the one after the last, as one.

    Raises InputError where they are of different rates or channels.
    """
    path = getattr(file, "name", None)

    def part(start: int, stop: int) -> Callable[[], soundfile.SoundFile]:
        def opened() -> soundfile.SoundFile:
            if path is None:
                file.seek(start)
                return kind(io.BytesIO(file.read(stop - start)))
            with open(path, "rb") as again:
                again.seek(start)
                return kind(io.BytesIO(again.read(stop - start)))

        return opened

    parts, frames, first = [part(*span) for span in spans], [], None
    for number, each in enumerate(parts):
        with each() as sound:
            first = first or sound
            here, before = ((each.samplerate, each.channels) for each in (sound, first))
            if here != before:
                raise InputError(
                    f"{name}: holds {len(parts)} recordings one after another, of which number {number + 1} has "
                    f"{here[0]:,} samples a second, channels: {here[1]}, and the first {before[0]:,}, {before[1]}; "
                    "take them apart, or make them alike"
                )
            frames.append(_count(sound))
    return JoinedSound(parts, frames, first)


def _count(sound: soundfile.SoundFile) -> int:
    if sound.frames < 2**62:
        return sound.frames
    n = 0
    while found := len(sound.read(2**18, dtype="float32", always_2d=True)):
        n += found
    return n


def find_recordings(file: IO[bytes], name: str) -> list[tuple[int, int]]:
    """Where each recording of a file begins and ends, in bytes; one alone, where its format cannot say."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(12)
    if head[:4] == b"OggS":
        starts = _in_ogg(file, size, name)
    elif head[:4] in CHUNKS:
        starts = _in_chunks(file, size)
    elif head[:3] == b"ID3" or (head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xE0 == 0xE0):
        starts = _in_mp3(file, size)
    else:
        starts = [0]
    return list(zip(starts, [*starts[1:], size], strict=True))


def _in_ogg(file: IO[bytes], size: int, name: str) -> list[int]:
    """A recording begins at a page that is the first of its stream, behind others that are not."""
    starts, place, sounds, is_head = [0], 0, 0, True
    while place < size:
        file.seek(place)
        page = file.read(27 + 255 + 8)
        if page[:4] != b"OggS" or len(page) < 27:
            place = _find(file, b"OggS", place + 1, size)
            continue
        data = 27 + page[26]
        if page[5] & 2:
            if not is_head:
                starts.append(place)
                sounds, is_head = 0, True
            sounds += page[data:].startswith(OGG_SOUNDS)
            if sounds > 1:
                raise InputError(
                    f"{name}: holds {sounds} recordings side by side, of which one alone would be read; take them apart"
                )
        else:
            is_head = False
        place += data + sum(page[27:data])
    return starts


def _find(file: IO[bytes], pattern: bytes, place: int, size: int) -> int:
    """Where a pattern comes next; the size where it does not."""
    while place < size:
        file.seek(place)
        block = file.read(2**16)
        if (at := block.find(pattern)) >= 0:
            return place + at
        place += max(len(block) - len(pattern) + 1, 1)
    return size


def _in_chunks(file: IO[bytes], size: int) -> list[int]:
    """WAV and AIFF say how long they are; out of a pipe a WAV does not, and the next is looked for."""
    starts, place = [], 0
    while place + 12 <= size:
        file.seek(place)
        head = file.read(12)
        if head[:4] not in CHUNKS or head[8:] not in (b"WAVE", b"AIFF", b"AIFC"):
            break
        starts.append(place)
        n = struct.unpack("<I" if head[:4] == b"RIFF" else ">I", head[4:8])[0]
        if n >= UNKNOWN:
            return starts + [place + match for match in _matches(file, NO_LENGTH, place) if match]
        place += 8 + n
        file.seek(place)
        # An odd length is made even by a byte, which some programs leave out (Python's wave).
        if n % 2 and file.read(4) not in CHUNKS:
            place += 1
    return starts or [0]


def _matches(file: IO[bytes], pattern: re.Pattern[bytes], place: int) -> list[int]:
    """Where a pattern occurs behind a place, counted from there."""
    if isinstance(file, io.BytesIO):
        return [match.start() for match in pattern.finditer(file.getbuffer()[place:])]
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return [match.start() - place for match in pattern.finditer(content, place)]


def _in_mp3(file: IO[bytes], size: int) -> list[int]:
    """A frame before the sound says, in most files, how many bytes of it there are (Xing's and LAME's)."""
    starts, place = [0], 0
    while place < size:
        place = _behind_tag(file, place)
        file.seek(place)
        head = file.read(64)
        found = re.search(rb"\x00(Xing|Info)\x00\x00\x00", head)
        if found is None:
            break
        flags, fields = head[found.end()] if found.end() < len(head) else 0, found.end() + 1
        if not flags & 2:
            break
        fields += 4 * (flags & 1)
        if len(head) < fields + 4:
            break
        n = struct.unpack(">I", head[fields : fields + 4])[0]
        # What has been cut off, or written into a pipe, does not say.
        if n < 1 or place + n > size:
            break
        place += n
        file.seek(place)
        rest = file.read(160)
        if rest[:3] == b"TAG":  # The name of the first, in 128 bytes behind it.
            place, rest = place + 128, rest[128:]
        # Every frame of a sound begins alike but for a bit, which says whether it has a sum; no other tag does.
        frame = re.escape(head[:1]) + b"[" + re.escape(bytes([head[1] & 0xFE, head[1] | 1])) + b"]"
        if not re.match(rb"ID3[\x02-\x04]\x00|" + frame, rest):
            break
        starts.append(place)
    return starts


def _behind_tag(file: IO[bytes], place: int) -> int:
    """The place behind an ID3v2 tag, if there is one."""
    file.seek(place)
    head = file.read(10)
    if head[:3] != b"ID3" or len(head) < 10:
        return place
    return place + 10 + sum(byte << 7 * (3 - i) for i, byte in enumerate(head[6:])) + 10 * bool(head[5] & 0x10)


def check_end(sound: Any, name: str) -> None:
    """Raise InputError where a FLAC that has been read to its end has another one behind it."""
    if sound.format != "FLAC":
        return
    if isinstance(sound.name, io.BytesIO):
        n = len(_matches(sound.name, FLAC_HEAD, 0))
    else:
        with open(sound.name, "rb") as file:
            n = len(_matches(file, FLAC_HEAD, 0))
    if n > 1:
        raise InputError(
            f"{name}: holds {n} recordings one after another, of which the first alone would be read; take them apart, "
            "or join them anew as one FLAC"
        )
