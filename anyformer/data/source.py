"""Sources of records, and parts of them: for training, validation and test, or a few of each value.

Knows no file format, no modality and no trainer. `tables.py` and `folders.py` read files; `loader.py` makes batches.
"""

from __future__ import annotations

import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from anyformer.choices import Checked
from anyformer.data.rows.rows import no_column
from anyformer.data.values import is_missing, name_of, names_of, parse_json, spells_values
from anyformer.errors import InputError, nearest
from anyformer.tokens import Tokenizer


def join_files(record: dict[str, Any], folder: str, tokenizers: Mapping[str, Tokenizer]) -> dict[str, Any]:
    """The record with its file names as paths: those in fields whose tokenizer reads files, joined to the folder.

    A field may be a name, a list of names, or `{"path": ...}`, a part of a recording for example; or JSON of these, as
    a cell of a CSV holds it.
    """
    names = [name for name, tokenizer in tokenizers.items() if tokenizer.reads_files and name in record]
    return record | {name: _join_inside(record[name], folder) for name in names}


def _join_inside(value: Any, folder: str) -> Any:
    if isinstance(value, str):
        if not spells_values(value):
            return os.path.join(folder, value)
        try:
            spelled = parse_json(value)
        except InputError:
            return value  # Its tokenizer says what is wrong.
        joined = _join_inside(spelled, folder)
        return value if joined == spelled else joined
    # What holds numbers holds many.
    if isinstance(value, list | tuple) and value and isinstance(value[0], str | dict):
        return [_join_inside(part, folder) for part in value]
    if isinstance(value, dict) and isinstance(value.get("path"), str):
        is_name = all(value.get(content) is None for content in ("bytes", "array"))
        return value | {"path": os.path.join(folder, value["path"])} if is_name else value
    return value


def select_fields(row: dict[str, Any], columns: Mapping[str, str | Sequence[str]] | None) -> dict[str, Any]:
    """The columns of a row by the names of the fields that are read from them; all, by their own, for None.

    A field of several columns is a dict of them, None where every one of them is.
    """
    if columns is None:
        return row
    return {
        name: row.get(column) if isinstance(column, str) else join_columns(column, [row.get(part) for part in column])
        for name, column in columns.items()
    }


def join_columns(names: Sequence[str], values: Sequence[Any]) -> dict[str, Any] | None:
    """What one field is in a row, of several columns."""
    return None if all(value is None for value in values) else dict(zip(names, values, strict=True))


class Source(Checked, ABC):
    """Records by number. A subclass is a frozen dataclass of plain values, which a YAML file can name."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, i: int) -> dict[str, Any]:
        """The raw record: column -> value. A value that is not there is None or left out."""

    @abstractmethod
    def name(self, i: int) -> str:
        """Where record i comes from, for messages: "train.csv row 17". Rows are counted from 0, as in `Table.rows`."""

    @property
    def folder(self) -> str:
        """The folder or zip file that relative file names in the records start from."""
        return ""

    def folder_of(self, i: int) -> str:
        """The same for record i, where those of one source start from several."""
        return self.folder

    def column(self, name: str) -> list[Any]:
        """One column of all records. Raises InputError if there is none of that name."""
        values = []
        for i in range(len(self)):
            record = self[i]
            if name not in record:
                raise no_column(self.name(i), name, record)
            values.append(record[name])
        return values

    def known(self, name: str) -> list[Any]:
        """One column of all records, None where a record lacks it. Raises InputError if all do."""
        try:
            # A table reads the one column alone, and not the pictures or sounds beside it.
            return self.column(name)
        except InputError:
            values = [self[i].get(name) for i in range(len(self))]
            if all(value is None for value in values):
                raise
            return values

    def require(self, name: str) -> None:
        """Raise InputError if no record has anything in a column."""
        if not any(self[i].get(name) is not None for i in range(len(self))):
            first = self[0]
            there = f"; there are {', '.join(first)}{nearest(name, first)}" if first else ""
            raise InputError(f"no record has anything in {name!r}{there}")

    def columns_of(self, field: str) -> list[frozenset[str]]:
        """The columns that a field is read from, of each of the sources that stand behind this one; as `columns`, where
        a source has it, says."""
        columns = getattr(self, "columns", None)
        given = columns.get(field, field) if isinstance(columns, Mapping) else field
        return [frozenset([given] if isinstance(given, str) else given)]

    id_name = "row"
    """What the column is called that tells the records apart in a table of predictions."""

    def id_of(self, i: int) -> Any:
        """What tells record i apart there: its number, or the path of its file."""
        return range(len(self))[i]

    def at(self, places: Sequence[str], needed: Collection[str]) -> Source | None:
        """The records of other files or folders, one after another, read as these are: the same columns, the same rule
        for the root.

        needed: the fields that must be there. What is read of others, as labels, may be missing, and is then left out.
        Returns None where a place is of another kind, or these records lie nowhere. Raises InputError for a place that
        is not there.
        """
        found = [self._at(place, needed) for place in places]
        if any(source is None for source in found):
            return None
        return found[0] if len(found) == 1 else Joined(tuple(found))  # type: ignore[arg-type]

    def _at(self, place: str, needed: Collection[str]) -> Source | None:
        """The same, of one place."""
        return None

    def read_from(self) -> list[str]:
        """The files that the records are read from; where they lie, as `find_file` says. None where that is not known.

        Files that a table names are not among them.
        """
        return []

    def find(self, i: int) -> tuple[Source, int]:
        """The source that record i is read by, where others stand before it, and the record's number there."""
        return self, i

    def take(self, indices: Sequence[int] | np.ndarray) -> Subset:
        """The records of these numbers, in this order."""
        return Subset(self, np.asarray(indices, dtype=np.int64))


