"""Records from tables: CSV, TSV, JSON and Parquet files, and sets of the Hugging Face hub by the `datasets` package."""

from __future__ import annotations

import glob
import os
import textwrap
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from anyformer.data.files import find_file
from anyformer.data.rows.arrow_rows import ArrowRows
from anyformer.data.rows.missing_rows import MissingRows
from anyformer.data.rows.opening import is_parted, open_rows, table_ending, table_files
from anyformer.data.rows.rows import Rows, no_column
from anyformer.data.source import Source, join_columns, select_fields
from anyformer.errors import InputError


@dataclass(frozen=True)
class Table(Source):
    """The rows of a CSV, TSV, JSON or Parquet file, `.gz` or not, or of a folder of such files that are parts of one.

    No type is guessed. What stands in a CSV or TSV is text, and stays it ("007" is a label, "NA" a word, but for what
    `missing` names); an empty cell is None. A value of JSON, an object a line or a list of objects, stays what it is,
    and a row may lack columns. Of Parquet numbers and booleans stay what they are, dates, times and decimals are texts
    as the same table has them as a CSV, and bytes that are UTF-8 are text. What a Parquet file declares by Hugging
    Face's features comes as: pictures and sounds not decoded, `{"bytes": ..., "path": ...}`; classes by their names.

    The file is looked through once, when it is first used, and each row is read where it lies; what is packed, as
    Parquet is, is unpacked into the folder of temporary files ($TMPDIR) for that. Raises InputError, then, for a file
    or column that is not there, an unreadable or empty table, rows of other cells than the header or outside it.
    """

    path: str
    """The file, or the folder: from the current folder, else inside $ANYFORMER_DATA. Never a pattern."""
    columns: dict[str, str | list[str]] | None = None
    """Which column each field is read from: `{image: file, label: class}`; or which columns, a dict of which the field
    is then: `{patient: [age, sex]}`. All, by their own names, if left out."""
    rows: tuple[int, int] | None = None
    """First row, and the row after the last; counted from 0 below the header."""
    root: str | None = None
    """Folder or zip that file names in the table start from, beside the table or found like it. `{stem}` is the table's
    own name: `{stem}.zip` is train.zip for train.csv. The table's folder if left out."""
    each: str | None = None
    """A column of lists: each of its entries makes a record of its own, with the rest of the row beside it."""
    missing: list[str] | None = None
    """What stands in a cell that has no value, in any column: `[NA, "?"]`. Spaces around it do not matter, and of
    numbers it is how they are written, `["-999"]`. Empty cells of a CSV have none in any case."""
    delimiter: str | None = None
    """What stands between the cells of a CSV or TSV, one character: `";"`. If left out, a comma in a file whose name
    ends in .csv, and a tab in one that ends in .tsv."""

    def __post_init__(self) -> None:
        mark = self.delimiter
        if mark is not None and (len(mark) != 1 or not mark.isascii() or mark in '"\r\n' or mark.isalnum()):
            raise InputError(f"delimiter must be one character, as ';' or '\\t' (a tab in double quotes), got {mark!r}")

    def __len__(self) -> int:
        start, stop = self._range
        return stop - start if self.each is None else len(self._entries)

    def __getitem__(self, i: int) -> dict[str, Any]:
        i = range(len(self))[i]
        if self.each is None:
            return select_fields(self._rows[self._range[0] + i], self.columns)
        row, entry = self._entries[i]
        values = self._rows[row]
        return select_fields(values | {self.each: values[self.each][entry]}, self.columns)

    def name(self, i: int) -> str:
        if self.each is None:
            return f"{self.path} row {self._range[0] + i}"
        row, entry = self._entries[i]
        return f"{self.path} row {row}, {self.each} {entry}"

    @cached_property
    def folder(self) -> str:
        beside, file = os.path.split(os.path.normpath(find_file(self.path)))
        if self.root is None:
            return beside
        root = self.root.replace("{stem}", file.split(".")[0])
        try:
            return find_file(os.path.join(beside, root))
        except InputError:
            return find_file(root)

    def column(self, name: str) -> list[Any]:
        if self.each is None:
            return _column(self._rows, name, self.columns, *self._range)
        start, stop = self._range
        values = _column(self._rows, name, self.columns, start, stop)
        is_each = (self.columns or {}).get(name, name) == self.each
        return [values[row - start][entry] if is_each else values[row - start] for row, entry in self._entries]

    def require_any(self, names: Collection[str]) -> None:
        """Raise InputError where none of these columns is there."""
        there = self._rows.columns()
        if not set(names) & set(there):
            raise InputError(
                f"{self.path}: no column {' or '.join(map(repr, names))}; there are {', '.join(there)}: name what "
                f"is to be read as {next(iter(names))!r} so"
            )

    def _at(self, place: str, needed: Collection[str]) -> Table | None:
        if not is_table(find_file(place)):
            return None
        moved = replace(self, path=place, rows=None, root=self._root_beside(place))
        there = {name: column for name, column in (self.columns or {}).items() if name in needed or moved._has(name)}
        return moved if self.columns is None else replace(moved, columns=there)

    def _root_beside(self, place: str) -> str | None:
        """The root for another table: beside that one, or found as for this one, or else this one's own."""
        if self.root is None or "{stem}" in self.root:
            return self.root
        if os.path.exists(os.path.join(os.path.dirname(find_file(place)), self.root)):
            return self.root
        try:
            return os.path.abspath(self.folder)
        except InputError:
            return self.root

    def _has(self, name: str) -> bool:
        """Whether the columns of a field are there."""
        try:
            return bool(replace(self, columns={name: self.columns[name]})._rows)  # type: ignore[index]
        except InputError:
            return False

    def read_from(self) -> list[str]:
        return list(table_files(find_file(self.path)))

    @cached_property
    def _entries(self) -> list[tuple[int, int]]:
        """Row and place in it of every record, where each entry of a list is one."""
        self._rows.require([self.each])
        entries = []
        for row, (values,) in enumerate(self._rows.select([self.each], *self._range), self._range[0]):
            if not isinstance(values, list):
                raise InputError(f"{self.path} row {row}: each: column {self.each!r} must hold lists, got {values!r}")
            entries += [(row, entry) for entry in range(len(values))]
        return entries

    @cached_property
    def _rows(self) -> Rows:
        wanted = None if self.columns is None else {*_names_of(self.columns), *filter(None, [self.each])}
        rows = open_rows(self.path, find_file(self.path), wanted, self.delimiter)
        return rows if self.missing is None else MissingRows(rows, self.missing)

    @cached_property
    def _range(self) -> tuple[int, int]:
        n = len(self._rows)
        start, stop = self.rows or (0, n)
        if n == 0:
            raise InputError(f"{self.path}: the table has no rows")
        if not 0 <= start < stop <= n:
            raise InputError(f"{self.path}: rows {start} to {stop} were asked for, the table has rows 0 to {n}")
        return start, stop


