"""Records from files, and their order: tables, splits, batches that fill a budget, a loader whose place can be saved.

Knows files and numbers of tokens; knows no modality and no trainer. What turns a record into token sets is handed in
as a `Chopper`. The order of samples is a pure function of (seed, epoch), and what is drawn for a sample one of (seed,
epoch, index), so that a loader's place is two integers and the number of workers cannot matter.
"""

from __future__ import annotations

import csv
import gzip
import logging
import math
import os
import tempfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from anyformer.errors import InputError
from anyformer.tokens import Tokenizer
from anyformer.tokens import pack as pack_rows

log = logging.getLogger(__name__)

# Files


def find_file(path: str | Path) -> str:
    """Where a file, folder or file in a zip is: as given from the current folder, else inside $ANYFORMER_DATA (`data`).

    Raises InputError that names the places tried.
    """
    tried = [str(path)]
    if not os.path.isabs(path):
        tried.append(os.path.join(os.environ.get("ANYFORMER_DATA", "data"), path))
    for place in tried:
        if os.path.exists(place) or _zip_of(place):
            return place
    raise InputError(
        f"{path}: no such file; looked for {' and '.join(tried)}. "
        "Give another path, or set ANYFORMER_DATA to the folder of your data sets"
    )


def read_file(path: str | Path) -> bytes:
    """The bytes of a file, which may lie in a zip: `train.zip/cat/1.png`. Zips are read in place, never unpacked.

    Raises InputError if there is no such file or it cannot be read.
    """
    path = str(path)
    try:
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        inside = _zip_of(path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    if inside is None:
        folder, name = os.path.split(path)
        names = os.listdir(folder or ".") if os.path.isdir(folder or ".") else []
        raise InputError(f"{path}: no such file{_nearest(name, names)}")
    archive, member = inside
    try:
        opened = _open_zip(archive, os.stat(archive).st_mtime_ns, os.getpid())
        return opened.read(member)
    except KeyError:
        raise InputError(f"{archive}: holds no {member!r}{_nearest(member, opened.namelist())}") from None
    except (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zipfile.zlib.error) as error:
        raise InputError(f"{path}: cannot be read from the zip: {error}") from None


def _zip_of(path: str) -> tuple[str, str] | None:
    """The zip file that a path leads into, and the name inside."""
    for parent in Path(path).parents:
        if parent.is_file():
            return str(parent), Path(path).relative_to(parent).as_posix()
        if parent.is_dir():
            return None
    return None


@lru_cache(maxsize=8)
def _open_zip(path: str, changed: int, process: int) -> zipfile.ZipFile:
    # By process, because a forked worker that shared the handle would move its parent's place in the file.
    return zipfile.ZipFile(path)


def _nearest(name: str, names: Collection[str], n: int = 3) -> str:
    close = get_close_matches(name, names, n=n, cutoff=0.6)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


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

    What stands in a CSV is text, and stays it ("007" is a label, "NA" a word); an empty cell is None. The file is read
    when it is first used, into memory, and nothing is written beside it.
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
    return InputError(f"{place}: no column {name!r}; there are {', '.join(names)}{_nearest(name, names)}")


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
            return datasets.load_dataset(
                kind,
                data_files=path,
                split="train",
                cache_dir=folder,
                download_config=unpacked,
                keep_in_memory=True,
                **options,
            )
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


# Batches


class Draw(NamedTuple):
    """One place of a batch: which sample, drawn in which epoch, and its row where several share one."""

    epoch: int
    index: int
    row: int | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """Which samples stand together in a batch: a pure function of (seed, epoch). Made by `plan_batches`.

    Every epoch has the same number of batches, on every rank.
    """

    groups: np.ndarray
    """(n samples,) int64: samples of the same group are alike in length. All 0 without a budget."""
    cost: np.ndarray | None
    """(n samples,) int64, ascending: the longest length in the group of each place of the samples sorted by group."""
    rows: list[np.ndarray] | None
    """Where samples are packed, the places that share a row."""
    batch_size: int | None
    max_tokens: int | None
    n_batches: int
    """Of all ranks."""
    shuffle: bool
    seed: int
    rank: int
    world: int

    def __len__(self) -> int:
        return self.n_batches // self.world

    def epoch(self, epoch: int, start: int = 0) -> Iterator[list[Draw]]:
        """The batches of one epoch, of this rank, from number `start` on."""
        random = np.random.default_rng((self.seed, epoch)) if self.shuffle else None
        n = len(self.groups)
        sequence = np.arange(n) if random is None else random.permutation(n)
        sequence = sequence[np.argsort(self.groups[sequence], kind="stable")]
        if self.rows is not None:
            order = np.arange(len(self.rows)) if random is None else random.permutation(len(self.rows))
            parts = [[self.rows[row] for row in rows] for rows in np.array_split(order, self.n_batches)]
        else:
            # The first batch is of a random size: so all bounds move, and samples meet others than the epoch before.
            first = 1.0 if random is None or self.cost is None or self.n_batches == 1 else 1 - random.random()
            bounds = _fill(n, self.batch_size, self.max_tokens, self.cost, first)
            while len(bounds) <= self.n_batches:
                largest = int(np.diff(bounds).argmax())
                bounds.insert(largest + 1, (bounds[largest] + bounds[largest + 1]) // 2)
            parts = [[np.arange(*ends)] for ends in pairwise(bounds)]
        order = np.arange(self.n_batches)
        if random is not None and self.cost is not None:
            order = random.permutation(order)
        for number in order[self.rank :: self.world][start:].tolist():
            yield [
                Draw(epoch, index, None if self.rows is None else row)
                for row, places in enumerate(parts[number])
                for index in sequence[places].tolist()
            ]


def plan_batches(
    n_samples: int,
    *,
    batch_size: int | None = None,
    max_tokens: int | None = None,
    lengths: Sequence[int] | None = None,
    pack: bool = False,
    shuffle: bool = True,
    seed: int = 0,
    rank: int = 0,
    world: int = 1,
    name: Callable[[int], str] = "sample {}".format,
) -> Plan:
    """Plan batches of `batch_size` samples, or of samples of like length with at most `max_tokens` tokens, or both.

    lengths: tokens of each sample, needed for max_tokens. Lengths that differ by up to a tenth count as alike; padding
        to the longest is part of the budget.
    pack: several samples in a row as long as the longest sample; max_tokens // longest such rows are a batch.
    rank, world: each process takes every world-th batch; batches are split in two until all have the same number.
    name: says which sample a message is about.
    Raises InputError if a sample has more than max_tokens, or there are too few samples for so many processes.
    """
    groups, cost, rows = np.zeros(n_samples, dtype=np.int64), None, None
    if max_tokens is not None:
        lengths = np.maximum(np.asarray(lengths, dtype=np.int64), 1)
        if n_samples and lengths.max() > max_tokens:
            longest = int(lengths.argmax())
            raise InputError(
                f"max_tokens={max_tokens} is less than the {lengths[longest]} tokens of {name(longest)}; "
                f"raise it to at least {lengths[longest]}"
            )
        groups = np.ceil(np.log(lengths) / np.log(1.1) - 1e-9).astype(np.int64)
        longest_of = np.zeros(groups.max(initial=0) + 1, dtype=np.int64)
        np.maximum.at(longest_of, groups, lengths)
        cost = np.sort(longest_of[groups])
    if pack:
        rows = _fill_rows(cost)
        most, n_batches = len(rows), -(-len(rows) // (max_tokens // int(cost.max(initial=1))))
    else:
        most, n_batches = n_samples, len(_fill(n_samples, batch_size, max_tokens, cost)) - 1
        # Wherever the first batch ends, filling the others takes as many or one more; see Plan.epoch.
        n_batches += bool(shuffle and max_tokens is not None and 1 < n_batches < n_samples)
    n_batches = -(-n_batches // world) * world
    if n_batches > most:
        raise InputError(f"{n_samples} samples cannot be shared by {world} processes; use fewer processes")
    return Plan(groups, cost, rows, batch_size, max_tokens, n_batches, shuffle, seed, rank, world)


def _fill(
    n: int, batch_size: int | None, max_tokens: int | None, cost: np.ndarray | None, first: float = 1.0
) -> list[int]:
    """Bounds of batches of the sequence sorted by cost, as large as the limits allow; the first is a share of that."""
    bounds = [0]
    while (start := bounds[-1]) < n:
        size = min(batch_size or n, n - start)
        if cost is not None:
            size = min(size, max_tokens // int(cost[start]))
            padded = cost[start : start + size] * np.arange(1, size + 1)
            size = int(np.searchsorted(padded, max_tokens, side="right"))
        bounds.append(start + (size if start else math.ceil(size * first)))
    return bounds


def _fill_rows(cost: np.ndarray) -> list[np.ndarray]:
    """Pack the sequence sorted by cost into rows as long as the longest: the places in each row."""
    n, longest, rows = len(cost), int(cost.max(initial=1)), []
    # Packing takes the square of the number of samples, so it is done for a few thousand at a time, a mixture each.
    n_pools = -(-n // 2048)
    for pool in range(n_pools):
        places = np.arange(pool, n, n_pools)
        row = np.asarray(pack_rows(cost[places].tolist(), longest))
        by_row = np.argsort(row, kind="stable")
        rows += np.split(places[by_row], np.flatnonzero(np.diff(row[by_row])) + 1)
    return rows


# Samples and their loader


class Chopper(Protocol):
    """What a task hands to the data: how a record becomes an item, and items a batch. Picklable."""

    tokenizers: Mapping[str, Tokenizer]
    """Of the fields that come from the record: strings of one that reads files are file names."""

    def __call__(self, record: dict[str, Any], random: np.random.Generator | None) -> Any: ...

    def count(self, record: dict[str, Any]) -> int: ...

    def collate(self, items: Sequence[Any], rows: Sequence[int] | None = None) -> Any: ...


@dataclass(frozen=True, eq=False)
class Samples(Dataset):
    """A source whose records come chopped: what runs in the data workers.

    A sample is asked for by a `Draw`, which holds all that augmentation may depend on. A record that cannot be used
    fails with its name in front of the reason; or with `on_bad_sample="skip"` the batch goes on without it. In training
    a batch of nothing else is filled by the records that follow, because all processes must take the same steps.
    """

    source: Source
    chopper: Chopper
    training: bool = False
    seed: int = 0
    on_bad_sample: Literal["fail", "skip"] = "fail"

    def __len__(self) -> int:
        return len(self.source)

    def record(self, i: int) -> dict[str, Any]:
        """The record, with file names as paths."""
        return join_files(self.source[i], self.source.folder, self.chopper.tokenizers)

    def __getitem__(self, draw: Draw) -> Any:
        random = np.random.default_rng((self.seed, draw.epoch, draw.index, 1)) if self.training else None
        try:
            return self.chopper(self.record(draw.index), random)
        except InputError as error:
            raise InputError(f"{self.source.name(draw.index)}: {error}") from None

    def __getitems__(self, draws: list[Draw]) -> _Fetched:
        """A whole batch, and what was left out of it."""
        used, items, bad = [], [], []
        for draw in draws:
            try:
                items.append(self[draw])
                used.append(draw)
            except InputError as error:
                bad.append(str(error))
                if self.on_bad_sample == "fail":
                    return _Fetched(None, bad, fatal=True)
        if not items and self.training:
            for step in range(1, len(self)):
                draw = draws[-1]._replace(index=(draws[-1].index + step) % len(self))
                try:
                    items, used = [self[draw]], [draw]
                    break
                except InputError:
                    continue
        if not items:
            return _Fetched(None, bad, fatal=self.training)
        # Numbered anew: a row may have lost all its samples.
        rows = None if used[0].row is None else np.unique([draw.row for draw in used], return_inverse=True)[1].tolist()
        try:
            batch = self.chopper.collate(items, rows)
        except InputError as error:
            return _Fetched(None, [str(error)], fatal=True)
        batch.samples = tuple(self.source.name(draw.index) for draw in used)
        return _Fetched(batch, bad)

    def lengths(self) -> list[int]:
        """Tokens of every sample. One that cannot be used counts as 1 where such are skipped."""
        lengths = []
        for i in range(len(self)):
            try:
                lengths.append(self.chopper.count(self.record(i)))
            except InputError as error:
                if self.on_bad_sample == "fail":
                    raise InputError(f"{self.source.name(i)}: {error}") from None
                lengths.append(1)
        return lengths


@dataclass
class _Fetched:
    """A batch on its way from a worker, with what to say about it: an exception would arrive as a traceback's text."""

    batch: Any
    bad: list[str]
    fatal: bool = False

    def pin_memory(self) -> _Fetched:
        if self.batch is not None:
            self.batch = self.batch.pin_memory()
        return self


class Loader:
    """Batches of samples as planned, epoch after epoch; knows its place, and goes on from there.

    Iterating runs through one epoch: the one whose place was loaded, else the next. It is not a `DataLoader` but has
    one, because a trainer takes those apart and puts in samplers of its own. The place counts the batches handed out,
    never those that workers have fetched ahead, and no global generator is touched.

    ask_epoch: where someone else counts the epochs (a trainer, which may cut them short), says which one it is.
    """

    def __init__(
        self,
        samples: Samples,
        plan: Plan,
        n_workers: int = 0,
        pin_memory: bool = False,
        ask_epoch: Callable[[], int] | None = None,
    ) -> None:
        self.samples, self.plan = samples, plan
        self.n_workers, self.pin_memory, self.ask_epoch = n_workers, pin_memory, ask_epoch
        self.epoch, self.offset = 0, 0
        self.n_bad, self.bad = 0, []
        self._begun = False
        self._upcoming = _Upcoming(plan)
        self._fetcher: DataLoader | None = None

    def __len__(self) -> int:
        """Batches of an epoch: the same for all."""
        return len(self.plan)

    def __iter__(self) -> Iterator[Any]:
        # A generator, so that nothing happens before the first batch is asked for: a trainer calls iter() to try it.
        over = self._begun or self.offset >= len(self)
        epoch = self.epoch + over if self.ask_epoch is None else self.ask_epoch()
        if over or epoch != self.epoch:
            self._report()
            self.epoch, self.offset = epoch, 0
        self._begun = True
        self._upcoming.place = self.epoch, self.offset
        if self._fetcher is None:
            self._fetcher = DataLoader(
                self.samples,
                batch_sampler=self._upcoming,
                collate_fn=_whole,
                num_workers=self.n_workers,
                persistent_workers=self.n_workers > 0,
                pin_memory=self.pin_memory,
                # Its own, or each epoch would draw the workers' seed from the generator that dropout draws from.
                generator=torch.Generator(),
            )
        for fetched in self._fetcher:
            self.offset += 1
            self.n_bad += len(fetched.bad)
            self.bad = (self.bad + fetched.bad)[:3]
            if fetched.fatal:
                self.close()
                raise InputError(fetched.bad[0])
            if self.offset == len(self):
                self._report()
            if fetched.batch is not None:
                yield fetched.batch

    def state_dict(self) -> dict[str, Any]:
        """The place, in plain types."""
        return {
            "seed": self.plan.seed,
            "epoch": self.epoch,
            "offset": self.offset,
            "n_batches": len(self),
            "n_bad": self.n_bad,
            "bad": list(self.bad),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a place. Raises InputError if it belongs to other data, other batches or another seed."""
        for key, now in (("seed", self.plan.seed), ("n_batches", len(self))):
            if state[key] != now:
                raise InputError(
                    f"cannot go on inside an epoch: the checkpoint was made with {key}={state[key]}, "
                    f"this run has {now}; use the same data, batch size, seed and number of processes"
                )
        self.epoch, self.offset, self._begun = state["epoch"], state["offset"], False
        self.n_bad, self.bad = state["n_bad"], list(state["bad"])

    def close(self) -> None:
        """End the workers; they come back when the loader is used again."""
        # By hand, as trainers do: workers left to the garbage collector are waited for in vain, 5 s each, since it has
        # closed their queues by then.
        if (running := getattr(self._fetcher, "_iterator", None)) is not None:
            running._shutdown_workers()
        self._fetcher = None

    def _report(self) -> None:
        if self.n_bad:
            more = f", and {self.n_bad - len(self.bad)} more" if self.n_bad > len(self.bad) else ""
            kind = "training" if self.samples.training else "evaluation"
            log.warning(
                "epoch %d of %s left out %d samples: %s%s", self.epoch, kind, self.n_bad, "; ".join(self.bad), more
            )
        self.n_bad, self.bad = 0, []


class _Upcoming:
    """The batch sampler: the draws from a place on.

    It does not know its loader: in a cycle with that, a process forked later would inherit the dead loader, collect it,
    and stop the workers of its parent.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.place = 0, 0

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[list[Draw]]:
        return self.plan.epoch(*self.place)


def _whole(fetched: _Fetched) -> _Fetched:
    return fetched
