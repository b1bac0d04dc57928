"""Tables of what a model says of records."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from anyformer.cli.outputs import Outcome, predict_each, write_files, write_outcomes, write_table
from anyformer.errors import InputError


def predict(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    if bad := [record["x"] for record in records if "bad" in record["x"]]:
        raise InputError(f"{bad[0]} is bad")
    return [{"label": record["x"].upper(), "of": len(records)} for record in records]


def outcomes(*names: str, batch_size: int = 2) -> list[Outcome]:
    return list(predict_each(predict, [{"x": name} for name in names], batch_size))


def test_a_bad_record_holds_up_no_other() -> None:
    made = outcomes("a", "b", "bad1", "c", "d", "bad2", "e")
    assert [outcome.record["x"] for outcome in made] == ["a", "b", "bad1", "c", "d", "bad2", "e"]
    assert [outcome.result and outcome.result["label"] for outcome in made] == ["A", "B", None, "C", "D", None, "E"]
    assert [outcome.error for outcome in made if outcome.result is None] == ["bad1 is bad", "bad2 is bad"]
    assert made[0].result["of"] == 2


def test_results_come_batch_by_batch() -> None:
    asked: list[int] = []

    def watched(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        asked.append(len(records))
        return predict(records)

    results = predict_each(watched, [{"x": "a"}] * 7, 3)
    next(results)
    assert asked == [3]
    assert len(list(results)) == 6
    assert asked == [3, 3, 1]


def table(as_json: bool, *names: str) -> str:
    file = io.StringIO()
    write_outcomes(iter(outcomes(*names)), file, as_json, lambda result: {"label": result["label"]})
    return file.getvalue()


def test_a_csv_has_a_line_for_each_in_their_sequence_also_before_the_columns_are_known() -> None:
    assert table(False, "bad, 1", "b", "bad") == ('x,label,error\n"bad, 1",,"bad, 1 is bad"\nb,B,\nbad,,bad is bad\n')
    assert table(False, "bad1", "bad2") == "x,error\nbad1,bad1 is bad\nbad2,bad2 is bad\n"
    assert next(csv.DictReader(io.StringIO(table(False, 'a\n"b"'))))["x"] == 'a\n"b"'


def test_json_holds_all_of_a_result_or_its_error(tmp_path: Path) -> None:
    expected = [{"x": "a", "label": "A", "of": 1}, {"x": "bad", "error": "bad is bad"}]
    lines = table(True, "a", "bad")
    assert [json.loads(line) for line in lines.splitlines()] == expected and lines.endswith("\n")
    write_table(tmp_path / "out.json", outcomes("a", "bad"), dict)
    assert json.loads((tmp_path / "out.json").read_text()) == expected


def test_a_table_has_the_columns_of_a_row_and_the_error(tmp_path: Path) -> None:
    write_table(tmp_path / "out.parquet", outcomes("a", "bad"), lambda result: {"label": result["label"]})
    rows = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert rows == [{"x": "a", "label": "A", "error": ""}, {"x": "bad", "label": None, "error": "bad is bad"}]


def test_what_came_from_standard_input_is_named_so() -> None:
    file = io.StringIO()
    write_outcomes(iter([Outcome({"image": b"\xff"}, {"label": "A"})]), file, True, dict)
    assert json.loads(file.getvalue()) == {"image": "-", "label": "A"}


class Silent:
    """Writes of a record what its field says."""

    def predict(self, records: list[dict[str, str]], *options: object) -> list[dict[str, str]]:
        return [{"text": record["said"]} for record in records]

    def render(self, result: dict[str, str], *options: object) -> str:
        return result["text"]


def test_files_that_come_out_empty_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_files(Silent(), ([{"said": ""}], None), [], tmp_path / "one.srt", ".srt")
    assert capsys.readouterr().err == f"{tmp_path / 'one.srt'}: empty, as the model wrote nothing\n"
    write_files(Silent(), ([{"said": "a"}], None), [], tmp_path / "one.srt", ".srt")
    assert capsys.readouterr().err == "" and (tmp_path / "one.srt").read_text() == "a\n"
