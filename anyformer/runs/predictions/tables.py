"""Rows of predictions as a table: CSV, JSON, JSON lines, Parquet.

Rows are dicts that need not have the same columns. A table is written from rows that can be gone through twice: the
columns and their types are known only when all have been seen, and memory holds a few rows at a time.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from anyformer.errors import InputError
from anyformer.local_files import open_file
from anyformer.saving.atomic import write_whole

KINDS = (".csv", ".jsonl", ".json", ".parquet")
"""What the name of a table may end in."""
WITH_JSON = (".jsonl", ".json")
"""Those whose values may be lists and dicts."""
ERROR = "error"
"""The column that says what is wrong with a record that was left out; it stands last."""
BATCH = 2**13
"""Rows that are in memory at once."""

Row = Mapping[str, Any]


def kind_of(output: Path) -> str:
    """What the name of a table ends in. Raises InputError where that says no format."""
    if (kind := output.suffix.lower()) not in KINDS:
        raise InputError(f"--output must end in {', '.join(KINDS)}, got {output}")
    return kind


def to_json(row: Row) -> str:
    """A row as a line of JSON; arrays are lists, and what else JSON does not know its text."""
    return json.dumps(row, default=lambda value: value.tolist() if hasattr(value, "tolist") else str(value))


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file that has one a line, as `to_json` makes them."""
    with open_file(path) as file:
        yield from map(json.loads, file)


def is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def write_table(output: Path, read: Callable[[], Iterator[Row]]) -> None:
    """Write a table so that a reader finds it whole or not at all.

    read: gives the rows, as plain values, whenever it is called. Where the file is no JSON, lists and dicts become
        texts of JSON.
    """
    kind = kind_of(output)
    write = {".csv": _write_csv, ".parquet": _write_parquet}.get(kind)
    write_whole(output, lambda part: _write_json(part, read, kind) if write is None else write(part, read))


def _write_json(part: Path, read: Callable[[], Iterator[Row]], kind: str) -> None:
    begin, between, end = ("[\n", ",\n", "\n]\n") if kind == ".json" else ("", "\n", "\n")
    with open(part, "w", encoding="utf-8") as file:
        for row in read():
            file.write(begin + to_json(row))
            begin = between
        # Of no rows at all there is still a list.
        file.write(end if begin == between else {".json": "[]\n"}.get(kind, ""))


def _write_csv(part: Path, read: Callable[[], Iterator[Row]]) -> None:
    with open(part, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        print_csv(read(), file, _kinds(read()))


def print_csv(rows: Iterable[Row], file: TextIO, columns: Iterable[str]) -> None:
    """Write rows as they come. columns: all that any of them has."""
    writer = csv.DictWriter(file, list(columns), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        if more := row.keys() - set(writer.fieldnames):
            raise InputError(f"a row has {min(more)!r}, unlike those before it; give --output FILE.csv, or --json")
        writer.writerow({name: _cell(value) for name, value in row.items()})


def _cell(value: Any) -> Any:
    return value if is_scalar(value) else to_json(value)


def _kinds(rows: Iterable[Row]) -> dict[str, set[type]]:
    """By column the types of its values, the columns in the sequence in which they first appear."""
    kinds: dict[str, set[type]] = {}
    for row in rows:
        for name, value in row.items():
            kinds.setdefault(name, set())
            if value is not None:
                kinds[name].add(type(value))
    if ERROR in kinds:
        kinds[ERROR] = kinds.pop(ERROR)
    return kinds


def _write_parquet(part: Path, read: Callable[[], Iterator[Row]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    kinds = _kinds(read())
    numbers = {frozenset([bool]): pa.bool_(), frozenset([int]): pa.int64(), frozenset([float]): pa.float64()}
    numbers[frozenset([int, float])] = pa.float64()
    types = {name: numbers.get(frozenset(found), pa.string()) for name, found in kinds.items()}
    schema, rows = pa.schema(list(types.items())), read()
    try:
        with pyarrow.parquet.ParquetWriter(part, schema) as writer:
            while some := list(islice(rows, BATCH)):
                columns = {
                    name: [_arrow_value(row.get(name), kind == pa.string()) for row in some]
                    for name, kind in types.items()
                }
                writer.write_table(pa.table(columns, schema))
    except (pa.ArrowInvalid, OverflowError) as error:
        raise InputError(f"the predictions cannot be written as Parquet ({error}); give FILE.jsonl") from None


def _arrow_value(value: Any, is_text: bool) -> Any:
    if not is_text or value is None:
        return value
    text = value if isinstance(value, str) else to_json(value)
    # Names of files may hold bytes that are no text.
    return text.encode("utf-8", "backslashreplace").decode()
