"""Tables of rows that need not have the same columns."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow.parquet
import pytest

from anyformer.errors import InputError
from anyformer.runs.predictions.tables import print_csv, read_rows, to_json, write_table

ROWS = [
    {"row": 0, "error": "row 0 is bad"},
    {"row": 1, "true_tags": ["a", "b"], "label": "é, \n", "p": 1, "is_new": True},
    {"row": 2, "label": "dog", "p": 0.5, "is_new": False},
]


def written(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / f"out{kind}"
    write_table(path, lambda: iter(ROWS))
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    return path


def test_a_csv_has_the_columns_of_all_rows_and_errors_last(tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(written(tmp_path, ".csv").read_text())))
    assert list(rows[0]) == ["row", "true_tags", "label", "p", "is_new", "error"]
    assert rows[0] == {"row": "0", "true_tags": "", "label": "", "p": "", "is_new": "", "error": "row 0 is bad"}
    assert (rows[1]["true_tags"], rows[1]["label"]) == ('["a", "b"]', "é, \n")


def test_json_gives_rows_back_as_they_are(tmp_path: Path) -> None:
    assert list(read_rows(written(tmp_path, ".jsonl"))) == ROWS
    path = tmp_path / "more" / "out.json"
    path.parent.mkdir()
    write_table(path, lambda: iter(ROWS))
    assert json.loads(path.read_text()) == ROWS


def test_parquet_has_a_type_for_each_column(tmp_path: Path) -> None:
    table = pyarrow.parquet.read_table(written(tmp_path, ".parquet"))
    kinds = {field.name: str(field.type) for field in table.schema}
    assert kinds == {"row": "int64", "true_tags": "string", "label": "string", "p": "double", "is_new": "bool"} | {
        "error": "string"
    }
    assert table.column("p").to_pylist() == [None, 1.0, 0.5]
    assert json.loads(table.column("true_tags")[1].as_py()) == ["a", "b"]
    with pytest.raises(InputError, match="cannot be written as Parquet"):
        write_table(tmp_path / "large.parquet", lambda: iter([{"n": 2**70}]))


def test_no_column_of_a_stream_is_lost_in_silence() -> None:
    with pytest.raises(InputError, match="a row has 'p', unlike those before it; give output FILE"):
        print_csv([{"row": 0}, {"row": 1, "p": 0.5}], io.StringIO(), ["row"])


def test_arrays_are_lists_in_json() -> None:
    numpy = pytest.importorskip("numpy")
    assert json.loads(to_json({"a": numpy.arange(3), "b": numpy.float32(0.5)})) == {"a": [0, 1, 2], "b": 0.5}
