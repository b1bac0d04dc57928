import csv
import json
import tempfile
from datetime import date
from pathlib import Path

import pandas
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anyformer.data.tables import Table
from anyformer.errors import InputError
from anyformer.tasks.targets.classes import (
    balance,
    check_smoothing,
    class_index,
    class_names,
    likeliest,
    read_labels,
    sort_classes,
)
from tests.helpers.table_files import write


def test_numbers_are_sorted_as_numbers_and_names_by_the_alphabet():
    assert sort_classes(["10", "9", "-1", "9"]) == ["-1", "9", "10"]
    assert sort_classes(["10", "9", "a"]) == ["10", "9", "a"]


def test_balanced_classes_weigh_the_same_in_sum():
    labels = ["a", "a", "a", "b"]
    weights = dict(zip("ab", balance(labels, ["a", "b"]), strict=True))
    assert 3 * weights["a"] == weights["b"] == pytest.approx(2)
    assert balance(["a"], ["a", "never"]) == (0.5, 0.5)


def test_the_likeliest_class_comes_first():
    (row,) = likeliest(torch.tensor([[0.25, 0.75]]), ["no", "yes"])
    assert list(row.items()) == [("yes", 0.75), ("no", 0.25)]


def test_classes_may_be_given_as_numbers():
    assert class_names([3, "a"]) == ("3", "a") and class_names(None) is None
    assert class_index("kind", 3, ("a", "3")) == 1


def test_a_label_that_is_no_class_is_named_with_some_that_are():
    with pytest.raises(InputError, match=r"field 'kind': the label '99' was not seen .* are 0, 1, .*, \.\.\."):
        class_index("kind", 99, tuple(map(str, range(30))))


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_label_smoothing_is_a_share(smoothing):
    with pytest.raises(InputError, match=f"label_smoothing must be at least 0 and below 1, got {smoothing}"):
        check_smoothing(smoothing)


def test_classes_that_are_given_are_each_named_once():
    assert class_names([True, "pos ", 1.0]) == ("true", "pos", "1")
    with pytest.raises(InputError, match="classes: 1, '1' are '1' more than once; name it once"):
        class_names([1, "1"])
    assert class_index("kind", "cafe\u0301 ", ["tea", "caf\u00e9"]) == 1


@pytest.mark.parametrize("value", [["cat"], {"cat": 1}, '["cat", "dog"]'])
def test_several_labels_are_no_label(tmp_path, value):
    table = Table(str(write(tmp_path / "t.jsonl", [{"kind": value}])))
    with pytest.raises(
        InputError, match=r"t\.jsonl row 0: field 'kind' must be .*; several labels at once are Predict's"
    ):
        read_labels(table, "kind")
    with pytest.raises(InputError, match=r"field 'kind' must be one text or number, got .* several labels at once"):
        class_index("kind", value, ["cat"])


def test_labels_of_one_name_are_one_class_which_is_said(tmp_path, capsys):
    rows = [{"kind": kind} for kind in ("pos", "pos ", None, "cafe\u0301", "caf\u00e9", " ")]
    assert set(read_labels(Table(str(write(tmp_path / "t.jsonl", rows))), "kind")) == {"pos", "caf\u00e9"}
    said = "2 values are written otherwise than their names: 'pos ' is 'pos', 'cafe\\u0301' is 'caf\u00e9'"
    assert capsys.readouterr().err == f"column 'kind': {said}\n"


def write_each(folder, values):
    """Files of a column of values, as each library writes it."""
    plain = [value.decode() if isinstance(value, bytes) else value for value in values]
    with open(folder / "csv.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["n", "kind"], *enumerate(plain)])
    frame = pandas.DataFrame({"n": range(len(values)), "kind": plain})
    frame.to_csv(folder / "pandas.csv", index=False)
    frame.to_parquet(folder / "pandas.parquet")
    arrow = pyarrow.table({"n": range(len(values)), "kind": values})
    pyarrow.parquet.write_table(arrow, folder / "arrow.parquet")
    if not isinstance(values[0], bytes):
        pyarrow.csv.write_csv(arrow, folder / "arrow.csv")
    if not isinstance(values[0], date):
        # What a reader makes of dates in JSON is its own affair.
        lines = [json.dumps({"n": n, "kind": value}) + "\n" for n, value in enumerate(plain)]
        (folder / "json.jsonl").write_text("".join(lines), encoding="utf-8")
    return sorted(folder.iterdir())


# Letters, an accent in both forms, spaces, and what may be taken for something else.
WORDS = st.text("aB\u00e9e\u0301 7.\"',", min_size=1, max_size=4).filter(str.strip) | st.sampled_from(
    ["True", "1.0", "007", "NA", "1e5", "null"]
)
KINDS = [
    WORDS,
    WORDS.map(str.encode),
    st.integers(-(2**60), 2**60),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.dates(),
]


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(KINDS).flatmap(lambda kind: st.lists(kind, min_size=1, max_size=4)))
def test_a_label_has_the_same_name_by_every_road(values):
    with tempfile.TemporaryDirectory() as folder:
        names = {file.name: read_labels(Table(str(file)), "kind") for file in write_each(Path(folder), values)}
    assert len(names) >= 5 and len({tuple(each) for each in names.values()}) == 1, names
