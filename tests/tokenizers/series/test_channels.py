"""Channels by name or in one array, out of whatever holds them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anyformer.errors import InputError
from anyformer.tokenizers.series.series import Series
from tests.helpers.channels import WALK, X, Y


def test_columns_of_a_csv_may_spell_their_lists() -> None:
    tokenizer = Series(times="t").fit([{"t": [0, 1, 3], "x": [1, None, 2]}])
    spelt = tokenizer.encode({"t": "[0, 1, 3]", "x": "[1, null, 2]"})
    assert torch.equal(spelt.content, tokenizer.encode({"t": [0, 1, 3], "x": [1, None, 2]}).content)


def test_channels_go_by_their_names_whatever_their_sequence(tmp_path: Path) -> None:
    tokenizer = Series(width=2).fit([{"x": X, "y": None}, {"y": Y, "x": X}])
    assert (tokenizer.names, tokenizer.channels) == (("x", "y"), 2)
    (tmp_path / "turned.csv").write_text("y,x\n9,1\n5,2\n5,4\n")
    expected = tokenizer.encode([X, Y])
    for record in ({"x": X, "y": Y}, {"y": Y, "x": X}, f'{{"y": {Y}, "x": {X}}}', str(tmp_path / "turned.csv")):
        assert torch.equal(tokenizer.encode(record).content, expected.content)
    assert np.array_equal(tokenizer.mean, [np.mean(X), np.mean(Y)])
    with pytest.raises(InputError, match=r"no channel 'yy' is known; there are x, y; did you mean 'y'\?$"):
        tokenizer.encode({"x": X, "yy": Y})


@pytest.mark.parametrize("record", [{"x": X, "y": None}, {"y": None, "x": X}, {"x": X}, {"x": X, "y": ""}])
def test_a_channel_that_is_missing_is_as_one_of_missing_values(record: dict[str, Any]) -> None:
    tokenizer = Series().fit([{"x": X, "y": Y}])
    assert torch.equal(tokenizer.encode(record).content, tokenizer.encode({"x": X, "y": [None] * 3}).content)
    assert tokenizer.count(record) == 3


def test_a_csv_without_names_is_an_array(tmp_path: Path) -> None:
    (tmp_path / "plain.csv").write_text("1,9\n2,5\n4,5\n")
    tokenizer = Series().fit([[X, Y], str(tmp_path / "plain.csv")])
    assert tokenizer.names is None
    assert torch.equal(tokenizer.encode(str(tmp_path / "plain.csv")).content, tokenizer.encode([X, Y]).content)
    turned = replace(tokenizer, time_first=True)
    assert torch.equal(turned.encode(str(tmp_path / "plain.csv")).content, tokenizer.encode([X, Y]).content)


@pytest.mark.parametrize("kind", ["npy", "csv", "json", "named columns", "steps first"])
def test_a_series_is_read_from_whatever_holds_it(kind: str, tmp_path: Path) -> None:
    tokenizer, record = Series(width=2).fit([WALK]), WALK
    if kind == "npy":
        np.save(tmp_path / "walk.npy", WALK)
        record = str(tmp_path / "walk.npy")
    elif kind == "csv":
        lines = ["x,y,z", *(",".join(map(repr, row)) for row in WALK.T.tolist())]
        (tmp_path / "walk.csv").write_text("\n".join(lines))
        record = str(tmp_path / "walk.csv")
        tokenizer = Series(width=2).fit([record])
        assert tokenizer.names == ("x", "y", "z")
    elif kind == "json":
        record = str(WALK.tolist())
    elif kind == "named columns":
        tokenizer = replace(tokenizer, names=["x", "yz", "yz"])
        record = {"yz": WALK[1:].tolist(), "x": WALK[0].tolist()}
    else:
        tokenizer, record = replace(tokenizer, time_first=True), WALK.T
        assert tokenizer.decode(tokenizer.encode(record)).shape == WALK.T.shape
    assert torch.equal(tokenizer.encode(record).content, Series(width=2).fit([WALK]).encode(WALK).content)
    assert tokenizer.count(record) == 6


@pytest.mark.parametrize(
    ("options", "record", "message"),
    [
        ({}, [[]], r"a series must be \(channels, steps\) with at least one of each, got \(1, 0\)"),
        ({}, [["low"]], "a series must be numbers in lists of equal length"),
        ({}, [[1, 2], [1]], "a series must be numbers in lists of equal length"),
        ({}, [[1.0, float("inf")]], "a series must be finite, or NaN where a number is missing"),
        ({}, "gone.npy", "gone.npy: no such file"),
        ({}, {"x": [1, 2], "y": [1]}, "channels must have equally many steps, got 2, 1"),
        ({}, {"x": [1, 2], "y": [1, 2]}, "the sequence of the channels x, y is not known yet; fit to data"),
        ({"names": ["x", "y", "y"]}, {"y": [1]}, "'y' of 1 channels, and there must be 2"),
        ({}, {"x": None}, "a series must have a channel with a step, and all of them are missing"),
        ({}, [10**400], "a series must be numbers below 1e308, got a whole number that is larger"),
        ({}, {"x": 3}, "channel 'x' must be a list of numbers, got 3"),
        ({"channels": 3}, [[1, 2, 3]] * 2, "a series of 2 channels, and there must be 3; its steps come first: give"),
        ({"channels": 2}, [[1, 2, 3]], "a series of 1 channels, and there must be 2$"),
        ({"times": "t"}, [[1, 2]], "times: 't' needs records of named columns, and this one is an array"),
        ({"times": "time"}, {"times": [1], "x": [1]}, "no times 'time'; there are times, x.*did you mean 'times'"),
        ({"times": "t"}, {"t": [1, 1], "x": [1, 2]}, "times must rise, and step 1 is at 1 after 1; sort them"),
        ({"times": "t"}, {"t": [1, None], "x": [1, 2]}, "step 1 has no time; leave such steps out"),
        ({"times": "t"}, {"t": [1], "x": [1, 2]}, r"a time for each of the 2 steps, got \(1,\)"),
        ({"times": "t", "unit": 0.1}, {"t": [1e9, 1e9 + 0.1], "x": [1, 2]}, "too large to tell steps of 0.1 apart"),
    ],
)
def test_a_record_that_cannot_be_used_is_refused(options: dict[str, Any], record: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Series(**{"channels": None, "normalize": False, **options}).encode(record)
