"""Values of records: what is missing, the names that values are, and numbers and JSON in the text of a cell."""

from __future__ import annotations

import ast
import json
import math
import operator
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from numbers import Number
from typing import Any

import numpy as np

from anyformer.errors import InputError

FLOAT = re.compile(r"-?(?:0|[1-9][0-9]*)\.0|-0|-?[0-9](?:\.[0-9]+)?e[+-][0-9]{1,3}")
"""How floats are written that have another name: with a sign in the exponent, where 1e5 may be anything."""


def spells_values(text: str) -> bool:
    """Whether a text is no name of a file but a list or a dict of values, as a cell of a CSV or a command line has it.

    >>> [spells_values(text) for text in ("[1, 2]", '{"age": 4}', "[1] seven.png")]
    [True, True, False]
    """
    text = text.strip()
    return text[:1] + text[-1:] in ("[]", "{}")


def is_missing(value: Any) -> bool:
    """Whether a value says nothing: what `is_absent` tells, and a text that is empty or blank."""
    return is_absent(value) or (isinstance(value, str | bytes) and not value.strip())


def is_absent(value: Any) -> bool:
    """An empty cell of a table is None, or where its column is of numbers not a number, of dates not a time."""
    return value is None or (isinstance(value, float | np.floating | np.datetime64 | date) and bool(value != value))


def name_of(value: Any, what: str, mend: str = "correct it, or leave it empty") -> str:
    """The name that a value is, of a class, a category, a group: the same whichever file or library it came through.

    Text is stripped and in NFC, so that what looks the same is the same; bytes are UTF-8. A float is written without an
    exponent and, where it is whole, without its .0; a boolean in small letters. So is the text that csv, pandas, Arrow
    and JSON write of them, each in its own way.

    what: begins the message; mend: says what to do.
    Raises InputError for what is no name: what is missing, a list, a dict or the text of one, bytes that are no text.

    >>> [name_of(value, "label") for value in (" 007", 1.0, "1.0", 0.5, True, "True", b"cat")]
    ['007', '1', '1', '0.5', 'true', 'true', 'cat']
    >>> [name_of(value, "label") for value in (1e16, "1e+10", "1e5", "-0", 1e-05)]
    ['10000000000000000', '10000000000', '1e5', '0', '0.00001']
    """
    if isinstance(value, np.generic | np.ndarray) and value.ndim == 0:
        value = value.item()
    value = decoded(value, what)
    kind = _other_kind(value)
    if kind:
        raise InputError(f"{what} must be one text or number, got {kind}, {value!r:.60}; {mend}")
    text = str(value)
    text = (text if text.isascii() else unicodedata.normalize("NFC", text)).strip()
    if text in ("True", "TRUE", "False", "FALSE"):
        return text.lower()
    if not FLOAT.fullmatch(text):
        return text
    text = format(Decimal(text), "f").removesuffix(".0")
    return "0" if text == "-0" else text


def _other_kind(value: Any) -> str:
    """What a value is that is no name; "" of one that is."""
    if is_missing(value):
        return "nothing"
    if isinstance(value, str):
        return f"the text of {kind}" if (kind := _spelt_kind(value)) else ""
    if isinstance(value, Number | date | time | timedelta):
        return ""
    return "a list" if isinstance(value, list | tuple) else "a dict" if isinstance(value, Mapping) else "an object"


def _spelt_kind(text: str) -> str:
    """What a text spells as JSON or Python writes it, if it is a list or a dict; "" of any other, as of [UNK]."""
    if not spells_values(text):
        return ""
    for read in (json.loads, ast.literal_eval):
        try:
            return "a dict" if isinstance(read(text.strip()), dict) else "a list"
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return ""


def names_of(values: Iterable[Any], what: str) -> tuple[str, ...]:
    """The names of values that are given, as of classes. Raises InputError where two have the same."""
    values = tuple(values)
    names = tuple(name_of(value, what, "correct it") for value in values)
    if twice := next((name for name, n in Counter(names).items() if n > 1), None):
        spelt = ", ".join(repr(value) for value, name in zip(values, names, strict=True) if name == twice)
        raise InputError(f"{what}: {spelt} are {twice!r} more than once; name it once")
    return names


def respelt(values: Iterable[Any], names: Iterable[str]) -> str:
    """How many texts have names of another spelling, in words; "" where none has. They belong together in order."""
    others = Counter(
        (value, name) for value, name in zip(values, names, strict=True) if isinstance(value, str) and value != name
    )
    shown = [f"{value!a} is {name!r}" for value, name in list(others)[:3]] + ["..."] * (len(others) > 3)
    n = sum(others.values())
    return f"{n:,} values are written otherwise than their names: {', '.join(shown)}" if others else ""


def decoded(value: Any, what: str) -> Any:
    """The text of bytes, as some files keep it; anything else as it is. Raises InputError for what is no UTF-8."""
    if not isinstance(value, bytes | bytearray):
        return value
    try:
        return bytes(value).decode()
    except UnicodeDecodeError:
        raise InputError(f"{what} must be a text, got bytes that are no UTF-8, {bytes(value)!r:.60}") from None


def edges_of(value: Any, sizes: tuple[int, int], names: tuple[str, str]) -> list[tuple[int, int, str]]:
    """The edges that a list gives, [from, to] or [from, to, kind] each: from, to, and the name of the kind, "" of none.

    sizes: how many there are of what they lead from and to. names: what one of these is called, as node {}.
    Raises InputError, with the number of the edge, for what is none, or leads to what is not there.

    >>> edges_of([[0, 1], [1, 1, "is"]], (2, 2), ("node {}", "node {}"))
    [(0, 1, ''), (1, 1, 'is')]
    """
    found = []
    for i, edge in enumerate(value):
        if not isinstance(edge, list | tuple | np.ndarray) or len(edge) not in (2, 3):
            raise InputError(f"edge {i} must be [from, to] or [from, to, kind], got {edge!r:.60}")
        ends = []
        for end, n, name in zip(edge, sizes, names, strict=False):
            try:
                number = operator.index(end)
            except TypeError:
                number = -1
            if isinstance(end, bool) or not 0 <= number < n:
                there = f"they are numbered from 0 to {n - 1}" if n else "there is none at all"
                raise InputError(f"edge {i}: there is no {name.format(repr(end)[:60])}; {there}")
            ends.append(number)
        kind = name_of(edge[2], f"the kind of edge {i}") if len(edge) == 3 and not is_missing(edge[2]) else ""
        found.append((*ends, kind))
    return found


def is_json(record: Any) -> bool:
    """Whether a record is a text that spells a list or a dict."""
    return isinstance(record, str) and spells_values(record)


def parse_json(text: str) -> Any:
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


def number_or_text(value: Any) -> Any:
    """The number that a text spells; anything else as it is.

    >>> number_or_text("10.5"), number_or_text("ten"), number_or_text(None)
    (10.5, 'ten', None)
    """
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


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