def is_table(place: str) -> bool:
    """Whether a file, or a folder of parts, is a table by its name."""
    return is_parted(place) if os.path.isdir(place) else table_ending(place) is not None


def _names_of(columns: Mapping[str, str | list[str]]) -> list[str]:
    """The columns that fields are read from."""
    return [name for given in columns.values() for name in ([given] if isinstance(given, str) else given)]


def _column(rows: Rows, name: str, columns: Mapping[str, str | list[str]] | None, start: int, stop: int) -> list[Any]:
    """One field of rows start to stop."""
    if columns is None:
        rows.require([name])
    elif name not in columns:
        raise no_column(rows.path, name, columns)
    column = columns[name] if columns else name
    if isinstance(column, str):
        return [value for (value,) in rows.select([column], start, stop)]
    return [join_columns(column, values) for values in rows.select(column, start, stop)]


@contextmanager
def _by_datasets(place: str, failed: str) -> Iterator[None]:
    """Without the bars and the log of `datasets`, and whatever it raises as an InputError of one line."""
    import datasets

    level, bars = datasets.logging.get_verbosity(), datasets.are_progress_bars_disabled()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        yield
    except Exception as error:
        # What the reader of a format has to say is the innermost cause; what the hub has, stands around a page's code.
        while error.__cause__ is not None and not isinstance(error, OSError):
            error = error.__cause__
        reason = textwrap.shorten(str(error), 400, placeholder=" ...") or type(error).__name__
        if "corresponds to no data" in reason:
            raise InputError(f"{place}: the table has no rows") from None
        raise InputError(f"{place}: {failed}: {reason}") from None
    finally:
        datasets.logging.set_verbosity(level)
        if not bars:
            datasets.enable_progress_bars()


@dataclass(frozen=True)
class Hub(Source):
    """A set of the Hugging Face hub by its name, or a local folder that `datasets` can read.

    The network is used for a name that is no folder here, and what comes is kept where `datasets` keeps it. Columns
    come as those of a Parquet `Table` do, and no code that a set brings is run. Raises InputError, when it is first
    used, for a set, part or column that is not there, or without a network.
    """

    path: str
    """The name on the hub, `ylecun/mnist`; or a folder: from the current folder, else inside $ANYFORMER_DATA."""
    subset: str | None = None
    """Which of the set's configurations, if it has several."""
    split: str = "train"
    """Which of its parts; also a share of one, `train[:10%]`."""
    columns: dict[str, str | list[str]] | None = None
    """Which column each field is read from: `{image: img, label: fine_label}`. All, by their own names, if left out."""
    revision: str | None = None
    """A commit, tag or branch of the set: with a commit it can never change."""

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return select_fields(self._rows[range(len(self))[i]], self.columns)

    def name(self, i: int) -> str:
        return f"{self.path} {self.split} row {i}"

    def column(self, name: str) -> list[Any]:
        return _column(self._rows, name, self.columns, 0, len(self))

    def _at(self, place: str, needed: Collection[str]) -> Source | None:
        """A file is read by a `Table` of the same columns; another set of the hub stands for all else."""
        try:
            found = find_file(place)
        except InputError:
            return replace(self, path=place)
        return Table(place, self.columns)._at(place, needed) if is_table(found) else replace(self, path=place)

    @cached_property
    def _rows(self) -> Rows:
        import datasets

        try:
            place = find_file(self.path)
        except InputError:
            place = self.path
        if glob.has_magic(place):
            # Another folder could match, and would be read without a word.
            raise InputError(f"{self.path}: `datasets` takes *, ? and [ in a name for a pattern; rename the folder")
        with _by_datasets(self.path, "cannot be loaded"):
            loaded = datasets.load_dataset(place, self.subset, split=self.split, revision=self.revision)
            rows = ArrowRows(self.path, loaded.data.table, loaded.features.to_dict())
        rows.require(_names_of(self.columns or {}))
        return rows
