"""Aligned text files: line i of one is line i of the others, in another language or another form."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from anyformer.data.files import Lines, find_file, read_lines
from anyformer.data.rows.rows import no_column
from anyformer.data.source import Source
from anyformer.errors import InputError, nearest


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

    def at(self, places: Sequence[str], needed: Collection[str]) -> Aligned:
        """places: `FIELD=FILE` each, or the one file of the one field that is needed."""
        found = {}
        for place in places:
            name, equals, file = place.partition("=")
            if not equals and len(places) == len(needed) == 1:
                (name,), file = needed, place
            elif not equals or name not in self.files:
                raise InputError(
                    f"{place}: aligned files are given by their fields, as in "
                    f"{' '.join(f'{name}=FILE' for name in self.files)}{nearest(name, self.files)}"
                )
            found[name] = file
        if lost := [name for name in needed if name in self.files and name not in found]:
            raise InputError(f"the file of the field {lost[0]!r} is missing; give {lost[0]}=FILE too")
        return Aligned(found)

    id_name = "line"

    def id_of(self, i: int) -> int:
        return range(len(self))[i] + 1

    def read_from(self) -> list[str]:
        return [find_file(file) for file in self.files.values()]

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
