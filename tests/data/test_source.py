"""Picks and splits."""

from __future__ import annotations

import os
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyformer.data.folders import Folders
from anyformer.data.source import Joined, Pick, join_files
from anyformer.data.splits import deal, split
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


def test_picks_start_from_the_folder_of_their_source(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").touch()
    assert Pick(Folders(str(tmp_path))).folder == str(tmp_path)


# Splits


def test_a_split_is_a_partition_that_keeps_the_order():
    rest, parts = split(Numbers(103), {"test": 0.2, "validation": 0.1}, seed=3)
    taken = [[part[i]["x"] for i in range(len(part))] for part in (rest, parts["test"], parts["validation"])]
    assert sorted(chain(*taken)) == list(range(103))
    assert [len(part) for part in taken] == [72, 21, 10]
    assert all(part == sorted(part) for part in taken)
    assert parts["test"].name(0) == f"numbers row {taken[1][0]}"


def test_the_test_part_does_not_depend_on_the_validation_part():
    _, both = split(Numbers(50), {"test": 0.2, "validation": 0.3}, seed=1)
    _, alone = split(Numbers(50), {"test": 0.2}, seed=1)
    _, other = split(Numbers(50), {"test": 0.2}, seed=2)
    assert both["test"].indices.tolist() == alone["test"].indices.tolist() != other["test"].indices.tolist()


def test_a_stratified_split_gives_every_part_each_value_in_proportion(tmp_path):
    rows = [{"label": label} for label in ["a"] * 60 + ["b"] * 30 + ["c"] * 10 + ["d"] * 2]
    table = Table(str(write(tmp_path / "t.csv", rows)))
    rest, parts = split(table, {"test": 0.2, "validation": 0.1}, stratify="label")
    assert Counter(parts["test"].column("label")) == {"a": 12, "b": 6, "c": 2}
    assert Counter(parts["validation"].column("label")) == {"a": 6, "b": 3, "c": 1}
    assert Counter(rest.column("label")) == {"a": 42, "b": 21, "c": 7, "d": 2}


@given(st.lists(st.integers(2, 9), min_size=1, max_size=6), st.floats(0.05, 0.95), st.integers(0, 5))
def test_a_stratified_split_leaves_one_of_each_and_is_off_by_less_than_one(counts, fraction, seed):
    values = [value for value, count in enumerate(counts) for _ in range(count)]

    class Values(Numbers):
        def column(self, name: str) -> list[int]:
            return values

    try:
        rest, parts = split(Values(len(values)), {"part": fraction}, seed, stratify="value")
    except InputError as error:
        assert "is none at all" in str(error)
        return
    left = Counter(rest.column("value"))
    for value, count in enumerate(counts):
        assert left[value] >= 1
        assert abs((count - left[value]) - min(fraction * count, count - 1)) < 1
    assert abs(len(parts["part"]) - min(fraction * len(values), len(values) - len(counts))) <= len(counts)


def test_impossible_splits_say_why(tmp_path):
    table = Table(str(write(tmp_path / "t.csv", [{"label": label} for label in ["a", "b", "a", "a"]])))
    with pytest.raises(
        InputError, match=r"stratify needs at least 2 records of each 'label', but 'b' has 1 \(.*t.csv row 1\)"
    ):
        split(table, {"test": 0.5}, stratify="label")
    with pytest.raises(InputError, match="no column 'kind'; there are label"):
        split(table, {"test": 0.5}, stratify="kind")
    for fraction in (0.0, 1.0, -0.5, 20.0):
        with pytest.raises(InputError, match=rf"test must be a fraction between 0 and 1 .* got {fraction}"):
            split(table, {"test": fraction})
    with pytest.raises(InputError, match="test and validation take 1 of train and leave nothing of it"):
        split(table, {"test": 0.5, "validation": 0.5})
    with pytest.raises(InputError, match=r"test=0.1 of 4 records is none at all"):
        split(table, {"test": 0.1})


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


@given(n=st.integers(2, 60), n_folds=st.integers(2, 7), seed=st.integers(0, 9))
def test_every_record_is_in_one_fold_and_folds_are_alike(n, n_folds, seed):
    source = Numbers(n)
    if n < n_folds:
        with pytest.raises(InputError, match=f"^folds: {n} records cannot be dealt into {n_folds} folds"):
            deal(source, n_folds, 0, seed)
        return
    parts = [deal(source, n_folds, fold, seed) for fold in range(n_folds)]
    assert sorted(chain(*(own.column("x") for _, own in parts))) == list(range(n))
    assert max(len(own) for _, own in parts) - min(len(own) for _, own in parts) <= 1
    for left, own in parts:
        assert sorted(left.column("x") + own.column("x")) == list(range(n))
        assert own.column("x") == sorted(own.column("x")) and left.column("x") == sorted(left.column("x"))


def test_folds_have_each_value_in_proportion_and_are_drawn_by_the_seed():
    source = Numbers(40).take([*range(1, 40, 2), *range(0, 14, 2)])
    counts = [Counter(deal(source, 5, fold, stratify="kind")[1].column("kind")) for fold in range(5)]
    assert {count["odd"] for count in counts} == {4} and {count["even"] for count in counts} <= {1, 2}
    first = deal(source, 5, 0)[1].column("x")
    assert first == deal(source, 5, 0)[1].column("x") != deal(source, 5, 0, seed=1)[1].column("x")
    with pytest.raises(InputError, match="stratify needs at least 2 records of each 'x', but '0' has 1"):
        deal(source, 5, 0, stratify="x")


# Names of files


def test_a_text_that_spells_values_is_no_file_name() -> None:
    names = {"a": "[1] seven.png", "b": "[[1, 2]]", "c": "plain"}
    fields = {"a": ImagePatches(), "b": ImagePatches(), "c": LearnedTokens()}
    assert join_files(names, "in", fields) == {"a": "in/[1] seven.png", "b": "[[1, 2]]", "c": "plain"}
