"""The records that fields and values on the command line mean."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from anyformer.cli.records import find_records
from anyformer.errors import InputError, say_once
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


@pytest.mark.parametrize(
    ("value", "line"),
    [("in", "in: left out: .txt (1), hidden (1)"), ("in/**", "in/**: left out: .txt (1)"), ("in/*.png", None)],
)
def test_what_of_a_folder_or_pattern_is_left_out_is_said(
    folder: Path, value: str, line: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    say_once.cache_clear()
    find_records({"image": value}, FIELDS)
    said = capsys.readouterr().err.splitlines()
    assert [sorted(each.partition("out: ")[2].split(", ")) for each in said] == (
        [] if line is None else [sorted(line.partition("out: ")[2].split(", "))]
    )


@pytest.mark.parametrize("value", ["in/b.png", "absent.png", "in/[1].png", "in/a/d.txt", "in.zip/x/a/c.JPG"])
def test_anything_else_is_one_record(folder: Path, value: str) -> None:
    assert find_records({"image": value, "text": "in/*"}, FIELDS) == ([{"image": value, "text": "in/*"}], None)


def test_only_one_field_may_be_many(folder: Path) -> None:
    with pytest.raises(InputError, match=r"may be a folder, a pattern or a file of lines, got image and mask$"):
        find_records({"image": "in", "mask": "in/*"}, FIELDS)


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


def test_a_value_that_names_a_file_is_its_lines_where_the_field_reads_none(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("lines.txt").write_text("one\r\n\ntwo")
    records, field = find_records({"text": "lines.txt", "image": "in/b.png"}, FIELDS)
    assert [record["text"] for record in records] == ["one", "", "two"] and field == "text"
    assert capsys.readouterr().err.startswith("text: each line of the file lines.txt is a record; ")
    assert find_records({"text": "other.txt"}, FIELDS) == ([{"text": "other.txt"}], None)
    Path("rows.csv").write_text("text\none\n")
    with pytest.raises(InputError, match=r"field 'text': rows.csv is a table; to predict all its records give data"):
        find_records({"text": "rows.csv"}, FIELDS)
    Path("none.txt").touch()
    with pytest.raises(InputError, match=r"field 'text': none.txt is empty"):
        find_records({"text": "none.txt"}, FIELDS)
    with pytest.raises(InputError, match="only one field may be a folder, a pattern or a file of lines, got image and"):
        find_records({"image": "in", "text": "lines.txt"}, FIELDS)
