"""Parts and folds of a source."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from anyformer.data.splits import Grouping, deal, deal_groups, describe_groups, split
from anyformer.data.tables import Table
from anyformer.errors import InputError
from tests.helpers.table_files import write
from tests.helpers.witnesses import Numbers


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


def test_two_parts_leave_one_of_each_too(tmp_path):
    rows = [{"label": label} for label in "aaabbbcccdddeee"]
    table = Table(str(write(tmp_path / "t.csv", rows)))
    rest, parts = split(table, {"test": 0.5, "validation": 0.4}, stratify="label")
    assert set(rest.column("label")) == set(parts["test"].column("label")) == set("abcde")


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


def test_values_of_one_name_are_dealt_together(tmp_path):
    rows = [{"label": label} for label in ["pos", "pos ", "neg", None] * 10]
    _, parts = split(Table(str(write(tmp_path / "t.jsonl", rows))), {"test": 0.5}, stratify="label")
    assert Counter(map(str.strip, map(str, parts["test"].column("label")))) == {"pos": 10, "neg": 5, "None": 5}
    with pytest.raises(InputError, match=r"t\.jsonl row 0: column 'label' must be one text or number, got a list"):
        split(Table(str(write(tmp_path / "t.jsonl", [{"label": ["a"]}] * 4))), {"test": 0.5}, stratify="label")
    with pytest.raises(InputError, match=r"but None has 1 \(.* row 2\)"):
        split(
            Table(str(write(tmp_path / "u.jsonl", [{"a": "1"}, {"a": "1"}, {"a": None}]))), {"test": 0.5}, stratify="a"
        )


def in_groups(sizes: list[int]) -> Numbers:
    """Numbers of which each group holds so many, mixed; half of each group are odd, as nearly as can be."""
    groups = [f"g{i}" for i, size in enumerate(sizes) for _ in range(size)]
    mixed = np.random.default_rng(0).permutation(len(groups))

    class Grouped(Numbers):
        def column(self, name: str) -> list[str]:
            return [groups[i] for i in mixed] if name == "group" else super().column(name)

    return Grouped(len(groups))


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    n_folds=st.integers(2, 4),
    seed=st.integers(0, 9),
    stratify=st.sampled_from([None, "kind"]),
)
def test_a_group_is_in_one_fold_and_every_record_too(sizes, n_folds, seed, stratify):
    source, grouping = in_groups(sizes), Grouping("group")
    if len(sizes) < n_folds:
        with pytest.raises(InputError, match=r"folds: \d+ (groups of 'group'|records) cannot be dealt into"):
            deal(source, n_folds, 0, seed, stratify, grouping)
        return
    parts = [deal(source, n_folds, fold, seed, stratify, grouping) for fold in range(n_folds)]
    assert sorted(chain(*(own.column("x") for _, own in parts))) == list(range(len(source)))
    for left, own in parts:
        assert own.column("group") and not set(own.column("group")) & set(left.column("group"))
        assert sorted(left.column("x") + own.column("x")) == list(range(len(source)))


def test_folds_of_groups_are_alike_in_size_and_values_and_drawn_by_the_seed():
    source, grouping = in_groups([3, 4, 5, 6, 7, 8, 9, 10] * 5), Grouping("group")
    for stratify in (None, "kind"):
        folds = [deal(source, 5, fold, 0, stratify, grouping)[1] for fold in range(5)]
        assert all(abs(len(own) - 52) <= 3 for own in folds)
    assert all(abs(Counter(own.column("kind"))["odd"] - 26) <= 4 for own in folds)
    other = deal(source, 5, 0, 1, "kind", grouping)[1]
    assert set(other.column("group")) != set(folds[0].column("group"))


def test_stratified_folds_of_groups_are_as_good_as_scikit_learns():
    random = np.random.default_rng(1)
    sizes, share = random.integers(1, 30, 60), random.random(60)
    groups = np.repeat(np.arange(60), sizes)
    values = (random.random(len(groups)) < share[groups]).astype(np.int64)

    def distance(part: np.ndarray) -> float:
        counts = np.array([np.bincount(values[part == fold], minlength=2) for fold in range(5)])
        return float(((counts - counts.mean(0)) ** 2 / counts.mean(0)).sum())

    theirs = np.empty_like(groups)
    for fold, (_, own) in enumerate(
        StratifiedGroupKFold(5, shuffle=True, random_state=0).split(groups, values, groups)
    ):
        theirs[own] = fold
    ours = [distance(deal_groups(groups, values, [0.2] * 5, np.random.default_rng(seed))) for seed in range(5)]
    by_chance = distance(random.integers(0, 5, 60)[groups])
    assert max(ours) < max(2 * distance(theirs), 1.0) and max(ours) < by_chance / 10


def test_fractions_take_whole_groups_and_are_come_near_to():
    source, grouping = in_groups([1, 2, 3, 4, 12] * 12), Grouping("group")
    rest, parts = split(source, {"test": 0.2, "validation": 0.1}, 0, "kind", grouping)
    groups = [set(part.column("group")) for part in (rest, *parts.values())]
    assert sum(map(len, groups)) == 60 == len(set().union(*groups))
    assert abs(len(parts["test"]) - 52.8) <= 3 and abs(len(parts["validation"]) - 26.4) <= 3
    assert abs(Counter(parts["test"].column("kind"))["odd"] - 26.4) <= 3
    # Large groups are in small parts too.
    assert max(Counter(parts["validation"].column("group")).values()) == 12
    alone = split(source, {"test": 0.2}, 0, "kind", grouping)[1]["test"]
    assert alone.indices.tolist() == parts["test"].indices.tolist()
    said = describe_groups(grouping, {"train": rest, **parts}, "kind")
    assert said.startswith("data.group: group: 60 groups: train 42 groups, ") and "; validation " in said
    assert "Shares of kind are within" in said


def test_impossible_splits_of_groups_say_why(tmp_path):
    rows = [{"who": who, "file": f"{who}/{i}.wav"} for i, who in enumerate(["ann", "bob", "ann", "bob", "cy"])]
    table = Table(str(write(tmp_path / "t.jsonl", [*rows, {"who": " ", "file": {"path": "d/e/f.wav"}}])))
    with pytest.raises(
        InputError, match=r"t.jsonl row 5: data.group: column 'who' is empty, so that the record could be"
    ):
        split(table, {"test": 0.5}, grouping=Grouping("who"))
    with pytest.raises(InputError, match=r"data.group: .*no column 'speaker'; there are who, file"):
        split(table, {"test": 0.5}, grouping=Grouping("speaker"))
    with pytest.raises(InputError, match=r"no column 'who'; there are x; name it among the columns of the source"):
        split(Table(table.path, {"x": "file"}), {"test": 0.5}, grouping=Grouping("who"))
    with pytest.raises(InputError, match=r"row 0: data.group: group_pattern 'x/' finds nothing in 'ann/0.wav'"):
        deal(table, 2, 0, grouping=Grouping("file", "x/"))
    with pytest.raises(InputError, match=r"data.group_pattern: '\(' is no regular expression: missing \)"):
        Grouping("file", "(")
    with pytest.raises(InputError, match=r"has 2 parts in brackets; put one in brackets"):
        Grouping("file", "(a)(b)")
    by_folder = Grouping("file", r"([^/]+)/[^/]+$")
    assert by_folder.names(table) == ["ann", "bob", "ann", "bob", "cy", "e"]
    assert Grouping("file", r"^\w").names(table) == list("ababcd")
    with pytest.raises(InputError, match=r"folds: 4 groups of 'file' cannot be dealt into 5 folds; ask for fewer"):
        deal(table, 5, 0, grouping=by_folder)
    with pytest.raises(InputError, match=r"test=0.01 of 6 records in 4 groups is none at all; give a larger fraction"):
        split(table, {"test": 0.01}, grouping=by_folder)
    with pytest.raises(InputError, match=r"test=0.9: no group of 'file' is left for train; give a smaller"):
        split(table.take([0, 2]), {"test": 0.9, "validation": 0.05}, grouping=by_folder)
    one, other = table.take([0, 1]), table.take([2, 4])
    with pytest.raises(InputError, match=r"1 groups of 'file' are in both data.train and data.validation: ann; take"):
        describe_groups(by_folder, {"train": one, "validation": other})
