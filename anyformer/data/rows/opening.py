"""Which reader a table is read by, as its name ends; and the parts of one that is a folder."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from functools import lru_cache

from anyformer.data.files import file_stamp
from anyformer.data.rows.arrow_rows import ParquetRows
from anyformer.data.rows.csv_rows import CsvRows
from anyformer.data.rows.joined_rows import JoinedRows
from anyformer.data.rows.json_rows import JsonRows
from anyformer.data.rows.rows import Rows, check_parts
from anyformer.errors import InputError

READERS = {".csv": CsvRows, ".tsv": CsvRows, ".jsonl": JsonRows, ".json": JsonRows, ".parquet": ParquetRows}
NUMBER = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d+")
"""What is another in the name of each part of a table."""


def open_rows(path: str, place: str, wanted: Collection[str] | None = None, delimiter: str | None = None) -> Rows:
    """The rows of a table. One that has not changed since it was last opened is not looked through again.

    path: what it is called; place: where it is found, a file or a folder of parts.
    wanted: the columns that will be read; all, if None.
    delimiter: what stands between the cells of a CSV or TSV; as its name ends, if None.
    Raises InputError for what is no table, cannot be read, or has no such column.
    """
    files = table_files(place)
    kind = table_ending(files[0])
    if kind is None:
        raise InputError(f"{path}: a table must end in {', '.join(READERS)}, with or without .gz")
    if delimiter is not None and READERS[kind] is not CsvRows:
        raise InputError(f"{path}: delimiter is what stands between the cells of a CSV or TSV; leave it out")
    # Those of Parquet alone are taken out of the file; the rows of others are one thing, whatever is read of them.
    taken = tuple(sorted(wanted)) if wanted is not None and kind == ".parquet" else None
    rows = _open(place, files, kind, tuple(map(file_stamp, files)), taken, delimiter)
    rows.require(wanted or ())
    return rows


@lru_cache(maxsize=8)
def _open(
    place: str,
    files: tuple[str, ...],
    kind: str,
    stamps: tuple[object, ...],
    taken: tuple[str, ...] | None,
    delimiter: str | None,
) -> Rows:
    if kind == ".parquet":
        return ParquetRows(place, files, taken)
    parts = [CsvRows(file, delimiter) if READERS[kind] is CsvRows else READERS[kind](file) for file in files]
    # Of JSON any row may lack any key.
    if READERS[kind] is CsvRows:
        check_parts(files, [part.columns() for part in parts])
    return parts[0] if len(parts) == 1 else JoinedRows(place, parts)


def table_files(place: str) -> tuple[str, ...]:
    """The files that a table consists of. place: where it is found, a file or a folder of parts."""
    return list_parts(place) if os.path.isdir(place) else (place,)


def table_ending(file: str) -> str | None:
    """What the name of a table ends in, .gz left out; None where it is that of no table."""
    ending = os.path.splitext(file.lower().removesuffix(".gz"))[1]
    return ending if ending in READERS else None


def is_parted(folder: str) -> bool:
    """Whether a folder holds the parts of tables, and neither other folders nor other files."""
    with os.scandir(folder) as entries:
        own = [entry for entry in entries if not entry.name.startswith((".", "_"))]
    return bool(own) and all(table_ending(entry.name) is not None and not entry.is_dir() for entry in own)


def list_parts(folder: str) -> tuple[str, ...]:
    """The files of a table that is a folder, as Spark and Dask write it: those whose names differ in numbers alone.

    What begins with . or _ is no part. Raises InputError where there is none, or more than one table.
    """
    names = sorted((name for name in os.listdir(folder) if not name.startswith((".", "_"))), key=_by_number)
    if not names:
        raise InputError(f"{folder}: the folder is empty; a table is a file, or a folder of its parts")
    if other := next((name for name in names if table_ending(name) is None), None):
        raise InputError(
            f"{folder}: is a folder, and {other!r} in it is no part of a table (those end in {', '.join(READERS)}); "
            "name the files of the table instead, in a list"
        )
    first, *others = dict.fromkeys(NUMBER.sub("N", name) for name in names)
    if others:
        raise InputError(
            f"{folder}: is a folder of more than one table, {first} and {others[0]}; name the files of one, in a list"
        )
    return tuple(os.path.join(folder, name) for name in names)


def _by_number(name: str) -> list[tuple[bool, int, str]]:
    """As people count: part.10 comes after part.9."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name)]
