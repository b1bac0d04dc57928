"""Arrays of numbers out of files: .npy and .npz as numpy writes them, and columns of a .csv; and out of texts."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import zipfile
from typing import IO, Any

import numpy as np

from anyformer.errors import InputError
from anyformer.files import DAMAGE, read_file, spells_values

ARRAYS = (".npy", ".npz")
"""What the names of files with one array end in."""
COLUMNS = (".csv",)
"""And of those with columns of numbers."""


def read_array(path: str) -> np.ndarray:
    """The array of a .npy file, or the only one of a .npz; nothing that is pickled in it is run.

    Raises InputError for a file that is not there or is no array, that is cut off, or a .npz of several arrays.
    """
    content, name = _member(path)
    shape, dtype, file = _header(io.BytesIO(content), name)
    held, needed = len(content) - file.tell(), math.prod(shape) * dtype.itemsize
    # Before memory is asked for, since a few bytes of a header can ask for gigabytes.
    if held < needed:
        raise InputError(f"{name}: the file is cut off: its header says {needed:,} bytes of numbers, it has {held:,}")
    return np.load(io.BytesIO(content), allow_pickle=False)


def array_shape(path: str) -> tuple[int, ...]:
    """The shape of the array of a file, of a .npy on the disk from its header alone."""
    if path.lower().endswith(".npy") and os.path.isfile(path):
        with open(path, "rb") as file:
            return _header(file, path)[0]
    content, name = _member(path)
    return _header(io.BytesIO(content), name)[0]


def _member(path: str) -> tuple[bytes, str]:
    """The bytes of an array as .npy holds them, and what to call it."""
    content = read_file(path)
    if not path.lower().endswith(".npz"):
        return content, path
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            if len(names) != 1:
                held = ", ".join(name.removesuffix(".npy") for name in names) or "none"
                raise InputError(f"{path}: must hold one array, and holds {held}; save each in a file of its own")
            return archive.read(names[0]), f"{path}: {names[0]}"
    except DAMAGE as error:
        raise InputError(f"{path}: damaged or truncated: {error}") from None


def _header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype, IO[bytes]]:
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{name}: no array that numpy can read: {error}") from None
    if dtype.kind not in "biuf":
        raise InputError(f"{name}: must hold numbers, and holds {dtype}; save it with dtype float32")
    return shape, dtype, file


def read_columns(path: str) -> dict[str, np.ndarray]:
    """The columns of a .csv of numbers, each (rows,) float64. An empty cell is NaN.

    Their names are those of the first line; "0", "1", ... where that is of numbers too.

    Raises InputError that names the line of what is no number, or of another number of cells.
    """
    try:
        lines = [line for line in csv.reader(io.StringIO(read_file(path).decode("utf-8-sig"))) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: no CSV: {error}") from None
    if not lines:
        raise InputError(f"{path}: the file is empty")
    is_named = not all(map(_is_number, lines[0]))
    names = [name.strip() for name in lines[0]] if is_named else [str(i) for i in range(len(lines[0]))]
    rows = lines[is_named:]
    for number, row in enumerate(rows, start=1 + is_named):
        if len(row) != len(names):
            raise InputError(f"{path} line {number}: {len(row)} cells, and the first line has {len(names)}")
        if wrong := next((cell for cell in row if not _is_number(cell)), None):
            raise InputError(f"{path} line {number}: must be numbers, got {wrong!r}; leave a cell empty where none is")
    values = np.array([[float(cell) if cell.strip() else math.nan for cell in row] for row in rows], dtype=np.float64)
    return dict(zip(names, values.reshape(len(rows), len(names)).T, strict=True))


def _is_number(cell: str) -> bool:
    try:
        float(cell or "nan")
    except ValueError:
        return not cell.strip()
    return True


def is_json(record: Any) -> bool:
    """Whether a record is a text that spells a list or a dict."""
    return isinstance(record, str) and spells_values(record)


def read_json(text: str) -> Any:
    """The list or dict that a text spells. Raises InputError where it is none."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"{text[:40]!r} stands in brackets as JSON does, and is none: {error}") from None


def to_numbers(value: Any, what: str) -> np.ndarray:
    """Lists of numbers, or an array, as float64; None is NaN. Raises InputError for text, ragged lists and infinity."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{what} must be numbers in lists of equal length, got {str(value)[:60]!r}") from None
    if np.isinf(array).any():
        raise InputError(f"{what} must be finite, or NaN where a number is missing, got {array[np.isinf(array)][0]}")
    return array
