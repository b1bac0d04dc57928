"""Arrays of numbers out of files: .npy and .npz as numpy writes them, and columns of a .csv or .tsv."""

from __future__ import annotations

import io
import math
import os
import tokenize
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import numpy as np

from anyformer.data.files import read_file
from anyformer.data.rows.csv_rows import read_cells
from anyformer.data.rows.rows import check_names
from anyformer.errors import InputError
from anyformer.local_files import DAMAGE, check_unpacked

ARRAYS = (".npy", ".npz")
"""What the names of files with one array end in."""
COLUMNS = (".csv", ".tsv")
"""And of those with columns of numbers."""
MAX_BYTES = 2**31
"""Of the numbers of a .npz at most: a few of its bytes may stand for gigabytes of zeros."""


def read_array(path: str) -> np.ndarray:
    """The array of a .npy file, or the only one of a .npz; nothing that is pickled in it is run.

    Raises InputError for a file that is not there or is no array, that is cut off, or a .npz of several arrays.
    """
    with _opened(path) as (file, size, name):
        _header(file, size, name)
        file.seek(0)
        try:
            return np.lib.format.read_array(file, allow_pickle=False)
        except ValueError as error:
            raise InputError(f"{name}: no array that numpy can read: {_one_line(error)}") from None


def array_shape(path: str) -> tuple[int, ...]:
    """The shape of the array of a file, of one on the disk from its header alone."""
    if path.lower().endswith(".npy") and os.path.isfile(path):
        with open(path, "rb") as file:
            return _header(file, os.path.getsize(path), path)
    with _opened(path) as (file, size, name):
        return _header(file, size, name)


@contextmanager
def _opened(path: str) -> Iterator[tuple[IO[bytes], int, str]]:
    """An array as .npy holds it, how many bytes it is, and what to call it. Of a .npz nothing is unpacked yet."""
    content = read_file(path)
    if not path.lower().endswith(".npz"):
        yield io.BytesIO(content), len(content), path
        return
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            if len(members) != 1:
                held = ", ".join(member.filename.removesuffix(".npy") for member in members) or "none"
                raise InputError(f"{path}: must hold one array, and holds {held}; save each in a file of its own")
            check_unpacked(f"{path}: {members[0].filename}", members[0].compress_size, members[0].file_size)
            with archive.open(members[0]) as file:
                yield file, members[0].file_size, f"{path}: {members[0].filename}"
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(f"{path}: damaged or truncated: {error}") from None


def _header(file: IO[bytes], size: int, name: str) -> tuple[int, ...]:
    """The shape that the header says, in a file of so many bytes.

    Raises InputError where it is none or is of more than there is, before memory is asked for.
    """
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    # What is in its brackets goes through Python's own parser, which fails in all these ways.
    except (ValueError, EOFError, OSError, TypeError, SyntaxError, tokenize.TokenError, RecursionError) as error:
        raise InputError(f"{name}: no array that numpy can read: {_one_line(error)}") from None
    if dtype.kind not in "biuf":
        raise InputError(f"{name}: must hold numbers, and holds {dtype}; save it with dtype float32")
    if min(shape, default=0) < 0:
        raise InputError(f"{name}: no array that numpy can read: its header says the shape {shape}")
    held, needed = size - file.tell(), math.prod(shape) * dtype.itemsize
    if held < needed:
        raise InputError(f"{name}: the file is cut off: its header says {needed:,} bytes of numbers, it has {held:,}")
    if isinstance(file, zipfile.ZipExtFile) and needed > MAX_BYTES:
        raise InputError(
            f"{name}: its header says {needed:,} bytes of numbers, more than {MAX_BYTES:,}; not unpacked: save it as "
            ".npy, or in parts"
        )
    return shape


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def read_columns(path: str) -> dict[str, np.ndarray]:
    """The columns of a .csv or .tsv of numbers, each (rows,) float64. An empty cell is NaN.

    Their names are those of the first line; "0", "1", ... where that is of numbers too. A column without a name that
    counts the rows 0, 1, 2, ..., as pandas writes one, is none.

    Raises InputError that names the line of what is no number, or of another number of cells, and for columns of one
    name or, otherwise, without.
    """
    try:
        text = read_file(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: no CSV: {error}") from None
    lines = list(read_cells(text, path, "\t" if path.lower().endswith(".tsv") else ","))
    if not lines:
        raise InputError(f"{path}: the file is empty")
    first, cells = lines[0]
    is_named = not all(map(_is_number, cells))
    names = [name.strip() for name in cells] if is_named else [str(i) for i in range(len(cells))]
    check_names(path, names)
    lines = lines[is_named:]
    for number, row in lines:
        if len(row) != len(names):
            raise InputError(f"{path} line {number}: {len(row)} cells, and the first line has {len(names)}")
        if wrong := next((cell for cell in row if not _is_number(cell)), None):
            raise InputError(f"{path} line {number}: must be numbers, got {wrong!r}; leave a cell empty where none is")
    rows = [row for _, row in lines]
    values = np.array([[float(cell) if cell.strip() else math.nan for cell in row] for row in rows], dtype=np.float64)
    columns = dict(zip(names, values.reshape(len(rows), len(names)).T, strict=True))
    if "" in columns and not np.array_equal(columns.pop(""), np.arange(len(rows))):
        raise InputError(f"{path} line {first}: column {names.index('') + 1} has no name; give it one")
    return columns


def _is_number(cell: str) -> bool:
    try:
        float(cell or "nan")
    except ValueError:
        return not cell.strip()
    return True
