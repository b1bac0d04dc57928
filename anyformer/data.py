"""Sources of records: tables, class folders, sets of a hub, and parts of them for training, validation and test.

Knows files; knows no modality and no trainer. `loading.py` makes batches of the records.
"""

from __future__ import annotations

import csv
import gzip
import os
import tempfile
import textwrap
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from anyformer.errors import InputError
from anyformer.files import PICTURES, find_file, is_folder, list_files, nearest
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
        return _fields(self._table[self._range[0] + range(len(self))[i]], self.columns)

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
        start, stop = self._range
        return _column(self._table, name, self.columns, self.path)[start:stop]

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


def _with_columns(table: Any, columns: Mapping[str, str] | None, place: str) -> Any:
    """The table, once all columns that fields are read from are known to be there."""
    for column in (columns or {}).values():
        if column not in table.column_names:
            raise _no_column(place, column, table.column_names)
    return table


def _fields(row: dict[str, Any], columns: Mapping[str, str] | None) -> dict[str, Any]:
    return row if columns is None else {name: row[column] for name, column in columns.items()}


def _column(table: Any, name: str, columns: Mapping[str, str] | None, place: str) -> Any:
    if name not in (columns or table.column_names):
        raise _no_column(place, name, columns or table.column_names)
    return table[columns[name] if columns else name]


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
class Folders(Source):
    """The files of class folders, `cat/1.png` and `dog/deep/2.jpg`: a record each, sorted by path.

    Columns: file, the path below the folder; folder, the name of the first folder on it. What is hidden and what lies
    beside the class folders is left out. Without `folder` among the columns any folder of files will do. Raises
    InputError, when it is first used, for a folder that is not there or holds no such files, or less than two classes.
    """

    path: str
    """The folder, a zip, or a folder inside a zip: from the current folder, else inside $ANYFORMER_DATA."""
    columns: dict[str, str] = field(default_factory=lambda: {"image": "file", "label": "folder"})
    """Which column, file or folder, each field is read from."""
    endings: tuple[str, ...] = PICTURES
    """What the names of files end in, in capitals or not; others are left out."""

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, i: int) -> dict[str, Any]:
        file = self._files[i]
        return _fields({"file": file, "folder": file.partition("/")[0]}, self.columns)

    def name(self, i: int) -> str:
        return os.path.join(self.path, self._files[i])

    @cached_property
    def folder(self) -> str:
        return find_file(self.path)

    @cached_property
    def _files(self) -> list[str]:
        for column in self.columns.values():
            if column not in ("file", "folder"):
                raise _no_column(self.path, column, ("file", "folder"))
        every = list_files(self.folder)
        if not every:
            raise InputError(f"{self.path}: the folder is empty; {self._needed}")
        files = [file for file in every if file.lower().endswith(tuple(ending.lower() for ending in self.endings))]
        if not files:
            wanted = ", ".join(self.endings)
            raise InputError(f"{self.path}: no file ends in {wanted}; there are {_endings_of(every)}; {self._needed}")
        return self._classified(files, every) if "folder" in self.columns.values() else files

    def _classified(self, files: list[str], every: list[str]) -> list[str]:
        """The files that lie in class folders."""
        classes, inside = ({file.partition("/")[0] for file in part if "/" in file} for part in (files, every))
        if not classes:
            raise InputError(f"{self.path}: {files[0]} and the others lie in no class folder; {self._needed}")
        if os.path.isdir(self.folder):
            # What is empty shows in no list of files.
            inside |= {entry.name for entry in os.scandir(self.folder) if entry.is_dir() and entry.name[0] != "."}
        if useless := sorted(inside - classes - {"__MACOSX"}):
            held = [file for file in every if file.startswith(f"{useless[0]}/")]
            what = (
                f"holds no file that ends in {', '.join(self.endings)}, but {_endings_of(held)}" if held else "is empty"
            )
            raise InputError(f"{self.path}: the class folder {useless[0]!r} {what}; fill it, or take it away")
        if len(classes) == 1:
            (alone,) = classes
            deeper = len({file.split("/")[1] for file in files if file.count("/") > 1}) > 1
            hint = f"give {os.path.join(self.path, alone)}, if its folders are the classes" if deeper else self._needed
            raise InputError(f"{self.path}: there is only one class folder, {alone!r}; {hint}")
        return [file for file in files if "/" in file]

    @property
    def _needed(self) -> str:
        if "folder" not in self.columns.values():
            return "give a folder that holds some"
        return f"needed is a folder for each class, as in {os.path.join(self.path, f'cat/1{self.endings[0]}')}"


def _endings_of(files: Sequence[str]) -> str:
    """Which endings there are, the most frequent first."""
    counts = Counter(os.path.splitext(file)[1] or "no ending" for file in files)
    return ", ".join(f"{ending} ({n})" for ending, n in counts.most_common(8))


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
    columns: dict[str, str] | None = None
    """Which column each field is read from: `{image: img, label: fine_label}`. All, by their own names, if left out."""
    revision: str | None = None
    """A commit, tag or branch of the set: with a commit it can never change."""

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return _fields(self._table[range(len(self))[i]], self.columns)

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
    """Its values to pick, compared as text; all if left out."""
    each: int | None = None
    """How many records of every value; all of them if left out."""
    seed: int | None = None
    """Draws them; the first ones are taken if left out. The 10 of a value are among its 50, whatever other values
    are picked."""

    def __post_init__(self) -> None:
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

    def column(self, name: str) -> list[Any]:
        return self._picked.column(name)

    @cached_property
    def _picked(self) -> Subset:
        places: dict[str, list[int]] = {}
        for i, value in enumerate(self.source.column(self.by)):
            if value is not None:
                places.setdefault(str(value), []).append(i)
        picked: list[int] = []
        for value in places if self.values is None else dict.fromkeys(map(str, self.values)):
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


def open_source(path: str) -> Source:
    """Class folders where a folder or a zip is of this path, else a table."""
    try:
        place = find_file(path)
    except InputError:
        return Table(path)  # It says so when it is used.
    return Folders(path) if is_folder(place) or place.lower().endswith(".zip") else Table(path)


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
