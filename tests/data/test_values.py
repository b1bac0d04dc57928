"""Numbers and JSON in the text of a cell, and what is missing."""

from __future__ import annotations

import numpy as np
import pytest

from anyformer.data.values import is_json, read_json, to_array, to_number, to_numbers
from anyformer.errors import InputError


def test_a_text_may_spell_a_list_or_a_dict() -> None:
    assert [is_json(text) for text in (" [1]", '{"a": 1}', "a.npy", "", 3)] == [True, True, False, False, False]
    assert read_json("[[1, null], [2, 3]]") == [[1, None], [2, 3]]
    with pytest.raises(InputError, match=r"'\[1, x\]' stands in brackets as JSON does, and is none: "):
        read_json("[1, x]")
    with pytest.raises(InputError, match=r"stands in brackets as JSON does, and is none"):
        read_json("[" * 100_000 + "]" * 100_000)


def test_lists_become_numbers_and_none_is_missing() -> None:
    assert np.array_equal(to_numbers([[1, None], [2, 3]], "a series"), [[1, np.nan], [2, 3]], equal_nan=True)
    with pytest.raises(
        InputError, match=r"a series must be numbers in lists of equal length, got '\[\[1\], \[2, 3\]\]'"
    ):
        to_numbers([[1], [2, 3]], "a series")
    with pytest.raises(InputError, match=r"a series must be numbers in lists of equal length, got"):
        to_numbers(["high"], "a series")
    with pytest.raises(InputError, match=r"must be finite, or NaN where a number is missing, got -inf"):
        to_numbers([1, -np.inf], "a series")
    with pytest.raises(InputError, match=r"a series must be numbers below 1e308, got a whole number that is larger"):
        to_numbers([10**400], "a series")


def test_a_text_may_be_a_number_and_infinity_is_none() -> None:
    assert to_number(" 4.5", "the age") == 4.5 and np.isnan(to_number("nan", "the age"))
    for value, message in (
        ("four", "the age must hold a number, got 'four'; mend it, or leave it empty"),
        ([4], r"the age must hold a number, got '\[4\]'"),
        ("-inf", "the age must hold a finite number, got -inf"),
        (10**5000, "the age must hold a number below 1e308, got a whole number that is larger"),
    ):
        with pytest.raises(InputError, match=message):
            to_number(value, "the age")


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ([[0, 255]], "i", [[0, 255]]),
        ([[0, 0.5]], "f", [[0, 0.5]]),
        ([True, False], "b", [True, False]),
        ({"pixel0": "007", "pixel1": "1"}, "i", [7, 1]),
        ({"pixel0": "0.0", "pixel1": "1"}, "f", [0, 1]),
        ({"a": 3, "b": 4.5}, "f", [3, 4.5]),
        (["1e-3", "2"], "f", [0.001, 2]),
    ],
)
def test_numbers_become_an_array_of_their_kind(value: object, kind: str, expected: list[object]) -> None:
    array = to_array(value, "it")
    assert (array.dtype.kind, array.tolist()) == (kind, expected)


@pytest.mark.parametrize(
    "value", [[], ["a"], [1, None], [[1], [2, 3]], {"x": "1", "y": " "}, [2**64], [{}], ["1", "x"]]
)
def test_what_is_no_array_is_refused(value: object) -> None:
    with pytest.raises(InputError, match=r"^it must be numbers"):
        to_array(value, "it")
