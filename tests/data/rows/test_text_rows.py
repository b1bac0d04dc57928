"""Rows of text files: where they are found, and what the file does meanwhile."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from anyformer.data.rows import text_rows
from anyformer.data.rows.csv_rows import CsvRows
from anyformer.data.rows.json_rows import JsonRows
from anyformer.errors import InputError

KINDS = pytest.mark.parametrize(
    ("kind", "name", "head", "line"),
    [(CsvRows, "t.csv", "x,y\n", '{0},"a\n{0}"\n'), (JsonRows, "t.jsonl", "", '{{"x": "{0}", "y": "a\\n{0}"}}\n')],
)


@KINDS
def test_rows_are_the_same_wherever_pieces_and_blocks_end(tmp_path: Path, monkeypatch, kind, name, head, line) -> None:
    (tmp_path / name).write_text(head + "".join(line.format(f"{i}é") for i in range(300)), "utf-8")
    expected = [{"x": f"{i}é", "y": f"a\n{i}é"} for i in range(300)]
    for piece, block in ((7, 2**13), (64, 5), (1000, 100), (2**20, 2**13)):
        monkeypatch.setattr(text_rows, "PIECE", piece)
        monkeypatch.setattr(text_rows, "BLOCK", block)
        rows = kind(str(tmp_path / name))
        assert [rows[i] for i in range(len(rows))] == expected
        assert rows[299] == expected[299] and rows[0] == expected[0]
        assert list(rows.select(["y"], 123, 297)) == [(row["y"],) for row in expected[123:297]]


@KINDS
def test_another_process_opens_the_file_itself(tmp_path: Path, kind, name, head, line) -> None:
    (tmp_path / name).write_text(head + line.format(1) + line.format(2))
    assert pickle.loads(pickle.dumps(kind(str(tmp_path / name))))[1] == {"x": "2", "y": "a\n2"}


@KINDS
def test_what_is_no_text_is_refused_with_its_line(tmp_path: Path, kind, name, head, line) -> None:
    path = tmp_path / name
    path.write_bytes((head + line.format(1)).encode() + line.format("LATIN").encode().replace(b"LATIN", b"\xe9"))
    with pytest.raises(InputError, match=rf"{name}: cannot be read as \w+: line \d: is no UTF-8 \(invalid"):
        kind(str(path))
    path.write_bytes(b"")
    with pytest.raises(InputError, match=rf"{name}: the file is empty"):
        kind(str(path))


def test_a_byte_order_mark_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("\ufeffx,y\n1,2\n", "utf-8")
    (tmp_path / "t.jsonl").write_text('\ufeff{"x": 1}\n', "utf-8")
    assert CsvRows(str(tmp_path / "t.csv"))[0] == {"x": "1", "y": "2"}
    assert JsonRows(str(tmp_path / "t.jsonl"))[0] == {"x": 1}


def test_a_row_that_never_ends_is_not_held(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(text_rows, "LONGEST", 1000)
    monkeypatch.setattr(text_rows, "PIECE", 100)
    (tmp_path / "t.csv").write_text('x,y\n1,2\n3,"' + "4,5\n" * 1000)
    with pytest.raises(InputError, match=r"line 3: the row that begins here is longer than 1,000 bytes; is"):
        CsvRows(str(tmp_path / "t.csv"))


def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "t.csv")
    with pytest.raises(InputError, match=r"t.csv is a pipe and no file; give the path of a file"):
        CsvRows(str(tmp_path / "t.csv"))
