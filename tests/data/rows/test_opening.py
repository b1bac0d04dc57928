"""Any table by every road: written as every format by every writer, and read as the same values."""

from __future__ import annotations

import csv
import datetime
import gzip
import json
import time
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pandas
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anyformer.data.rows.opening import is_parted, open_rows
from anyformer.errors import InputError
from tests.helpers.table_files import PETS, write

Row = dict[str, Any]

# A return at the end of the last cell is part of the line end, wherever a writer leaves it without quotes.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
COLUMNS = {
    "text": TEXTS,
    "words": st.sampled_from(["007", "NA", "null", "true", "2024-01-01", "1e3", "[1]", "5\" pipe", 'a,"b"', "a\tb", "a\r\nb"]),
    "whole": st.integers(-(2**63), 2**63 - 1),
    "number": st.floats(allow_nan=False, allow_infinity=False),
    "flag": st.booleans(),
    "day": st.dates(datetime.date(1678, 1, 1), datetime.date(2261, 1, 1)),
    "raw": TEXTS.map(str.encode),
}
TABLES = st.lists(
    st.fixed_dictionaries({name: st.none() | values for name, values in COLUMNS.items()}), min_size=1, max_size=5
)
TYPES = {"whole": pa.int64(), "number": pa.float64(), "flag": pa.bool_(), "day": pa.date32(), "raw": pa.binary()}
SCHEMA = pa.schema([(name, TYPES.get(name, pa.string())) for name in COLUMNS])


def as_text(value: Any) -> Any:
    """Bytes and days have no kind of their own in a text file."""
    return value.decode() if isinstance(value, bytes) else value.isoformat() if isinstance(value, datetime.date) else value


def spelled(rows: list[Row]) -> list[Row]:
    return [{name: as_text(value) for name, value in row.items()} for row in rows]


def frame(rows: list[Row]) -> pandas.DataFrame:
    return pandas.DataFrame(rows, columns=list(COLUMNS), dtype=object)


def by_csv(rows: list[Row], path: Path, delimiter: str = ",") -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(COLUMNS), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(spelled(rows))


def by_pandas(rows: list[Row], path: Path, delimiter: str = ",") -> None:
    frame(spelled(rows)).to_csv(path, sep=delimiter, index=False)


def by_arrow(rows: list[Row], path: Path, delimiter: str = ",") -> None:
    schema = pa.schema([field.with_type(pa.string()) if field.name == "raw" else field for field in SCHEMA])
    rows = [row | {"raw": as_text(row["raw"])} for row in rows]
    options = pyarrow.csv.WriteOptions(delimiter=delimiter)
    pyarrow.csv.write_csv(pa.Table.from_pylist(rows, schema), path, options)


@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
@pytest.mark.parametrize("writer", [by_csv, by_pandas, by_arrow])
@given(rows=TABLES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_cell_is_the_text_that_was_written(tmp_path: Path, writer, name: str, rows: list[Row]) -> None:
    writer(rows, tmp_path / name, "\t" if name == "t.tsv" else ",")
    table = open_rows(name, str(tmp_path / name))
    read = [table[i] for i in range(len(table))]
    assert read == [dict(zip(COLUMNS, row, strict=True)) for row in table.select(list(COLUMNS), 0, len(table))]
    assert [[row[name] for row in read] for name in COLUMNS] == [
        [value for (value,) in table.select([name], 0, len(table))] for name in COLUMNS
    ]
    back = {"whole": int, "number": float, "flag": lambda cell: {"true": True, "false": False}[cell.lower()]}
    for row, cells in zip(spelled(rows), read, strict=True):
        for column, value in row.items():
            cell = cells[column]
            assert (cell if cell is None else back.get(column, str)(cell)) == (None if value == "" else value)


def by_json(rows: list[Row], path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in spelled(rows)))


def by_json_as_it_is(rows: list[Row], path: Path) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\r\n" for row in spelled(rows)), "utf-8")


def by_json_in_a_list(rows: list[Row], path: Path) -> None:
    path.write_text(json.dumps(spelled(rows), indent=1))


def by_arrow_as_parquet(rows: list[Row], path: Path) -> None:
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows, SCHEMA), path, row_group_size=2)


def by_pandas_as_parquet(rows: list[Row], path: Path) -> None:
    frame(rows).to_parquet(path)


@pytest.mark.parametrize(
    ("writer", "name"),
    [
        (by_json, "t.jsonl"),
        (by_json_as_it_is, "t.json"),
        (by_json_in_a_list, "t.json"),
        (by_arrow_as_parquet, "t.parquet"),
        (by_pandas_as_parquet, "t.parquet"),
    ],
)
@given(rows=TABLES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_value_keeps_its_kind(tmp_path: Path, writer, name: str, rows: list[Row]) -> None:
    writer(rows, tmp_path / name)
    table = open_rows(name, str(tmp_path / name), COLUMNS)
    expected = spelled(rows)
    assert [table[i] for i in range(len(table))] == expected
    for column in COLUMNS:
        values = [value for (value,) in table.select([column], 0, len(table))]
        assert values == [row[column] for row in expected]
        assert list(map(type, values)) == [type(row[column]) for row in expected]
