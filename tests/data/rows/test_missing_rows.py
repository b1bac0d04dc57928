"""Which values of a table are none."""

from __future__ import annotations

from pathlib import Path

from anyformer.data.rows.missing_rows import MissingRows
from anyformer.data.rows.opening import open_rows
from tests.helpers.table_files import write

ROWS = [{"a": "NA", "b": -999, "c": "NA!"}, {"a": " ? ", "b": -999.0, "c": True}, {"a": "x", "b": 0.5, "c": ["NA"]}]


def test_what_stands_for_a_missing_value_is_none_and_all_else_as_it_was(tmp_path: Path) -> None:
    path = str(write(tmp_path / "t.jsonl", ROWS))
    rows = MissingRows(open_rows(path, path), ["NA", "?", "-999"])
    expected = [{"a": None, "b": None, "c": "NA!"}, {"a": None, "b": None, "c": True}, ROWS[2]]
    assert [rows[i] for i in range(len(rows))] == expected
    assert list(rows.select(["b", "a"], 1, 3)) == [(None, None), (0.5, "x")]
    assert list(rows.columns()) == ["a", "b", "c"]


def test_a_boolean_is_no_number_and_an_empty_text_is_missing_where_it_is_named(tmp_path: Path) -> None:
    path = str(write(tmp_path / "t.jsonl", [{"a": True, "b": ""}, {"a": 1, "b": " "}]))
    assert MissingRows(open_rows(path, path), ["1"])[0] == {"a": True, "b": ""}
    rows = MissingRows(open_rows(path, path), ["1", ""])
    assert [rows[i] for i in range(2)] == [{"a": True, "b": None}, {"a": None, "b": None}]
