"""Sources of records: tables, and parts of them for training, validation and test.

Knows files; knows no modality and no trainer. `loading.py` makes batches of the records.
"""

from __future__ import annotations

import csv
import gzip
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from anyformer.errors import InputError
from anyformer.files import find_file, nearest
from anyformer.tokens import Tokenizer

# Sources


def join_files(record: dict[str, Any], folder: str, tokenizers: Mapping[str, Tokenizer]) -> dict[str, Any]:
    """The record with its file names as paths: strings of fields whose tokenizer reads files, joined to the folder."""
    names = [
        name for name, tokenizer in tokenizers.items() if tokenizer.reads_files and isinstance(record.get(name), str)
    ]
    return record | {name: os.path.join(folder, record[name]) for name in names}


class Source(ABC):
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

    def column(self, name: str) -> list[Any]:
        """One column of all records. Raises InputError if there is none of that name."""
        values = []
        for i in range(len(self)):
            record = self[i]
            if name not in record:
                raise InputError(f"{self.name(i)}: no column {name!r}; there are {', '.join(record)}")
            values.append(record[name])
        return values

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

    def column(self, name: str) -> list[Any]:
        values = self.source.column(name)
        return [values[i] for i in self.indices.tolist()]


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
    columns: dict[str, str] | None = None
    """Which column each field is read from: `{image: file, label: class}`. All, by their own names, if left out."""
    rows: tuple[int, int] | None = None
    """First row, and the row after the last; counted from 0 below the header."""
    root: str | None = None
    """Folder or zip that file names in the table start from, beside the table or found like it. `{stem}` is the table's
    own name: `{stem}.zip` is train.zip for train.csv. The table's folder if left out."""

    def __len__(self) -> int:
        start, stop = self._range
        return stop - start

    def __getitem__(self, i: int) -> dict[str, Any]:
        row = self._table[self._range[0] + range(len(self))[i]]
        return row if self.columns is None else {name: row[column] for name, column in self.columns.items()}

    def name(self, i: int) -> str:
        return f"{self.path} row {self._range[0] + i}"

    @cached_property
    def folder(self) -> str:
        beside, file = os.path.split(find_file(self.path))
        if self.root is None:
            return beside
        root = self.root.replace("{stem}", file.split(".")[0])
        place = os.path.join(beside, root)
        return place if os.path.exists(place) else find_file(root)

    def column(self, name: str) -> list[Any]:
        table, (start, stop) = self._table, self._range
        if name not in (self.columns or table.column_names):
            raise _no_column(self.path, name, self.columns or table.column_names)
        return table[self.columns[name] if self.columns else name][start:stop]

    @cached_property
    def _table(self) -> Any:
        place = find_file(self.path)
        table = _read_table(place, os.stat(place).st_mtime_ns)
        for column in (self.columns or {}).values():
            if column not in table.column_names:
                raise _no_column(self.path, column, table.column_names)
        return table

    @cached_property
    def _range(self) -> tuple[int, int]:
        n = len(self._table)
        start, stop = self.rows or (0, n)
        if n == 0:
            raise InputError(f"{self.path}: the table has no rows")
        if not 0 <= start < stop <= n:
            raise InputError(f"{self.path}: rows {start} to {stop} were asked for, the table has rows 0 to {n}")
        return start, stop


def _no_column(place: str, name: str, names: Collection[str]) -> InputError:
    return InputError(f"{place}: no column {name!r}; there are {', '.join(names)}{nearest(name, names)}")


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
    level, bars = datasets.logging.get_verbosity(), datasets.are_progress_bars_disabled()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
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
    except Exception as error:
        # Whatever the reader of this format raises for a broken file; the cause is the innermost.
        while error.__cause__ is not None:
            error = error.__cause__
        reason = str(error).strip().splitlines() or [type(error).__name__]
        if "corresponds to no data" in reason[0]:
            raise InputError(f"{path}: the table has no rows") from None
        raise InputError(f"{path}: cannot be read as {kind.upper()}: {reason[0]}") from None
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
    encoded = leave(features)
    return table if encoded == features else table.cast(datasets.Features.from_dict(encoded), keep_in_memory=True)


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


# Splits


def split(
    source: Source, fractions: Mapping[str, float], seed: int = 0, stratify: str | None = None
) -> tuple[Source, dict[str, Source]]:
    """Take parts out of a source. Returns what is left, and the parts by name; each keeps the order of the source.

    fractions: of the whole source, taken one after another: a part never depends on those taken after it.
    stratify: a column; every part gets each of its values in proportion, and what is left at least one record of each.
    Raises InputError for a fraction outside (0, 1), too few records, no such column, a value that only one record has.
    """
    n = len(source)
    for name, fraction in fractions.items():
        if not 0 < fraction < 1:
            raise InputError(
                f"{name} must be a fraction between 0 and 1 where it is taken out of train, got {fraction}"
            )
    if sum(fractions.values()) >= 1:
        raise InputError(f"{' and '.join(fractions)} take {sum(fractions.values()):g} of train and leave nothing of it")
    values = np.zeros(n, dtype=np.int64)
    if stratify is not None:
        names, values, counts = np.unique(
            list(map(str, source.column(stratify))), return_inverse=True, return_counts=True
        )
        if (counts == 1).any():
            alone = int((counts == 1).argmax())
            where = source.name(int((values == alone).argmax()))
            raise InputError(
                f"stratify needs at least 2 records of each {stratify!r}, but {str(names[alone])!r} has 1 ({where}); "
                "add records, merge it with another, or leave stratify out"
            )
    left, parts = np.arange(n), {}
    for number, (name, fraction) in enumerate(fractions.items()):
        wanted = round(fraction * n)
        random = np.random.default_rng((seed, number))
        total = np.bincount(values)
        available = np.bincount(values[left], minlength=len(total))
        # Largest remainders: the whole shares first, then one more for those who were cut most.
        share = fraction * total
        quota = np.minimum(np.floor(share).astype(np.int64), available - 1)
        room = np.flatnonzero(quota < available - 1)
        most = room[np.argsort(-(share - quota)[room], kind="stable")]
        quota[most[: max(wanted - quota.sum(), 0)]] += 1
        drawn = random.permutation(left)
        drawn = drawn[np.argsort(values[drawn], kind="stable")]
        rank = np.arange(len(drawn)) - np.searchsorted(values[drawn], values[drawn])
        taken = np.sort(drawn[rank < quota[values[drawn]]])
        if not len(taken):
            raise InputError(
                f"{name}={fraction:g} of {n} records is none at all; give a larger fraction or more records"
            )
        parts[name] = source.take(taken)
        left = np.setdiff1d(left, taken, assume_unique=True)
    return source.take(left), parts
