"""Values of records: what is missing, and numbers and JSON in the text of a cell."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from anyformer.errors import InputError


def spells_values(text: str) -> bool:
    """Whether a text is no name of a file but a list or a dict of values, as a cell of a CSV or a command line has it.

    >>> [spells_values(text) for text in ("[1, 2]", '{"age": 4}', "[1] seven.png")]
    [True, True, False]
    """
    text = text.strip()
    return text[:1] + text[-1:] in ("[]", "{}")


def is_missing(value: Any) -> bool:
    """Whether a value says nothing: what `is_absent` tells, and a text that is empty or blank."""
    return is_absent(value) or (isinstance(value, str) and not value.strip())


def is_absent(value: Any) -> bool:
    """An empty cell of a table is None, or where its column is of numbers not a number."""
    return value is None or (isinstance(value, float | np.floating) and bool(value != value))


def is_json(record: Any) -> bool:
    """Whether a record is a text that spells a list or a dict."""
    return isinstance(record, str) and spells_values(record)


def read_json(text: str) -> Any:
    """The list or dict that a text spells. Raises InputError where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{text[:40]!r} stands in brackets as JSON does, and is none: {error}") from None


def to_numbers(value: Any, what: str) -> np.ndarray:
    """Lists of numbers, or an array, as float64; None is NaN. Raises InputError for text, ragged lists and infinity."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{what} must be numbers in lists of equal length, got {str(value)[:60]!r}") from None
    except OverflowError:
        raise InputError(f"{what} must be numbers below 1e308, got a whole number that is larger") from None
    if np.isinf(array).any():
        raise InputError(f"{what} must be finite, or NaN where a number is missing, got {array[np.isinf(array)][0]}")
    return array


def to_number(value: Any, what: str, mend: str = "mend it, or leave it empty") -> float:
    """A number, or the text of one; NaN as it is. Raises InputError for anything else, and for infinity.

    mend: what the message says to do.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InputError(f"{what} must hold a number, got {str(value)!r:.60}; {mend}") from None
    except OverflowError:
        raise InputError(f"{what} must hold a number below 1e308, got a whole number that is larger; {mend}") from None
    if math.isinf(number):
        raise InputError(f"{what} must hold a finite number, got {number}; {mend}")
    return number


def to_array(value: Any, what: str) -> np.ndarray:
    """Lists of numbers, or columns of a table with one each, {pixel0: 0, pixel1: 255}, in their sequence.

    Returns int64 where all are whole as they are written, bool, else float64. Raises InputError for what is no number
    or missing, and for ragged lists.
    """
    if isinstance(value, Mapping):
        if (empty := next((name for name, cell in value.items() if is_missing(cell)), None)) is not None:
            raise InputError(f"{what} must be numbers, and column {empty!r} is empty")
        value = list(value.values())
    try:
        array = np.asarray(value)
    except ValueError:
        raise InputError(f"{what} must be numbers in lists of equal length, got {str(value)[:60]!r}") from None
    # What a CSV holds is text.
    for kind in (np.int64, np.float64) if array.dtype.kind == "U" else ():
        try:
            array = array.astype(kind)
            break
        except (ValueError, OverflowError):
            continue
    if array.dtype.kind not in "bif" or not array.size:
        raise InputError(f"{what} must be numbers, in lists or in columns of their own, got {str(value)[:60]!r}")
    return array
