"""CSV and TSV: which cell is in which column, and what is refused."""

from __future__ import annotations

import csv
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyformer.data.rows.csv_rows import CsvRows, _split_by_reader, _split_regular, read_cells, split_rows
from anyformer.errors import InputError


def rows_of(path: Path, text: str) -> list[dict[str, str | None]]:
    path.write_bytes(text.encode())
    rows = CsvRows(str(path))
    return [rows[i] for i in range(len(rows))]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("text", ["\n \na\tb\n1\t2\n\n   \n\n3\t4\n\n", "a\tb\n1\t2\n3\t4", '"a"\tb\n1\t"2"\n3\t4'])
def test_blank_lines_are_passed_over_whatever_ends_a_line(tmp_path: Path, text: str, end: str) -> None:
    path = tmp_path / "t.tsv"
    assert rows_of(path, text.replace("\n", end)) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    assert list(CsvRows(str(path)).select(["b"], 0, 2)) == [("2",), ("4",)]


def test_quotation_marks_are_part_of_a_cell_that_does_not_begin_with_one(tmp_path: Path) -> None:
    text = 'size,note\n5" pipe,"a ""b"", c\nd"\n7,""\n"",x\ry\n'
    expected = [('5" pipe', 'a "b", c\nd'), ("7", None), (None, "x\ry")]
    assert rows_of(tmp_path / "t.csv", text) == [{"size": size, "note": note} for size, note in expected]


def test_in_a_table_of_one_column_a_line_of_quotation_marks_is_an_empty_cell(tmp_path: Path) -> None:
    assert rows_of(tmp_path / "t.csv", 'a\n1\n\n""\n2\n') == [{"a": "1"}, {"a": None}, {"a": "2"}]


def test_an_index_without_a_name_stays_a_column_of_none(tmp_path: Path) -> None:
    assert rows_of(tmp_path / "t.csv", ",size,label\n0,7,cat\n") == [{"": "0", "size": "7", "label": "cat"}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n\n1,2,\n", r"line 4: 3 cells, and the header has 2; name the columns that are more, or quote"),
        ("a,b\n1\n", r"line 2: 1 cells, and the header has 2; add what is missing"),
        ('a,b\n"x\ny",1\n1\n', r"line 4: 1 cells"),
        ("a\n1\n1,2\n", r"line 3: 2 cells, and the header has 1"),
        ("a,b,a\n1,2,3\n", r"several columns are called 'a'"),
        ("a,,\n1,2,3\n", r"several columns are called '' \(columns 2, 3\)"),
        ('a,b\n1,2\n"3,4\n5,6\n', r"line 3: a quoted cell has no end; is a quotation mark missing\?"),
        ('a,b\n1,2\n"3"4,5\n', r"line 3: ',' expected after '\"'; is a quotation mark missing\?"),
        ('a,b\n1,2\n"3"\r4,5\n', r"line 3: ',' expected after '\"'"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        rows_of(tmp_path / "t.csv", text)


def test_a_cell_may_be_longer_than_the_package_lets_it_be(tmp_path: Path) -> None:
    assert rows_of(tmp_path / "t.csv", f"a,b\n{'x' * 200_000},1\n")[0]["a"] == "x" * 200_000


def test_equal_labels_are_one_text_in_memory(tmp_path: Path) -> None:
    rows_of(tmp_path / "t.csv", "a,b\n" + "1,cat\n2,dog\n" * 3000)
    column = [value for (value,) in CsvRows(str(tmp_path / "t.csv")).select(["b"], 0, 6000)]
    assert column == ["cat", "dog"] * 3000
    assert len({id(value) for value in column}) == 2


@given(
    st.lists(st.sampled_from(['"', '""', ",", "\n", "\r\n", "a", " ", "é"]), max_size=24).map("".join), st.booleans()
)
def test_the_fast_way_finds_the_rows_that_the_reader_does(text: str, final: bool) -> None:
    data = text.encode()

    def spans(split, *arguments):
        try:
            found = split(data, *arguments, final)
        except csv.Error:
            return "refused"
        return None if found is None else [part.tolist() for part in found]

    expected = spans(_split_by_reader, ",", "\n")
    fast = spans(_split_regular, ord(","), ord("\n"))
    assert fast in (None, expected)
    assert spans(split_rows, ",", "\n") == expected


def test_the_fast_way_is_taken_where_cells_are_quoted() -> None:
    data = b'a,"b\nc"\r\n"d""e",""\n"f'
    ends, cells = _split_regular(data, ord(","), ord("\n"), False)
    assert np.array_equal(ends, [9, 19]) and np.array_equal(cells, [2, 2])
    assert _split_regular(b'5" pipe,1\n', ord(","), ord("\n"), True) is None


def test_cells_come_with_their_line() -> None:
    assert list(read_cells('a,b\n\n"1\n",2\n', "t.csv")) == [(1, ["a", "b"]), (4, ["1\n", "2"])]
    with pytest.raises(InputError, match=r"t.csv line 1: no CSV: unexpected end of data"):
        list(read_cells('"a', "t.csv"))


@pytest.mark.parametrize(("mark", "called"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_a_header_of_another_delimiter_is_said_with_what_to_give(tmp_path: Path, mark: str, called: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(mark.join("abc") + "\n" + mark.join("123") + "\n")
    hint = f"; the header holds {called}: give the table delimiter: {mark!a}"
    with pytest.raises(InputError) as error:
        CsvRows(str(path)).require(["b"])
    assert str(error.value).endswith(hint) and "no column 'b'" in str(error.value)
    path.write_text(mark.join("abc") + "\n" + mark.join(["1,5", "2", "3"]) + "\n")
    with pytest.raises(InputError) as error:
        CsvRows(str(path))
    assert "2 cells, and the header has 1" in str(error.value) and str(error.value).endswith(hint)
    rows = CsvRows(str(path), mark)
    assert rows[0] == {"a": "1,5", "b": "2", "c": "3"} == pickle.loads(pickle.dumps(rows))[0]


def test_a_header_that_needs_no_hint_gets_none(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a;b,c\n1,2\n")
    with pytest.raises(InputError, match=r"there are a;b, c$"):
        CsvRows(str(tmp_path / "t.csv")).require(["xyz"])
