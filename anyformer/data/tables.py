"""Records from tables: CSV, JSONL and Parquet files, and sets of the Hugging Face hub, by the `datasets` package."""

from __future__ import annotations

import csv
import gzip
import os
import tempfile
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from anyformer.data.files import find_file
from anyformer.data.source import Source, join_columns, no_column, select_fields
from anyformer.errors import InputError


@dataclass(frozen=True)
class Table(Source):
    """The rows of a CSV, JSONL or Parquet file, `.gz` or not.

    What stands in a CSV is text, and stays it ("007" is a label, "NA" a word); an empty cell is None. What a Parquet
    file declares by Hugging Face's features comes as: pictures and sounds not decoded, `{"bytes": ..., "path": ...}`;
    classes by their names. The file is read when it is first used, into memory, and nothing is written beside it.
    Raises InputError, then, for a file or column that is not there, an unreadable or empty table, or rows outside it.
    """

    path: str
    """The file: from the current folder, else inside $ANYFORMER_DATA."""
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

    def __len__(self) -> int:
        start, stop = self._range
        return stop - start if self.each is None else len(self._entries)

    def __getitem__(self, i: int) -> dict[str, Any]:
        i = range(len(self))[i]
        if self.each is None:
            return select_fields(self._table[self._range[0] + i], self.columns)
        row, entry = self._entries[i]
        values = self._table[row]
        return select_fields(values | {self.each: values[self.each][entry]}, self.columns)

    def name(self, i: int) -> str:
        if self.each is None:
            return f"{self.path} row {self._range[0] + i}"
        row, entry = self._entries[i]
        return f"{self.path} row {row}, {self.each} {entry}"

    @cached_property
    def folder(self) -> str:
        beside, file = os.path.split(find_file(self.path))
        if self.root is None:
            return beside
        root = self.root.replace("{stem}", file.split(".")[0])
        try:
            return find_file(os.path.join(beside, root))
        except InputError:
            return find_file(root)

    def column(self, name: str) -> list[Any]:
        start, stop = self._range
        if self.each is None:
            return _column(self._table, name, self.columns, self.path)[start:stop]
        values = _column(self._table, name, self.columns, self.path)[:]
        is_each = (self.columns or {}).get(name, name) == self.each
        return [values[row][entry] if is_each else values[row] for row, entry in self._entries]

    @cached_property
    def _entries(self) -> list[tuple[int, int]]:
        """Row and place in it of every record, where each entry of a list is one."""
        if self.each not in self._table.column_names:
            raise no_column(self.path, self.each, self._table.column_names)
        lists = self._table[self.each][:]
        for row in range(*self._range):
            if not isinstance(lists[row], list):
                raise InputError(
                    f"{self.path} row {row}: each: column {self.each!r} must hold lists, got {lists[row]!r}"
                )
        return [(row, entry) for row in range(*self._range) for entry in range(len(lists[row]))]

    @cached_property
    def _table(self) -> Any:
        place = find_file(self.path)
        table = _read_table(place, os.stat(place).st_mtime_ns)
        return _with_columns(table, self.columns, self.path)

    @cached_property
    def _range(self) -> tuple[int, int]:
        n = len(self._table)
        start, stop = self.rows or (0, n)
        if n == 0:
            raise InputError(f"{self.path}: the table has no rows")
        if not 0 <= start < stop <= n:
            raise InputError(f"{self.path}: rows {start} to {stop} were asked for, the table has rows 0 to {n}")
        return start, stop


def _with_columns(table: Any, columns: Mapping[str, str | list[str]] | None, place: str) -> Any:
    """The table, once all columns that fields are read from are known to be there."""
    for given in (columns or {}).values():
        for column in [given] if isinstance(given, str) else given:
            if column not in table.column_names:
                raise no_column(place, column, table.column_names)
    return table


def _column(table: Any, name: str, columns: Mapping[str, str | list[str]] | None, place: str) -> Any:
    if name not in (columns or table.column_names):
        raise no_column(place, name, columns or table.column_names)
    column = columns[name] if columns else name
    if isinstance(column, str):
        return table[column]
    return [join_columns(column, values) for values in zip(*(table[part][:] for part in column), strict=True)]


_FORMATS = {".csv": "csv", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}


@lru_cache(maxsize=8)
def _read_table(path: str, changed: int) -> Any:
    """A file as a `datasets.Dataset` in memory."""
    import datasets  # takes seconds to import, and digits do without

    kind = _FORMATS.get(os.path.splitext(path.removesuffix(".gz"))[1].lower())
    if kind is None:
        raise InputError(f"{path}: a table must end in {', '.join(_FORMATS)}, with or without .gz")
    if os.path.getsize(path) == 0:
        raise InputError(f"{path}: the file is empty")
    with _by_datasets(path, f"cannot be read as {kind.upper()}"):
        options: dict[str, Any] = {}
        if kind == "csv":
            with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8-sig", newline="") as file:
                names = next(csv.reader(file), [])
            text = datasets.Features({name: datasets.Value("string") for name in names})
            options = {"features": text, "keep_default_na": False, "na_values": [""]}
        with tempfile.TemporaryDirectory() as folder:
            unpacked = datasets.DownloadConfig(cache_dir=folder)
            table = datasets.load_dataset(
                kind,
                data_files=path,
                split="train",
                cache_dir=folder,
                download_config=unpacked,
                keep_in_memory=True,
                **options,
            )
        return _name_classes(_leave_encoded(table))


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


def _leave_encoded(table: Any) -> Any:
    """The table with pictures, sounds and the like as `{"bytes", "path"}`: to open them is the tokenizers' part."""
    import datasets

    def leave(feature: Any) -> Any:
        if isinstance(feature, list):
            return [leave(part) for part in feature]
        if not isinstance(feature, dict):
            return feature
        kind = feature.get("_type")
        if isinstance(kind, str) and hasattr(getattr(datasets.features, kind, None), "decode_example"):
            return feature | {"decode": False}
        return {name: leave(part) for name, part in feature.items()}

    features = table.features.to_dict()
    encoded = datasets.Features.from_dict(leave(features))
    for column, feature in features.items():
        # One by one, since a column that is a picture itself is only declared anew, and nothing is copied.
        if leave(feature) != feature:
            table = table.cast_column(column, encoded[column])
    return table


def _name_classes(table: Any) -> Any:
    """The table with the names of classes where it has their numbers; -1 is how a class is said not to be known."""
    import datasets

    order = table.column_names
    for column, feature in table.features.items():
        if isinstance(feature, datasets.ClassLabel) and feature.names:
            names = []
            for row, number in enumerate(table[column]):
                if number is not None and number >= len(feature.names):
                    raise ValueError(f"column {column!r} row {row} is class {number} of {len(feature.names)}")
                names.append(None if number is None or number < 0 else feature.names[number])
            table = table.remove_columns(column).add_column(column, names, feature=datasets.Value("string"))
    return table.select_columns(order)


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
        return len(self._table)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return select_fields(self._table[range(len(self))[i]], self.columns)

    def name(self, i: int) -> str:
        return f"{self.path} {self.split} row {i}"

    def column(self, name: str) -> list[Any]:
        return _column(self._table, name, self.columns, self.path)[:]

    @cached_property
    def _table(self) -> Any:
        import datasets

        try:
            place = find_file(self.path)
        except InputError:
            place = self.path
        with _by_datasets(self.path, "cannot be loaded"):
            table = datasets.load_dataset(place, self.subset, split=self.split, revision=self.revision)
            table = _name_classes(_leave_encoded(table))
        return _with_columns(table, self.columns, self.path)
