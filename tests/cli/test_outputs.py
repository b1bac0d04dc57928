"""Records out of fields and values, and tables of what a model says of them."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from anyformer.cli.outputs import Outcome, predict_each, write_outcomes
from anyformer.cli.records import find_records
from anyformer.errors import InputError
from anyformer.tokenizers.image.patches import ImagePatches
from tests.helpers.witnesses import Ids

FIELDS = {"image": ImagePatches(), "mask": ImagePatches(), "text": Ids()}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a folder of pictures and others, and a zip of it."""
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a/c.JPG", "a/d.txt", ".hidden.png", "[1].png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    with zipfile.ZipFile("in.zip", "w") as archive:
        archive.write("in/a/c.JPG", "x/a/c.JPG")
    return tmp_path


def test_values_that_are_spelt_out_are_no_pattern() -> None:
    for value in ("[[1, 2]]", '{"t": [0, 1]}'):
        assert find_records({"image": value}, FIELDS) == ([{"image": value}], None)


@pytest.mark.parametrize(
    ("value", "files"),
    [
        ("in", ["in/[1].png", "in/a/c.JPG", "in/b.png"]),
        ("in/a", ["in/a/c.JPG"]),
        ("in.zip", ["in.zip/x/a/c.JPG"]),
        ("in.zip/x/a", ["in.zip/x/a/c.JPG"]),
        ("in/*", ["in/[1].png", "in/b.png"]),
        ("in/**", ["in/[1].png", "in/a/c.JPG", "in/b.png"]),
        ("in/a/*.txt", ["in/a/d.txt"]),
    ],
)
def test_a_folder_a_zip_or_a_pattern_is_many_records(folder: Path, value: str, files: list[str]) -> None:
    records, field = find_records({"text": "in", "image": value, "mask": "in/b.png"}, FIELDS)
    assert records == [{"text": "in", "image": file, "mask": "in/b.png"} for file in files]
    assert field == "image"


@pytest.mark.parametrize("value", ["in/b.png", "absent.png", "in/[1].png", "in/a/d.txt", "in.zip/x/a/c.JPG"])
def test_anything_else_is_one_record(folder: Path, value: str) -> None:
    assert find_records({"image": value, "text": "in/*"}, FIELDS) == ([{"image": value, "text": "in/*"}], None)


def test_only_one_field_may_be_many(folder: Path) -> None:
    with pytest.raises(InputError, match=r"^only one field may be a folder or a pattern, got image and mask$"):
        find_records({"image": "in", "mask": "in/*"}, FIELDS)


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


def table(kind: str, *names: str) -> str:
    file = io.StringIO()
    write_outcomes(iter(outcomes(*names)), file, kind, lambda result: {"label": result["label"]})
    return file.getvalue()


def test_a_csv_has_a_line_for_each_in_their_sequence_also_before_the_columns_are_known() -> None:
    assert table("csv", "bad, 1", "b", "bad") == ('x,label,error\n"bad, 1",,"bad, 1 is bad"\nb,B,\nbad,,bad is bad\n')
    assert table("csv", "bad1", "bad2") == "x,error\nbad1,bad1 is bad\nbad2,bad2 is bad\n"
    assert next(csv.DictReader(io.StringIO(table("csv", 'a\n"b"'))))["x"] == 'a\n"b"'


def test_json_holds_all_of_a_result_or_its_error() -> None:
    expected = [{"x": "a", "label": "A", "of": 1}, {"x": "bad", "error": "bad is bad"}]
    lines = table("jsonl", "a", "bad")
    assert [json.loads(line) for line in lines.splitlines()] == expected and lines.endswith("\n")
    assert json.loads(table("json", "a", "bad")) == expected


def test_standard_input_is_a_file_or_a_record_for_each_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def pipe(content: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))

    pipe(b"\x89PNG\xff")
    records, field = find_records({"image": "-", "text": "a"}, FIELDS)
    assert records == [{"image": b"\x89PNG\xff", "text": "a"}] and field is None
    pipe("one\r\n\nthrée".encode())
    assert find_records({"text": "-"}, FIELDS) == ([{"text": "one"}, {"text": ""}, {"text": "thrée"}], "text")
    pipe(b"")
    with pytest.raises(InputError, match="field 'text': standard input is empty"):
        find_records({"text": "-"}, FIELDS)
    with pytest.raises(InputError, match=r"only one field may be standard input \(-\), got image and text"):
        find_records({"image": "-", "text": "-"}, FIELDS)
    file = io.StringIO()
    write_outcomes(iter([Outcome({"image": b"\xff"}, {"label": "A"})]), file, "jsonl", dict)
    assert json.loads(file.getvalue()) == {"image": "-", "label": "A"}
