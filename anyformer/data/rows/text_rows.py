"""The rows of a text file, found in one pass and read where they lie: memory is needed for a few places alone."""

from __future__ import annotations

import codecs
import os
import weakref
from abc import abstractmethod
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from anyformer.data.files import open_binary
from anyformer.data.rows.rows import Rows
from anyformer.errors import InputError

PIECE = 2**20
"""Bytes that are looked through at once."""
BLOCK = 2**13
"""Bytes of the file for which one place is kept. To read a row all rows of its block are parsed."""
LONGEST = 2**26
"""Bytes of a row at most. What is longer is a quotation mark that is never closed, or no table."""
LF, CR = b"\n\r"


class TextRows(Rows):
    """Rows that follow each other in a UTF-8 text, gzipped or not.

    Raises InputError that names the line of what is wrong.
    """

    kind: str
    """What messages call the format."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = open_binary(path)
        weakref.finalize(self, self._file.close)
        self._stat = os.fstat(self._file.fileno())
        self.size = self._stat.st_size
        if not self.size:
            raise InputError(f"{path}: the file is empty")
        self._n, self._places, self._first = 0, array("q"), array("q")
        self._parsed: tuple[int, Sequence[Any]] = -1, ()
        self._scan(len(codecs.BOM_UTF8) if self._read(0, 3) == codecs.BOM_UTF8 else 0)

    def __reduce__(self) -> Any:
        # Another process, unless it is forked off, opens the file itself.
        return type(self), (self.path,)

    @abstractmethod
    def find(self, data: bytes, place: int, final: bool) -> int:
        """`keep` where rows begin in bytes of the file, which begin with a row. Returns how many of the bytes are whole
        rows; the others come again at the beginning of the next. place: where the bytes begin; final: are they last."""

    @abstractmethod
    def parse(self, data: bytes, place: int) -> Sequence[Any]:
        """The rows of a block, which begins at a place of the file."""

    @abstractmethod
    def record(self, row: Any, number: int) -> dict[str, Any]:
        """What `parse` gives of a row, as values by column; number: that of the row."""

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, i: int) -> dict[str, Any]:
        block = bisect_right(self._first, i) - 1
        return self.record(self.block(block)[i - self._first[block]], i)

    def block(self, number: int) -> Sequence[Any]:
        """The parsed rows of a block; the last one stays in memory."""
        if self._parsed[0] != number:
            data, place = self.block_data(number)
            self._parsed = number, self.parse(data, place)
        return self._parsed[1]

    def block_data(self, number: int) -> tuple[bytes, int]:
        """The bytes of a block, and where they begin."""
        places = self._places
        return self._read(places[number], places[number + 1] if number + 1 < len(places) else self.size), places[number]

    def blocks(self, start: int, stop: int) -> Iterator[tuple[int, slice]]:
        """The blocks that hold rows start to stop, and which of the rows of each."""
        block = bisect_right(self._first, start) - 1
        while start < stop:
            first = self._first[block]
            end = self._first[block + 1] if block + 1 < len(self._first) else self._n
            yield block, slice(start - first, min(stop, end) - first)
            start, block = end, block + 1

    def keep(self, places: np.ndarray) -> None:
        """Take rows that begin at these bytes of the file, (n,) int64 and rising."""
        if not len(places):
            return
        before = self._places[-1] // BLOCK if self._places else -1
        begun = np.flatnonzero(np.diff(places // BLOCK, prepend=before))
        self._places.frombytes(places[begun].astype(np.int64).tobytes())
        self._first.frombytes((self._n + begun).astype(np.int64).tobytes())
        self._n += len(places)

    def _scan(self, start: int) -> None:
        rest, final = b"", False
        while not final:
            stop = start + len(rest) + max(PIECE, len(rest))
            data, final = rest + self._read(start + len(rest), stop), stop >= self.size
            self._check_utf8(data, start, final)
            used = self.find(data, start, final)
            rest, start = data[used:], start + used
            if len(rest) > LONGEST:
                raise self.wrong(start, f"the row that begins here is longer than {LONGEST:,} bytes; {UNCLOSED}")

    def _check_utf8(self, data: bytes, place: int, final: bool) -> None:
        """Raise InputError for bytes that are no UTF-8, but for a character that is not yet whole."""
        if data.isascii():
            return
        try:
            codecs.utf_8_decode(data, "strict", final)
        except UnicodeDecodeError as error:
            raise self.wrong(place + error.start, f"is no UTF-8 ({error.reason}); convert the file to utf-8") from None

    def wrong(self, place: int, reason: str) -> InputError:
        """What to raise for what stands at a byte of the file."""
        return InputError(f"{self.path}: cannot be read as {self.kind}: line {self.line(place)}: {reason}")

    def line(self, place: int) -> int:
        """The number of the line that a byte stands in, from 1."""
        counts = {b"\n": 0, b"\r": 0}
        for at in range(0, place, PIECE):
            before = self._read(at, min(at + PIECE, place))
            counts = {end: n + before.count(end) for end, n in counts.items()}
        return 1 + (counts[b"\n"] or counts[b"\r"])

    def _read(self, start: int, stop: int) -> bytes:
        """By place, since processes that are forked off share the file."""
        number, parts = self._file.fileno(), []
        now = os.fstat(number)
        if (now.st_size, now.st_mtime_ns) != (self._stat.st_size, self._stat.st_mtime_ns):
            raise InputError(f"{self.path}: has changed since it was opened; leave it as it is while it is read")
        while start < stop and (data := os.pread(number, stop - start, start)):
            parts.append(data)
            start += len(data)
        return b"".join(parts)


UNCLOSED = "is a quotation mark missing?"
