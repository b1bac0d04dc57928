"""Numbers and JSON in the text of a cell, and what is missing."""

from __future__ import annotations

import math
from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyformer.data.values import is_json, name_of, names_of, parse_json, respelt, to_array, to_number, to_numbers
from anyformer.errors import InputError


def test_a_text_may_spell_a_list_or_a_dict() -> None:
    assert [is_json(text) for text in (" [1]", '{"a": 1}', "a.npy", "", 3)] == [True, True, False, False, False]
    assert parse_json("[[1, null], [2, 3]]") == [[1, None], [2, 3]]
    with pytest.raises(InputError, match=r"'\[1, x\]' stands in brackets as JSON does, and is none: "):
        parse_json("[1, x]")
    with pytest.raises(InputError, match=r"stands in brackets as JSON does, and is none"):
        parse_json("[" * 100_000 + "]" * 100_000)


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
    ("values", "name"),
    [
        ((" pos", "pos\t", b"pos", bytearray(b"pos "), np.str_("pos"), np.bytes_(b"pos")), "pos"),
        (("cafe\u0301", "caf\u00e9 ", "cafe\u0301".encode()), "caf\u00e9"),
        ((1, 1.0, "1", "1.0", b"1", np.int8(1), np.float32(1), np.array(1)), "1"),
        ((True, "True", "true", "TRUE", np.True_), "true"),
        ((0.0, -0.0, "-0.0", "-0", 0), "0"),
        ((1e16, 10**16, "1e+16"), "10000000000000000"),
        ((1e-7, "1e-07", "1e-7", "0.0000001"), "0.0000001"),
        ((date(2020, 1, 2), "2020-01-02"), "2020-01-02"),
        ((Decimal("1.50"), "1.50"), "1.50"),
        (("007",), "007"),
        (("1e5",), "1e5"),
        (("[UNK]",), "[UNK]"),
    ],
)
def test_what_is_the_same_has_the_same_name(values: tuple, name: str) -> None:
    assert {name_of(value, "label") for value in values} == {name}


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (["a"], "a list"),
        (("a",), "a list"),
        ({"a": 1}, "a dict"),
        ('["a", "b"]', "the text of a list"),
        ("['a', 'b']", "the text of a list"),
        ('{"a": 1}', "the text of a dict"),
        (np.array(["a", "b"]), "an object"),
        (None, "nothing"),
        (math.nan, "nothing"),
        (" ", "nothing"),
        (b"", "nothing"),
        (np.datetime64("NaT"), "nothing"),
    ],
)
def test_what_is_no_name_is_refused(value: Any, kind: str) -> None:
    with pytest.raises(InputError, match=f"label must be one text or number, got {kind}, .*; rename it"):
        name_of(value, "label", "rename it")


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(InputError, match=r"label must be a text, got bytes that are no UTF-8, b'caf\\xe9'"):
        name_of("caf\u00e9".encode("latin-1"), "label")


@given(st.text() | st.floats(allow_nan=False) | st.integers() | st.booleans())
def test_the_name_of_a_name_is_that_name(value: Any) -> None:
    try:
        name = name_of(value, "label")
    except InputError:
        return
    assert name_of(name, "label") == name == name_of(str(value), "label")


def test_given_names_are_each_given_once() -> None:
    assert names_of([1, "b "], "classes") == ("1", "b")
    with pytest.raises(InputError, match="classes: 'pos', 'pos ' are 'pos' more than once; name it once"):
        names_of(["neg", "pos", "pos "], "classes")


def test_what_is_written_otherwise_is_counted() -> None:
    values = ["pos ", "pos", "pos ", 1.0, b"a", "cafe\u0301"]
    said = respelt(values, [name_of(value, "label") for value in values])
    assert said == "3 values are written otherwise than their names: 'pos ' is 'pos', 'cafe\\u0301' is 'caf\u00e9'"
    assert respelt(["a"], ["a"]) == ""


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
