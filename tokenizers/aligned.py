"""Aligned text files: line i of one is line i of the others, in another language or another form."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from anyformer.data import Source, no_column
from anyformer.errors import InputError
from anyformer.files import find_file, read_file


class Lines(Sequence[str]):
    """The lines of a text as bytes and where each begins: a list of strings would take several times the memory, and
    every worker would come to have a copy of it."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        ends = np.flatnonzero(np.frombuffer(content, np.uint8) == ord("\n"))
        # What follows the last line end is a line too, if there is anything.
        self._stops = np.append(ends, len(content)) if not content.endswith(b"\n") and content else ends

    def __len__(self) -> int:
        return len(self._stops)

    def __getitem__(self, i: int) -> str:  # type: ignore[override]
        i = range(len(self))[i]
        start = int(self._stops[i - 1]) + 1 if i else 0
        return self._content[start : self._stops[i]].removesuffix(b"\r").decode()


def read_lines(path: str) -> Lines:
    """The lines of a UTF-8 text, gzipped or not, on the disk or in a zip.

    A line ends in a line feed, or a carriage return and one; what else Unicode takes for the end of a line stays
    inside, as in every tool that counts lines. A byte order mark at the beginning is left out.
    Raises InputError for what cannot be read, and names the line of a byte that is no UTF-8.
    """
    content = read_file(path)
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path}: damaged or truncated: {error}") from None
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path} line {line}: is no UTF-8 ({error.reason}); convert the file") from None
    return Lines(content)


@dataclass(frozen=True)
class Aligned(Source):
    """Text files of the same number of lines, gzipped or not; each line is a record of one field a file.

    An empty line is None, as an empty cell of a table is. The files are read when they are first used, into memory.
    Raises InputError, then, for a file that is not there, is empty or no UTF-8, and for files of different lengths.
    """

    files: dict[str, str]
    """The file of each field, `{en: train.en.gz, de: train.de.gz}`: from the current folder, else inside
    $ANYFORMER_DATA."""

    def __post_init__(self) -> None:
        if not self.files:
            raise InputError("files must name at least one file by its field, as in {en: train.en, de: train.de}")

    def __len__(self) -> int:
        return len(next(iter(self._lines.values())))

    def __getitem__(self, i: int) -> dict[str, Any]:
        i = range(len(self))[i]
        return {name: lines[i] or None for name, lines in self._lines.items()}

    def name(self, i: int) -> str:
        return f"{', '.join(self.files.values())} line {i + 1}"

    def column(self, name: str) -> list[Any]:
        if name not in self.files:
            raise no_column(", ".join(self.files.values()), name, self.files)
        return [line or None for line in self._lines[name]]

    @cached_property
    def _lines(self) -> Mapping[str, Lines]:
        lines = {name: read_lines(find_file(file)) for name, file in self.files.items()}
        (first, n), *others = ((self.files[name], len(part)) for name, part in lines.items())
        for file, other in others:
            if other != n:
                raise InputError(
                    f"{first} has {n:,} lines and {file} has {other:,}; aligned files have a line for each line of the "
                    "others"
                )
        if not n:
            raise InputError(f"{first}: the file is empty")
        return lines
