"""Files of documents, read a part at a time: plain text, JSON lines and Parquet, the first two gzipped or not.

Knows bytes, rows and where documents are parted; `corpus.py` makes texts of them.
"""

from __future__ import annotations

import codecs
import glob
import gzip
import os
import re
import threading
import zlib
from array import array
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from anyformer.data.files import count_endings, find_file, say_left_out, survey_files
from anyformer.data.folders import find_parts
from anyformer.data.rows.rows import no_column
from anyformer.errors import InputError
from anyformer.local_files import check_file, file_version, open_file, unpacked_blocks

ENDINGS = (".txt", ".jsonl", ".ndjson", ".parquet", ".txt.gz", ".jsonl.gz", ".ndjson.gz")
"""What the names of the files end in that are taken from a folder."""
TABLES = (".json", ".csv", ".tsv")
"""And of files, gzipped or not, whose texts a `Table` reads by the name of their column."""
BLOCK = 2**20
"""Bytes that are read at once."""


def is_table(path: str) -> bool:
    """Whether the name of a file is that of a table."""
    return path.lower().removesuffix(".gz").endswith(TABLES)


def file_kind(place: str) -> Literal["text", "json", "parquet"]:
    """What a file is by its name: plain text where that says nothing else. Raises InputError for a table."""
    if is_table(place):
        raise InputError(
            f"{place}: is no plain text, and not read as such; a Table reads its texts by the name of their column: "
            f"class_path: Table, init_args: {{path: {place}}}"
        )
    ending = os.path.splitext(place.lower().removesuffix(".gz"))[1]
    return {".jsonl": "json", ".ndjson": "json", ".parquet": "parquet"}.get(ending, "text")


def _is_gzipped(place: str) -> bool:
    return place.lower().endswith(".gz")


def _is_there(path: str) -> bool:
    try:
        return bool(find_file(path))
    except InputError:
        return False


def expand_path(path: str) -> list[str]:
    """The files of a path: itself, those in a folder, or those that a glob matches."""
    if glob.has_magic(path) and not _is_there(path):
        for base in ("", os.environ.get("ANYFORMER_DATA", "data")):
            places = sorted(glob.glob(os.path.join(base, path), recursive=True))
            if files := [place for place in places if os.path.isfile(place)]:
                return files
        raise InputError(f"{path}: no file matches; looked from the current folder and inside $ANYFORMER_DATA")
    place = find_file(path)
    if not os.path.isdir(place):
        return [place]
    every, left_out = survey_files(place)
    files = [file for file in every if file.lower().endswith(ENDINGS)]
    if not files:
        raise InputError(f"{path}: no file in this folder ends in {', '.join(ENDINGS)}; name others by a glob")
    # A folder, or the first word of a file: `train/`, `train.txt`, `train-00000-of-00002.parquet`.
    tops = {file.partition("/")[0] if "/" in file else re.split("[._-]", file)[0]: file for file in files}
    if parts := find_parts(tops):
        found = " and ".join(tops[name] for name in parts.values())
        raise InputError(
            f"{path}: holds parts of a data set, as {found}; give each as the part that it is, or all in a list"
        )
    say_left_out(path, left_out + count_endings(set(every) - set(files)))
    return [os.path.join(place, file) for file in files]


