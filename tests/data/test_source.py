"""Sources of records, several as one, and picks of a few."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from anyformer.data.folders import Folders
from anyformer.data.source import Joined, Pick, join_files
from anyformer.data.tables import Table
from anyformer.errors import InputError
from anyformer.model.learned_tokens import LearnedTokens
from anyformer.tokenizers.image.patches import ImagePatches
from tests.helpers.table_files import write
from tests.helpers.witnesses import Numbers

DATA = Path(os.environ.get("ANYFORMER_DATA", "data"))


def test_a_field_that_no_record_has_is_told_from_one_that_some_lack():
    few = Numbers(9).take([2, 3])
    few.require("x")
    message = r"^no record has anything in 'kinds'; there are x, kind; did you mean 'kind'\?$"
    with pytest.raises(InputError, match=message):
        few.require("kinds")


def test_records_are_told_apart_as_where_they_lie(tmp_path):
    (tmp_path / "a.csv").write_text("x,kind\n1,odd\n2,even\n3,odd\n")
    table = Table(str(tmp_path / "a.csv"))
    for part in (table.take([2]), Pick(table, "kind", ("odd",)).take([1])):
        assert (part.id_name, part.id_of(0)) == ("row", 2)
    both = Joined((table, table.take([1])))
    assert (both.id_of(0), both.id_of(3)) == (f"{table.path} row 0", f"{table.path} row 1")
    assert both.read_from() == [table.path]
    assert Numbers(9).at([table.path], ["x"]) is None and Pick(table).at([table.path], ["x"]) == table


# Picks


def test_a_pick_is_so_many_records_of_each_value_in_the_order_of_the_source():
    assert Pick(Numbers(9), "kind", ("odd",)).column("x") == [1, 3, 5, 7]
    assert Pick(Numbers(9), "x", (7, 2)).column("x") == [2, 7]
    first = Pick(Numbers(9), "kind", each=2)
    assert first.column("x") == [0, 1, 2, 3] and first.name(3) == "numbers row 3" and first[1]["kind"] == "odd"


def test_a_drawn_pick_grows_with_each_and_does_not_depend_on_other_values():
    def drawn(seed: int, each: int, *values: str) -> list[int]:
        return Pick(Numbers(99), "kind", values, each, seed).column("x")

    few, many = drawn(3, 5, "odd"), drawn(3, 20, "odd")
    assert len(set(few)) == 5 and set(few) < set(many) and few == sorted(few) != [1, 3, 5, 7, 9]
    assert [x for x in drawn(3, 5, "even", "odd") if x % 2] == few
    assert drawn(4, 5, "odd") != few


def test_a_pick_of_what_is_not_there_says_so():
    with pytest.raises(InputError, match=r"^values: no record has 'red' as its 'kind'; there are even, odd$"):
        len(Pick(Numbers(9), "kind", ("odd", "red")))
    with pytest.raises(InputError, match=r"^each: 5 records are to be picked of every 'kind', but 'odd' has 4$"):
        len(Pick(Numbers(9), "kind", each=5))
    with pytest.raises(InputError, match=r"no column 'label'; there are x, kind"):
        len(Pick(Numbers(9)))
    with pytest.raises(InputError, match=r"each must be at least 1, got 0"):
        Pick(Numbers(9), each=0)


def test_a_pick_goes_by_names(tmp_path):
    rows = [{"label": label, "x": x} for x, label in enumerate(["pos ", "pos", "cafe\u0301", None, " "])]
    table = Table(str(write(tmp_path / "t.jsonl", rows)))
    assert Pick(table, values=("pos",)).column("x") == [0, 1]
    assert Pick(table, values=("caf\u00e9 ", "pos"), each=1).column("x") == [0, 2]
    assert Pick(table).column("x") == [0, 1, 2]
    floats = Table(str(write(tmp_path / "t.parquet", [{"label": 1.0}, {"label": 2.0}, {"label": None}])))
    assert Pick(floats, values=(2, "1.0")).column("label") == [1, 2]
    with pytest.raises(InputError, match="values: '1', 1 are '1' more than once"):
        Pick(floats, values=("1", 1))
    lists = Table(str(write(tmp_path / "l.parquet", [{"label": ["a"]}])))
    with pytest.raises(InputError, match=r"l\.parquet row 0: column 'label' must be one text or number, got a list"):
        len(Pick(lists))


def test_a_source_knows_which_columns_a_field_is_read_from(tmp_path):
    table = Table(str(tmp_path / "t.csv"), {"row": ["a", "b"], "label": "b"})
    other = Folders(str(tmp_path))
    assert table.columns_of("row") == [{"a", "b"}] and Numbers(3).columns_of("x") == [{"x"}]
    both = Joined((table, other)).take([0])
    assert Pick(both).columns_of("label") == [{"b"}, {"folder"}] and both.columns_of("image") == [{"image"}, {"file"}]


def test_picks_start_from_the_folder_of_their_source(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").touch()
    assert Pick(Folders(str(tmp_path))).folder == str(tmp_path)


# Several sources, and folds


def test_joined_sources_are_one_and_keep_where_each_record_comes_from(tmp_path):
    for name, rows in (("a", 2), ("b", 3)):
        (tmp_path / name).mkdir()
        write(tmp_path / name / f"{name}.jsonl", [{"x": i, "file": f"{name}{i}.png"} for i in range(rows)])
    joined = Joined(tuple(Table(str(tmp_path / name / f"{name}.jsonl")) for name in ("a", "b")))
    assert len(joined) == 5 and joined.column("x") == [0, 1, 0, 1, 2]
    assert [joined[i]["file"] for i in range(5)] == ["a0.png", "a1.png", "b0.png", "b1.png", "b2.png"]
    assert joined.name(1).endswith("a.jsonl row 1") and joined.name(2).endswith("b.jsonl row 0")
    assert [os.path.basename(joined.folder_of(i)) for i in (1, 2)] == ["a", "b"]
    part = Pick(joined, "x", (1,)).take([1])
    assert part[0]["file"] == "b1.png" and os.path.basename(part.folder_of(0)) == "b"


# Names of files


def test_a_text_that_spells_values_is_no_file_name() -> None:
    names = {"a": "[1] seven.png", "b": "[[1, 2]]", "c": "plain"}
    fields = {"a": ImagePatches(), "b": ImagePatches(), "c": LearnedTokens()}
    assert join_files(names, "in", fields) == {"a": "in/[1] seven.png", "b": "[[1, 2]]", "c": "plain"}


@pytest.mark.parametrize(
    ("value", "joined"),
    [
        ("a.wav", "in/a.wav"),
        ({"path": "a.wav", "start": "0.5"}, {"path": "in/a.wav", "start": "0.5"}),
        ('{"path": "a.wav", "end": 2}', {"path": "in/a.wav", "end": 2}),
        (["a.png", "b.png"], ["in/a.png", "in/b.png"]),
        ('["a.png", "b.png"]', ["in/a.png", "in/b.png"]),
        ([{"path": "a.png", "bytes": None}], [{"path": "in/a.png", "bytes": None}]),
        # Where the content is there, the path is but a name.
        ({"path": "a.png", "bytes": b"x"}, {"path": "a.png", "bytes": b"x"}),
        ({"path": "a.wav", "array": [0.5]}, {"path": "a.wav", "array": [0.5]}),
        ([[0, 1], [2, 3]], [[0, 1], [2, 3]]),
        ("{no JSON}", "{no JSON}"),
        (None, None),
    ],
)
def test_a_path_inside_a_value_is_joined_as_any_other(value: object, joined: object) -> None:
    assert join_files({"a": value, "b": "b.png"}, "in", {"a": ImagePatches()}) == {"a": joined, "b": "b.png"}
