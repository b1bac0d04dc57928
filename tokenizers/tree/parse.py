"""A parse: words and the heads they hang from, and where that puts them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from anyformer.data.values import decoded, is_json, is_missing, parse_json
from anyformer.errors import InputError

ROOT = -1
"""In the place of the head of a root."""


@dataclass(frozen=True, eq=False)
class Parse:
    """Nodes of one tree or several, each under its head. Made by `parse_heads`, or from brackets, which are sound."""

    words: tuple[str, ...]
    """What each node says, (n,)."""
    heads: np.ndarray
    """(n,) int64: the node that each hangs from, `ROOT` for none. No node is above itself."""

    @cached_property
    def depths(self) -> np.ndarray:
        """(n,) int64: how many nodes stand above each; 0 of a root."""
        return self.above.sum(1) - 1

    @cached_property
    def above(self) -> np.ndarray:
        """(n, n) bool: whether node j is node i or stands above it."""
        found = np.eye(len(self.heads), dtype=bool)
        at = self.heads
        while (at != ROOT).any():
            there = np.flatnonzero(at != ROOT)
            found[there, at[there]] = True
            at = np.where(at == ROOT, ROOT, self.heads[at])
        return found

    @cached_property
    def steps(self) -> tuple[np.ndarray, np.ndarray]:
        """(n, n) int64 each: from i up to the lowest node that is above both i and j or one of them, and from there
        down to j. Both are -1 where the two stand in different trees."""
        # How many are above both: those above both the head of i and j,
        # and i itself where it is above j.
        shared = self.above.T.astype(np.int64)
        for depth in range(1, int(self.depths.max()) + 1):
            level = np.flatnonzero(self.depths == depth)
            shared[level] += shared[self.heads[level]]
        up, down = self.depths[:, None] + 1 - shared, self.depths[None, :] + 1 - shared
        return np.where(shared, up, -1), np.where(shared, down, -1)


def parse_heads(words: Sequence[str], heads: Sequence[int], names: Sequence[str]) -> Parse:
    """The parse of one sentence.

    heads: of each word the number of its head, counted from 1, and 0 for the root.
    names: of the words, for messages: "word 3".
    Raises InputError for a head that is not there, no root or two, and words that hang from each other in a circle.
    """
    n = len(words)
    if not n:
        raise InputError("the parse has no words")
    for name, word, head in zip(names, words, heads, strict=True):
        if not 0 <= head <= n:
            raise InputError(
                f"{name}, {word!r}: its head is {head}, and the {n} words of the sentence are 1 to {n} (0 for the root)"
            )
    above = np.asarray(heads, dtype=np.int64) - 1
    _check_circles(words, above, names)
    roots = np.flatnonzero(above == ROOT)
    if len(roots) > 1:
        raise InputError(
            f"{names[roots[0]]}, {words[roots[0]]!r}, and {names[roots[1]]}, {words[roots[1]]!r}, both have head 0; "
            "a sentence has one root: give the sentences of a text apart"
        )
    return Parse(tuple(words), above)


def _check_circles(words: Sequence[str], heads: np.ndarray, names: Sequence[str]) -> None:
    """Raise InputError where words hang from each other; a sentence without a root has such words."""
    done = np.zeros(len(heads), dtype=bool)
    for start in range(len(heads)):
        way: dict[int, None] = {}
        at = start
        while at != ROOT and not done[at]:
            if at in way:
                circle = list(way)[list(way).index(at) :]
                shown = " -> ".join(repr(words[i]) for i in (*circle, at)[:8]) + (" ..." if len(circle) > 7 else "")
                none = "" if (heads == ROOT).any() else ", and no word is the root, whose head is 0"
                raise InputError(f"{names[at]}: the heads lead in a circle, {shown}{none}")
            way[at] = None
            at = int(heads[at])
        done[list(way)] = True


def join_parses(parses: Sequence[Parse]) -> Parse:
    """Several sentences as one set of trees."""
    starts = np.cumsum([0, *(len(each.words) for each in parses)])
    heads = [np.where(each.heads == ROOT, ROOT, each.heads + i) for each, i in zip(parses, starts, strict=False)]
    return Parse(tuple(word for each in parses for word in each.words), np.concatenate(heads))


def read_columns(record: Any, columns: tuple[str, str]) -> Parse:
    """The parse of columns of words and of heads: each a list, or several of them where there are several sentences;
    JSON of such; or a text with spaces between.

    columns: what they are called. Raises InputError for columns that are not there or of unlike length, and a parse
    that is none.
    """
    if is_json(record):
        record = parse_json(record)
    if not isinstance(record, Mapping):
        raise InputError(
            f"a parse must be the columns {' and '.join(columns)}, got {type(record).__name__}; give Tree format: "
            "conllu or brackets for texts of these"
        )
    words, heads = (_sentences(record.get(name), name) for name in columns)
    if len(words) != len(heads):
        raise InputError(f"{columns[0]} has {len(words)} sentences, and {columns[1]} {len(heads)}")
    return join_parses([_sentence(*both, columns) for both in zip(words, heads, strict=True)])


def _sentences(value: Any, name: str) -> list[list[Any]]:
    """The entries of a column, sentence by sentence."""
    value = decoded(value, f"column {name!r}")
    if is_missing(value):
        raise InputError(f"a parse needs a column {name!r}, and it is empty or not there; Tree's columns names the two")
    if is_json(value):
        value = parse_json(value)
    elif isinstance(value, str):
        value = value.split()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise InputError(f"column {name!r} must hold a list with an entry for each word, got {type(value).__name__}")
    nested = [isinstance(each, list | tuple) for each in value]
    if any(nested) and not all(nested):
        raise InputError(f"column {name!r} must hold a list, or a list of each sentence, and has both")
    return [list(each) for each in value] if any(nested) else [list(value)]


def _sentence(words: Sequence[Any], heads: Sequence[Any], columns: tuple[str, str]) -> Parse:
    if len(words) != len(heads):
        raise InputError(f"{columns[0]} has {len(words)} words, and {columns[1]} {len(heads)}; each word has one head")
    names = [f"word {i + 1}" for i in range(len(words))]
    for name, word in zip(names, words, strict=True):
        if not isinstance(word, str) or not word:
            raise InputError(f"{name} must be a text, got {word!r}")
    return parse_heads(words, [read_head(*each) for each in zip(heads, words, names, strict=True)], names)


def read_head(head: Any, word: str, name: str) -> int:
    """A head as its number. Raises InputError where there is none."""
    if is_missing(head) or head == "_":
        raise InputError(f"{name}, {word!r}, has no head; give the number of its head, counted from 1, 0 for the root")
    try:
        number = int(head)
        if isinstance(head, bool) or number != float(head):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{name}, {word!r}: its head must be a whole number, got {head!r:.40}") from None
    return number
