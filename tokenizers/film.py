"""Films: the frames of a file by their numbers and by the time at which they are shown, upright."""

from __future__ import annotations

import io
import math
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from anyformer.data.values import to_number
from anyformer.errors import InputError
from anyformer.tokenizers.image.reading import MAX_PIXELS

FORMATS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".gif": "gif",
    ".avi": "avi",
    ".mkv": "matroska",
    ".webm": "webm",
}
"""What reads a file, by the ending of its name: never by its content, which could be a list of other files."""


class Clip:
    """A clip whose frames are in memory: an array, or pictures in a list."""

    def __init__(self, frames: Any) -> None:
        self.frames = frames

    def __len__(self) -> int:
        return len(self.frames)

    def shown_at(self, places: np.ndarray, n: int) -> np.ndarray:
        """The numbers of the frames that are shown at these places in the time of the clip, which ends at n."""
        return (places * len(self) / n).astype(int)

    def take(self, numbers: np.ndarray) -> Iterator[Any]:
        """The frames of these numbers, which do not fall."""
        return (self.frames[i] for i in numbers)


class Film(Clip):
    """A clip in the bytes of a file, of which those frames are turned into pixels that are asked for."""

    def __init__(self, content: bytes, name: str, start: float, end: float | None) -> None:
        """start, end: seconds; the part between them is the clip."""
        self.content, self.name = content, name
        with self._opened() as (container, stream):
            # Counted, for what a header says may be wrong, and some say nothing. What an edit of the film has cut off
            # is decoded, and not shown.
            packets = [packet for packet in container.demux(stream) if packet.size > 0 and not packet.is_discard]
            self._set_times([packet.pts for packet in packets], [packet.duration or 0 for packet in packets])
            second = 1 / float(stream.time_base) if self.is_timed else float(stream.average_rate or 1)
        self.first, self.stop = 0, len(self.times)
        if self.stop and (start or end is not None):
            self._cut(start * second, None if end is None else end * second, second)

    def _set_times(self, times: list[int | None], durations: list[int]) -> None:
        """When each frame begins to be shown, in their sequence, and when the last one ends; counted in frames where
        the file does not say."""
        n = len(times)
        self.is_timed = None not in times
        self.times, self.begin, self.end, self.slack = np.arange(n, dtype=np.float64), 0.0, float(n), 0.0
        if n and self.is_timed:
            order = np.argsort(times)
            self.times, lasts = np.array(times, dtype=np.float64)[order], np.array(durations)[order]
            self.begin, gaps = self.times[0], np.diff(self.times)
            # Where packets come in another sequence than frames, some have the durations of others, but all together.
            is_sum = (np.abs(gaps - lasts[:-1]) > 1).any() and self.begin + lasts.sum() > self.times[-1]
            last = lasts[-1] or (np.median(gaps) if n > 1 else 0) or 1
            self.end = self.begin + lasts.sum() if is_sum else self.times[-1] + last
            # Files round times, some to milliseconds.
            self.slack = min(1.0, 0.1 * (self.end - self.begin) / n)

    def _cut(self, start: float, end: float | None, second: float) -> None:
        begin, last = self.begin + start, self.end if end is None else self.begin + end
        if start < 0 or begin >= min(last, self.end) or last > self.end + 0.1 * second:
            ends = "its end" if end is None else f"{end / second:g} seconds"
            raise InputError(
                f"{self.name}: has {(self.end - self.begin) / second:.4g} seconds, and no part from {start / second:g} "
                f"to {ends}"
            )
        self.begin, self.end = begin, min(last, self.end)
        self.first = self._number(self.begin)
        self.stop = max(int(np.searchsorted(self.times, self.end - self.slack)), self.first + 1)

    def _number(self, time: float) -> int:
        """Of the frame that is shown then."""
        return max(int(np.searchsorted(self.times, time + self.slack, "right")) - 1, 0)

    def __len__(self) -> int:
        return self.stop - self.first

    def shown_at(self, places: np.ndarray, n: int) -> np.ndarray:
        times = self.begin + places * (self.end - self.begin) / n
        return np.array([min(self._number(time), self.stop - 1) - self.first for time in times])

    def take(self, numbers: np.ndarray) -> Iterator[np.ndarray]:
        wanted, before, turned = [self.first + number for number in numbers.tolist()], None, None
        with self._opened() as (container, stream):
            i = -1
            for frame in container.decode(stream):
                is_placed = self.is_timed and frame.pts is not None
                i = int(np.searchsorted(self.times, frame.pts, "right")) - 1 if is_placed else i + 1
                while wanted and wanted[0] <= i:
                    # Of one that cannot be decoded the frame before it is still shown.
                    shown = frame if before is None or wanted[0] == i else before
                    if turned is None or turned[0] is not shown:
                        turned = shown, self._upright(shown, stream.metadata)
                    wanted.pop(0)
                    yield turned[1]
                if not wanted:
                    return
                before = frame
            if before is None:
                raise InputError(f"{self.name}: none of its frames can be decoded; is it cut off?")
            # Where the last packets hold no frame, what was there last is shown for longer.
            yield from [self._upright(before, stream.metadata)] * len(wanted)

    def _upright(self, frame: Any, tags: Mapping[str, str]) -> np.ndarray:
        """The pixels of a frame as players show them: mirrored and turned as the film says."""
        pixels = frame.to_ndarray(format="rgb24")
        # x and y become a x + c y and b x + d y; y goes down.
        a, b, c, d = 1, 0, 0, 1
        matrix = next((bytes(data) for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)
        if matrix is not None:
            a, b, _, c, d = (value / 2**16 for value in struct.unpack("=5i", matrix[:20]))
        elif turn := next((value for name, value in tags.items() if name.lower() == "rotate"), None):
            angle = math.radians(to_number(turn, f"{self.name}: its tag rotate"))
            a, b, c, d = math.cos(angle), math.sin(angle), -math.sin(angle), math.cos(angle)
        if max(abs(a), abs(d)) < 0.01 * max(abs(b), abs(c)):
            pixels, a, d = pixels.swapaxes(0, 1), c, b
        elif max(abs(b), abs(c)) > 0.01 * max(abs(a), abs(d)):
            raise InputError(
                f"{self.name}: is to be turned by an angle that is no multiple of 90 degrees; turn it first"
            )
        return pixels[:: 1 if d >= 0 else -1, :: 1 if a >= 0 else -1]

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        """The file, and its moving pictures, which a cover is not."""
        import av  # takes half a second to import

        ending = os.path.splitext(self.name)[1].lower()
        try:
            with av.open(io.BytesIO(self.content), format=FORMATS[ending]) as container:
                if (stream := container.streams.best("video")) is None:
                    raise InputError(f"{self.name}: holds no pictures")
                context = stream.codec_context
                if context is None:
                    raise InputError(f"{self.name}: damaged: its header names no way to decode its frames")
                if context.width * context.height > MAX_PIXELS:
                    raise InputError(
                        f"{self.name}: the header says {context.height:,} x {context.width:,} pixels, more than "
                        f"{MAX_PIXELS:,}; not decoded"
                    )
                yield container, stream
        except (av.FFmpegError, UnicodeDecodeError) as error:
            # Names in a header are decoded before they are looked at.
            said = getattr(error, "strerror", None) or error
            raise InputError(f"{self.name}: damaged, truncated or no {ending} file: {said}") from None