@dataclass(frozen=True, eq=False)
class Subset(Source):
    """Some records of another source."""

    source: Source
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.source[int(self.indices[i])]

    def name(self, i: int) -> str:
        return self.source.name(int(self.indices[i]))

    @property
    def folder(self) -> str:
        return self.source.folder

    def folder_of(self, i: int) -> str:
        return self.source.folder_of(int(self.indices[i]))

    def columns_of(self, field: str) -> list[frozenset[str]]:
        return self.source.columns_of(field)

    @property
    def id_name(self) -> str:  # type: ignore[override]
        return self.source.id_name

    def id_of(self, i: int) -> Any:
        return self.source.id_of(int(self.indices[i]))

    def find(self, i: int) -> tuple[Source, int]:
        return self.source.find(int(self.indices[i]))

    def column(self, name: str) -> list[Any]:
        values = self.source.column(name)
        return [values[i] for i in self.indices.tolist()]


@dataclass(frozen=True)
class Joined(Source):
    """The records of several sources, one after another. File names start from the folder of each one's own source."""

    sources: tuple[Source, ...]
    """At least one."""

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, i: int) -> dict[str, Any]:
        source, i = self._find(i)
        return source[i]

    def name(self, i: int) -> str:
        source, i = self._find(i)
        return source.name(i)

    def folder_of(self, i: int) -> str:
        source, i = self._find(i)
        return source.folder_of(i)

    def columns_of(self, field: str) -> list[frozenset[str]]:
        return [columns for source in self.sources for columns in source.columns_of(field)]

    @property
    def id_name(self) -> str:  # type: ignore[override]
        return self.sources[0].id_name

    def id_of(self, i: int) -> Any:
        source, own = self._find(i)
        # A number alone would stand for a record of each source.
        return source.id_of(own) if isinstance(source.id_of(own), str) else source.name(own)

    def read_from(self) -> list[str]:
        return [file for source in self.sources for file in source.read_from()]

    def column(self, name: str) -> list[Any]:
        return [value for source in self.sources for value in source.column(name)]

    def find(self, i: int) -> tuple[Source, int]:
        source, own = self._find(i)
        return source.find(own)

    def _find(self, i: int) -> tuple[Source, int]:
        """The source that record i is of, and its number there."""
        part = int(np.searchsorted(self._ends, i, side="right"))
        return self.sources[part], i - (int(self._ends[part - 1]) if part else 0)

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum([len(source) for source in self.sources])


@dataclass(frozen=True)
class Pick(Source):
    """Some records of another source: those whose column holds certain values, and so many of each; to learn from few.

    They keep the order of the source. Raises InputError, when it is first used, for a column or value that is not
    there, or a value with fewer records than are to be picked.
    """

    source: Source
    """What is picked from."""
    by: str = "label"
    """The column that decides."""
    values: tuple[str | int, ...] | None = None
    """Its values to pick, by their names; all if left out."""
    each: int | None = None
    """How many records of every value; all of them if left out."""
    seed: int | None = None
    """Draws them; the first ones are taken if left out. The 10 of a value are among its 50, whatever other values
    are picked."""

    def __post_init__(self) -> None:
        if self.values is not None:
            object.__setattr__(self, "values", names_of(self.values, "values"))
        if self.each is not None and self.each < 1:
            raise InputError(f"each must be at least 1, got {self.each}")

    def __len__(self) -> int:
        return len(self._picked)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self._picked[i]

    def name(self, i: int) -> str:
        return self._picked.name(i)

    @property
    def folder(self) -> str:
        return self.source.folder

    def folder_of(self, i: int) -> str:
        return self._picked.folder_of(i)

    def columns_of(self, field: str) -> list[frozenset[str]]:
        return self.source.columns_of(field)

    @property
    def id_name(self) -> str:  # type: ignore[override]
        return self.source.id_name

    def id_of(self, i: int) -> Any:
        return self._picked.id_of(i)

    def at(self, places: Sequence[str], needed: Collection[str]) -> Source | None:
        return self.source.at(places, needed)

    def find(self, i: int) -> tuple[Source, int]:
        return self._picked.find(i)

    def column(self, name: str) -> list[Any]:
        return self._picked.column(name)

    @cached_property
    def _picked(self) -> Subset:
        places: dict[str, list[int]] = {}
        for i, name in enumerate(names_in(self.source, self.by)):
            if name:
                places.setdefault(name, []).append(i)
        picked: list[int] = []
        for value in places if self.values is None else self.values:
            if value not in places:
                known = ", ".join(sorted(places)[:20]) + (", ..." if len(places) > 20 else "")
                raise InputError(f"values: no record has {value!r} as its {self.by!r}; there are {known}")
            found = places[value]
            if self.each is not None and self.each > len(found):
                raise InputError(
                    f"each: {self.each} records are to be picked of every {self.by!r}, but {value!r} has {len(found)}"
                )
            if self.seed is not None:
                found = np.random.default_rng((self.seed, zlib.crc32(value.encode()))).permutation(found).tolist()
            picked += found[: self.each]
        return self.source.take(sorted(picked))


def names_in(source: Source, column: str) -> list[str]:
    """The names of the values in a column, "" for what is missing.

    Raises InputError, with the name of the record, for what is no name.
    """
    names = []
    for i, value in enumerate(source.column(column)):
        try:
            names.append("" if is_missing(value) else name_of(value, f"column {column!r}"))
        except InputError as error:
            raise InputError(f"{source.name(i)}: {error}") from None
    return names