class _reading:
    """Whatever the file makes fail, as an InputError of one line."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        # Arrow's errors are ValueErrors and OSErrors.
        if isinstance(error, (OSError, EOFError, zlib.error, ValueError)) and not isinstance(error, InputError):
            raise InputError(f"{self.place}: cannot be read: {' '.join(str(error).split())}") from None


@lru_cache(maxsize=8)
def _open_gzip(place: str, version: tuple[int, ...], process: int, thread: int) -> gzip.GzipFile:
    # Kept, because to come to a place it unpacks all before. By process and thread, which would move each other's.
    check_file(place)
    return gzip.open(place)


def read_span(place: str, start: int, stop: int) -> bytes:
    """Those from start up to stop, unpacked; fewer at the end of the file."""
    with _reading(place):
        if _is_gzipped(place):
            file = _open_gzip(place, file_version(place), os.getpid(), threading.get_ident())
            file.seek(start)
            return b"".join(unpacked_blocks(file, place, os.path.getsize(place), stop))
        with open_file(place) as file:
            file.seek(start)
            return file.read(stop - start)


def _parquet(place: str) -> Any:
    return _open_parquet(place, file_version(place), os.getpid(), threading.get_ident())


@lru_cache(maxsize=8)
def _open_parquet(place: str, version: tuple[int, ...], process: int, thread: int) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(place)


def group_sizes(place: str) -> list[int]:
    """How many rows each row group of a Parquet file has."""
    with _reading(place):
        groups = _parquet(place).metadata
        return [groups.row_group(i).num_rows for i in range(groups.num_row_groups)]


def row_sizes(place: str, column: str) -> np.ndarray:
    """About how many bytes each row of a Parquet file has, (rows,) int64: within a row group all alike.

    Raises InputError where it has no such column.
    """
    with _reading(place):
        file = _parquet(place)
        if column not in file.schema_arrow.names:
            raise no_column(place, column, file.schema_arrow.names)
        parts = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        sizes = [np.full(part.num_rows, 1 + part.total_byte_size // max(part.num_rows, 1)) for part in parts]
    return np.concatenate([np.zeros(0, np.int64), *sizes])


def read_group(place: str, number: int, column: str) -> Any:
    """One column of a row group of a Parquet file; the last two stay in memory."""
    return _read_group(place, file_version(place), number, column)


@lru_cache(maxsize=2)
def _read_group(place: str, version: tuple[int, ...], number: int, column: str) -> Any:
    with _reading(place):
        return _parquet(place).read_row_group(number, columns=[column], use_threads=False).column(0)


def find_spans(place: str, split: str | None) -> tuple[np.ndarray, np.ndarray]:
    """The first byte of each document of a file and the byte after its last, those without a byte left out."""
    head = read_span(place, 0, 1024)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or _alternates(head):
        raise InputError(
            f"{place}: byte 0 begins a text in UTF-16, and not in UTF-8; convert the file, by iconv -f UTF-16 -t UTF-8"
        )
    first = 3 if head.startswith(codecs.BOM_UTF8) else 0
    if split is None and not _is_gzipped(place):
        bounds, size = array("q"), os.path.getsize(place)
    else:
        bounds, size = _find_separators(place, split)
    ends = np.concatenate([[first], np.array(bounds, dtype=np.int64), [size]]).reshape(-1, 2)
    return tuple(ends[ends[:, 1] > ends[:, 0]].T)  # type: ignore[return-value]


def _alternates(head: bytes) -> bool:
    """Whether about every other byte is 0, as in UTF-16 of most letters; and 0 is a character of UTF-8."""
    counts = [head[i::2].count(0) for i in (0, 1)]
    return len(head) >= 16 and max(counts) > 0.3 * len(head) and not min(counts)


def _find_separators(place: str, split: str | None) -> tuple[array[int], int]:
    """Where documents are parted, the first byte and the byte after the last in turn; and the bytes of the file."""
    delimiter = (split or "").encode()
    patterns = {None: rb"(?!)", "line": rb"\r?\n", "paragraph": rb"\r?\n(?:[ \t]*\r?\n)+"}
    find = re.compile(patterns.get(split, re.escape(delimiter))).finditer
    found, buffer, offset, at, final = array("q"), b"", 0, 0, False
    while not final:
        data = read_span(place, at, at + BLOCK)
        at, final = at + len(data), len(data) < BLOCK
        buffer += data
        # What may be the beginning of a separator, or of a longer one, waits for the next block.
        blank = len(buffer) - len(buffer.rstrip(b" \t\r\n"))
        waits = {None: 0, "line": int(buffer.endswith(b"\r")), "paragraph": blank}.get(split, len(delimiter) - 1)
        stop = len(buffer) - waits if split == "paragraph" and not final else len(buffer)
        last = 0
        for match in find(buffer, 0, stop):
            last = match.end()
            found.extend((offset + match.start(), offset + last))
        kept = max(last, len(buffer) - waits)
        buffer, offset = buffer[kept:], offset + kept
    return found, at
