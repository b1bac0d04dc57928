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

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
# The last is no text: a carriage return at the end of a line is part of that, where a writer leaves it unquoted.
COLUMNS = {
    "text": TEXTS,
    "words": st.sampled_from(
        ["007", "NA", "null", "true", "2024-01-01", "1e3", "[1]", '5" pipe', 'a,"b"', "a\tb", "a\r\nb"]
    ),
    "whole": st.integers(-(2**63), 2**63 - 1),
    "number": st.floats(allow_nan=False, allow_infinity=False),
    "flag": st.booleans(),
    "raw": TEXTS.map(str.encode),
    "day": st.dates(datetime.date(1678, 1, 1), datetime.date(2261, 1, 1)),
}
TABLES = st.lists(
    st.fixed_dictionaries({name: st.none() | values for name, values in COLUMNS.items()}), min_size=1, max_size=5
)
TYPES = {"whole": pa.int64(), "number": pa.float64(), "flag": pa.bool_(), "day": pa.date32(), "raw": pa.binary()}
SCHEMA = pa.schema([(name, TYPES.get(name, pa.string())) for name in COLUMNS])


def as_text(value: Any) -> Any:
    """Bytes and days have no kind of their own in a text file."""
    return (
        value.decode() if isinstance(value, bytes) else value.isoformat() if isinstance(value, datetime.date) else value
    )


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


ROWS = 1_000_000
LINES = {
    "t.csv": (b"file,size,label\n", b'"a, b.png",0.125,cat\nc.png,7,dog\n'),
    "t.tsv": (b"file\tsize\tlabel\r\n", b"a.png\t0.125\tcat\r\nc.png\t7\tdog\r\n"),
    "t.jsonl": (
        b"",
        b'{"file": "a.png", "size": 0.125, "label": "cat"}\n{"file": "c.png", "size": 7, "label": "dog"}\n',
    ),
}


@pytest.mark.parametrize("name", [*LINES, "t.csv.gz", "t.parquet"])
def test_a_million_rows_are_there_at_once_and_in_little_memory(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "t.parquet":
        columns = {"file": ["a.png", "c.png"], "size": [0.125, 7.0], "label": ["cat", "dog"]}
        pyarrow.parquet.write_table(pa.table({key: part * (ROWS // 2) for key, part in columns.items()}), path)
    else:
        head, lines = LINES[name.removesuffix(".gz")]
        with gzip.open(path, "wb", 1) if name.endswith(".gz") else path.open("wb") as file:
            file.write(head + lines * (ROWS // 2))
    began = time.process_time()
    table = open_rows(name, str(path))
    assert len(table) == ROWS
    assert table[ROWS - 1]["label"] == "dog"
    # Of 2 seconds that all of a start may take.
    assert time.process_time() - began < 1.5
    path.touch()
    tracemalloc.start()
    try:
        assert len(open_rows(name, str(path))) == ROWS
        assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    finally:
        tracemalloc.stop()


# Folders, archives, and what is refused


@pytest.mark.parametrize("ending", ["csv", "jsonl.gz", "parquet"])
def test_a_folder_of_parts_is_one_table(tmp_path: Path, ending: str) -> None:
    folder = tmp_path / f"pets.{ending}"
    folder.mkdir()
    for part in (10, 9):
        write(folder / f"part-{part}.{ending}", [row | {"part": f"{part}"} for row in PETS])
    (folder / "_SUCCESS").touch()
    (folder / f".part-9.{ending}.crc").touch()
    assert is_parted(str(folder))
    table = open_rows("pets", str(folder), ["kind", "part"])
    assert len(table) == 10
    assert [table[i]["part"] for i in (0, 4, 5, 9)] == ["9", "9", "10", "10"]
    assert list(table.select(["kind"], 3, 7)) == [("cat",), ("dog",), ("dog",), ("cat",)]


def test_a_folder_of_several_tables_or_of_other_files_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the folder is empty; a table is a file, or a folder of its parts"):
        open_rows("t", str(tmp_path))
    for name in ("train-00.csv", "train-01.csv", "test-00.csv"):
        write(tmp_path / name, PETS)
    assert is_parted(str(tmp_path))
    with pytest.raises(InputError, match=r"of more than one table, test-N.csv and train-N.csv; name the files of one"):
        open_rows("t", str(tmp_path))
    (tmp_path / "1.png").touch()
    assert not is_parted(str(tmp_path))
    with pytest.raises(InputError, match=r"is a folder, and '1.png' in it is no part of a table \(those end in .csv, "):
        open_rows("t", str(tmp_path))


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
def test_parts_must_have_the_same_columns(tmp_path: Path, ending: str) -> None:
    write(tmp_path / f"part-0.{ending}", [{"file": "a", "kind": "cat"}])
    write(tmp_path / f"part-1.{ending}", [{"kind": "dog", "file": "b"}])
    rows = open_rows("t", str(tmp_path), ["file"])
    assert list(rows.select(["file"], 0, 2)) == [("a",), ("b",)]
    for row, wrong in (
        ({"file": "c", "kin": "cat"}, "lacks 'kind' and has 'kin'"),
        ({"file": "c"}, "lacks 'kind'"),
        ({"file": "c", "kind": "cat", "n": "1"}, "has 'n'"),
    ):
        write(tmp_path / f"part-2.{ending}", [row])
        with pytest.raises(InputError, match=rf"part-2.{ending}: {wrong}, unlike .*part-0.{ending}; the parts of a"):
            open_rows("t", str(tmp_path), ["file"])


def test_rows_of_json_may_lack_keys_but_no_part_what_is_read(tmp_path: Path) -> None:
    write(tmp_path / "part-0.jsonl", [{"file": "a", "kind": "cat"}, {"file": "b"}])
    write(tmp_path / "part-1.jsonl", [{"file": "c", "kin": "dog"}])
    assert len(open_rows("t", str(tmp_path), ["file"])) == 3
    with pytest.raises(InputError, match=r"part-1.jsonl: no column 'kind'; there are file, kin"):
        open_rows("t", str(tmp_path), ["kind"])


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl.gz", "t.parquet"])
def test_a_table_may_lie_in_a_zip(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, PETS)
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / name, f"in/{name}")
    table = open_rows(name, str(tmp_path / "all.zip" / "in" / name))
    assert [table[i] for i in range(len(table))] == PETS
    with pytest.raises(InputError, match=r"all.zip: holds no 'in/u.csv'"):
        open_rows(name, str(tmp_path / "all.zip" / "in" / "u.csv"))


def test_a_table_is_looked_through_again_only_once_it_has_changed(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", PETS)
    first = open_rows("t", str(path))
    assert open_rows("t", str(path), ["kind"]) is first
    write(path, PETS[:2])
    assert len(open_rows("t", str(path))) == 2
    with pytest.raises(InputError, match=r"t.csv: has changed since it was opened; leave it as it is while it is read"):
        first[0]
