"""Several files as one table."""

from __future__ import annotations

import pytest

from anyformer.data.rows.csv_rows import CsvRows
from anyformer.data.rows.joined_rows import JoinedRows
from anyformer.data.rows.json_rows import JsonRows
from anyformer.errors import InputError


def test_rows_of_parts_are_counted_through(tmp_path) -> None:
    (tmp_path / "0.csv").write_text("a,b\n1,2\n3,4\n")
    (tmp_path / "1.csv").write_text("b,a\n")
    (tmp_path / "2.jsonl").write_text('{"b": 6, "a": 5}\n{"a": 7}\n{"c": 8, "b": 9, "a": 0}\n')
    parts = [CsvRows(str(tmp_path / "0.csv")), CsvRows(str(tmp_path / "1.csv")), JsonRows(str(tmp_path / "2.jsonl"))]
    rows = JoinedRows("t", parts)
    assert len(rows) == 5
    assert [rows[i]["a"] for i in range(5)] == ["1", "3", 5, 7, 0]
    assert list(rows.select(["b", "a"], 1, 4)) == [("4", "3"), (6, 5), (None, 7)]
    assert list(rows.columns()) == ["a", "b", "c"]
    rows.require(["a", "b"])
    with pytest.raises(InputError, match=r"0.csv: no column 'c'"):
        rows.require(["c"])
