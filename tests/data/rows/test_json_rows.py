"""JSON, by lines and in a list: values as they are, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anyformer.data.rows import text_rows
from anyformer.data.rows.json_rows import JsonRows
from anyformer.errors import InputError

ROWS = [
    {"day": "2024-01-01", "label": "yes", "n": 1},
    {"day": "2024-01-01T10:00:00Z", "label": 2, "n": 0.5},
    {"label": ["a", {"b": None}], "n": 2**70, "late": "}]\u2028\n{é"},
    {},
    {"label": True, "n": "007"},
]
SPELLINGS = {
    "lines": "\n".join(map(json.dumps, ROWS)),
    "lines of Windows with blank ones": "\r\n\r\n" + "\r\n \r\n".join(map(json.dumps, ROWS)) + "\r\n\r\n",
    "indented lines": "".join(f"  {json.dumps(row, ensure_ascii=False)} \n" for row in ROWS),
    "a list": json.dumps(ROWS),
    "an indented list": "\n" + json.dumps(ROWS, indent=4, ensure_ascii=False) + "\n\n",
}


@pytest.mark.parametrize("piece", [5, 2**20])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_value_stays_what_it_is_whatever_the_others_are(
    tmp_path: Path, monkeypatch, spelling: str, piece: int
) -> None:
    monkeypatch.setattr(text_rows, "PIECE", piece)
    (tmp_path / "t.json").write_text(SPELLINGS[spelling], "utf-8", newline="")
    rows = JsonRows(str(tmp_path / "t.json"))
    assert [rows[i] for i in range(len(rows))] == ROWS
    assert list(rows.columns()) == ["day", "label", "n", "late"]
    assert list(rows.select(["late", "n"], 1, 4)) == [(None, 0.5), (ROWS[2]["late"], 2**70), (None, None)]
    rows.require(["late"])
    with pytest.raises(InputError, match=r"t.json: no column 'lat'; there are day, label, n, late; did you mean"):
        rows.require(["day", "lat"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}\n[2]\n', r"line 2: a row must be a JSON object, .* got '\[2\]'"),
        ('{"a": 1}\n\n{"a": \n', r"line 3: a row must be a JSON object"),
        ('{\n"a": 1\n}\n', r"line 1: a row must be a JSON object, .*, on a line of its own or in one list of them"),
        ('[{"a": 1},\n{"a": 2}', r"line 2: the list of rows has no end; is the file cut off\?"),
        ('[{"a": 1},\n{"a": ', r"line 2: is no JSON: Expecting value"),
        ('[{"a": 1},\n 7]', r"line 2: a row must be a JSON object, .* got '7\]'"),
        ('[{"a": 1}]\n{"a": 2}', r"line 1: the list of rows ends here, and more follows"),
        ('[{"a": 1, "a": 2}]', r"line 1: has 'a' twice; give each value a name of its own"),
    ],
)
def test_what_is_no_table_is_refused_at_once(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.jsonl").write_text(text)
    with pytest.raises(InputError, match=f"t.jsonl: cannot be read as JSON: {message}"):
        JsonRows(str(tmp_path / "t.jsonl"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"a": 1, "a": 2}', "row 1 has 'a' twice; give each value a name of its own"),
        ('{"a": [1, 2}', "row 1 is no JSON: Expecting ',' delimiter"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "row 1 is nested too deeply"),
    ],
)
def test_a_row_that_is_damaged_inside_is_refused_when_it_is_read(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "t.jsonl").write_text('{"a": 1}\n' + line)
    rows = JsonRows(str(tmp_path / "t.jsonl"))
    assert rows[0] == {"a": 1}
    with pytest.raises(InputError, match=f"t.jsonl: cannot be read as JSON: {message}"):
        rows[1]
