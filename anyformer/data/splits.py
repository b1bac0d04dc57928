"""Splits of a source into parts and folds, stratified and with groups kept together where asked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from anyformer.choices import Values
from anyformer.data.source import Source, names_in
from anyformer.data.values import is_json, is_missing, name_of, parse_json
from anyformer.errors import InputError


@dataclass(frozen=True)
class Grouping(Values):
    """Which group a record belongs to: the value of a column, or the part of it that a pattern finds."""

    column: str
    pattern: str | None = None
    """A regular expression. What it finds in the column's text, a file name for example, is the group; where the
    expression has a part in brackets, what that has found."""

    def __post_init__(self) -> None:
        if self.pattern is None:
            return
        try:
            n = re.compile(self.pattern).groups
        except re.error as error:
            raise InputError(f"data.group_pattern: {self.pattern!r} is no regular expression: {error}") from None
        if n > 1:
            raise InputError(
                f"data.group_pattern: {self.pattern!r} has {n} parts in brackets; put one in brackets, and others "
                "that need brackets in (?:...)"
            )

    def names(self, source: Source) -> list[str]:
        """The group of each record. Raises InputError, with the name of the record, for one that has none."""
        try:
            column = source.column(self.column)
        except InputError as error:
            also = "; name it among the columns of the source" if getattr(source, "columns", None) else ""
            raise InputError(f"data.group: {error}{also}") from None
        names = []
        for i, value in enumerate(column):
            try:
                names.append(self._name(value))
            except InputError as error:
                raise InputError(f"{source.name(i)}: data.group: {error}") from None
        return names

    def _name(self, value: Any) -> str:
        what = f"column {self.column!r}"
        if is_missing(value):
            raise InputError(f"{what} is empty, so that the record could be of any group; fill it in, or take it out")
        if self.pattern is None:
            return name_of(value, what)
        value = parse_json(value) if is_json(value) else value
        text = value.get("path") if isinstance(value, Mapping) else value
        if not isinstance(text, str):
            text = name_of(text, what)
        found = re.search(self.pattern, text)
        if found is None or not (name := found.group(found.re.groups)):
            raise InputError(f"group_pattern {self.pattern!r} finds nothing in {text!r}")
        return name


def split(
    source: Source,
    fractions: Mapping[str, float],
    seed: int = 0,
    stratify: str | None = None,
    grouping: Grouping | None = None,
) -> tuple[Source, dict[str, Source]]:
    """Take parts out of a source. Returns what is left, and the parts by name; each keeps the order of the source.

    fractions: of the whole source, taken one after another: a part never depends on those taken after it.
    stratify: a column; every part gets each of its values in proportion, and what is left at least one record of each.
    grouping: groups that are taken whole or not at all; fractions, and proportions of values, are then come near to as
        far as these allow.
    Raises InputError for a fraction outside (0, 1), too few records or groups, no such column, a value that only one
    record has.
    """
    n = len(source)
    for name, fraction in fractions.items():
        if not 0 < fraction < 1:
            raise InputError(
                f"{name} must be a fraction between 0 and 1 where it is taken out of train, got {fraction}"
            )
    if sum(fractions.values()) >= 1:
        raise InputError(f"{' and '.join(fractions)} take {sum(fractions.values()):g} of train and leave nothing of it")
    values = _values(source, stratify, grouping)
    groups = None if grouping is None else _numbers(grouping.names(source))
    left, parts = np.arange(n), {}
    for number, (name, fraction) in enumerate(fractions.items()):
        random = np.random.default_rng((seed, number))
        if groups is None:
            taken = _draw(left, values, fraction, random)
        else:
            taken = _draw_groups(left, groups, values, fraction, random)
        if not len(taken):
            which = "records" if groups is None else f"records in {len(np.unique(groups))} groups"
            raise InputError(
                f"{name}={fraction:g} of {n} {which} is none at all; give a larger fraction or more records"
            )
        parts[name] = source.take(taken)
        left = np.setdiff1d(left, taken, assume_unique=True)
        if not len(left):
            raise InputError(f"{name}={fraction:g}: no group of {grouping.column!r} is left for train; give a smaller")
    return source.take(left), parts


def _draw(left: np.ndarray, values: np.ndarray, fraction: float, random: np.random.Generator) -> np.ndarray:
    """A fraction of all records out of those that are left, of each value in proportion."""
    total = np.bincount(values)
    available = np.bincount(values[left], minlength=len(total))
    # Largest remainders: the whole shares first, then one more for those who were cut most.
    share = fraction * total
    quota = np.minimum(np.floor(share).astype(np.int64), available - 1)
    room = np.flatnonzero(quota < available - 1)
    most = room[np.argsort(-(share - quota)[room], kind="stable")]
    quota[most[: max(round(fraction * len(values)) - quota.sum(), 0)]] += 1
    drawn = random.permutation(left)
    drawn = drawn[np.argsort(values[drawn], kind="stable")]
    rank = np.arange(len(drawn)) - np.searchsorted(values[drawn], values[drawn])
    return np.sort(drawn[rank < quota[values[drawn]]])


def _draw_groups(
    left: np.ndarray, groups: np.ndarray, values: np.ndarray, fraction: float, random: np.random.Generator
) -> np.ndarray:
    """Whole groups out of those that are left, of about a fraction of all records."""
    share = min(fraction * len(groups) / len(left), 1.0)
    if share == 1.0:
        return left
    own = [np.unique(of_all[left], return_inverse=True)[1] for of_all in (groups, values)]
    return left[deal_groups(*own, [1 - share, share], random) == 1]


def deal(
    source: Source,
    n_folds: int,
    fold: int,
    seed: int = 0,
    stratify: str | None = None,
    grouping: Grouping | None = None,
) -> tuple[Source, Source]:
    """One of the folds of a cross-validation: the others' records, and its own; each keeps the order of the source.

    Every record is in one fold, and no two folds differ by more than one record in size.
    stratify: a column; nor do they in how many records they have of each of its values.
    grouping: groups of which each is in one fold; sizes and values are then as much alike as these allow.
    Raises InputError where there are fewer records or groups than folds, for no such column, a value that only one
    record has.
    """
    n = len(source)
    if n < n_folds:
        raise InputError(f"folds: {n} records cannot be dealt into {n_folds} folds; ask for fewer")
    values = _values(source, stratify, grouping)
    random = np.random.default_rng(seed)
    if grouping is not None:
        groups = _numbers(grouping.names(source))
        if (n_groups := int(groups.max()) + 1) < n_folds:
            raise InputError(
                f"folds: {n_groups} groups of {grouping.column!r} cannot be dealt into {n_folds} folds; ask for fewer"
            )
        is_own = deal_groups(groups, values, [1 / n_folds] * n_folds, random) == fold
        return source.take(np.flatnonzero(~is_own)), source.take(np.flatnonzero(is_own))
    drawn = random.permutation(n)
    # By value, so that those of each are dealt round one after another.
    drawn = drawn[np.argsort(values[drawn], kind="stable")]
    own = np.sort(drawn[fold::n_folds])
    return source.take(np.setdiff1d(np.arange(n), own, assume_unique=True)), source.take(own)


def deal_groups(
    groups: np.ndarray, values: np.ndarray, shares: Sequence[float], random: np.random.Generator
) -> np.ndarray:
    """Deal whole groups into parts that come near to certain shares of all records and of each of their values.

    One group after another, large ones first and in a sequence that is drawn among those of like size, goes to the part
    in which it lessens the most the chi-square distance between the numbers of values that the parts have and should
    have. (The greedy way of scikit-learn's StratifiedGroupKFold, for parts of any share; ours, since a part must stay
    the same whichever release of that is installed.) While a part of an equal share is empty, it is filled first.

    groups, values: numbers of each record's group and value, (n,) int64 from 0. shares: of the parts, in sum 1.
    Returns the part of each record, (n,) int64.
    """
    n_values = int(values.max()) + 1
    pairs, counts = np.unique(groups * n_values + values, return_counts=True)
    starts = np.searchsorted(pairs // n_values, np.arange(int(groups.max()) + 2))
    sizes = np.bincount(groups)
    wanted = np.outer(shares, np.bincount(values)).astype(np.float64)
    found, total = np.zeros_like(wanted), np.zeros(len(shares))
    part_of = np.empty(len(sizes), np.int64)
    drawn = random.permutation(len(sizes))
    for group in drawn[np.argsort(-np.floor(np.log2(sizes[drawn])), kind="stable")]:
        of_group = slice(starts[group], starts[group + 1])
        own, n = pairs[of_group] % n_values, counts[of_group]
        lessened = (n * (2 * (found[:, own] - wanted[:, own]) + n) / wanted[:, own]).sum(1)
        part = np.lexsort((total / shares, lessened))[0]
        part_of[group] = part
        found[part, own] += n
        total[part] += n.sum()
    return part_of[groups]


def _numbers(names: list[str]) -> np.ndarray:
    return np.unique(names, return_inverse=True)[1]


def _values(source: Source, stratify: str | None, grouping: Grouping | None = None) -> np.ndarray:
    """The value of each record in a column, as a number, (n,) int64; all 0 without a column.

    Raises InputError for a value that only one record has, which cannot be on both sides of a split; but not of groups,
    whose values are parted as far as they allow.
    """
    if stratify is None:
        return np.zeros(len(source), dtype=np.int64)
    names, values, counts = np.unique(names_in(source, stratify), return_inverse=True, return_counts=True)
    if grouping is None and (counts == 1).any():
        alone = int((counts == 1).argmax())
        name, where = str(names[alone]) or None, source.name(int((values == alone).argmax()))
        raise InputError(
            f"stratify needs at least 2 records of each {stratify!r}, but {name!r} has 1 ({where}); "
            "add records, merge it with another, or leave stratify out"
        )
    return values


def describe_groups(grouping: Grouping, parts: Mapping[str, Source], stratify: str | None = None) -> str:
    """How many groups and records each part has, and how far its values are from those of the whole, in words.

    Raises InputError where parts share a group, as those may that were not taken out of one source.
    """
    names = {part: grouping.names(source) for part, source in parts.items()}
    groups = {part: set(own) for part, own in names.items()}
    for one, other in combinations(groups, 2):
        if shared := sorted(groups[one] & groups[other]):
            shown = ", ".join(shared[:5]) + (", ..." if len(shared) > 5 else "")
            raise InputError(
                f"data.group: {len(shared):,} groups of {grouping.column!r} are in both data.{one} and data.{other}: "
                f"{shown}; take them out of one, or leave data.group out"
            )
    counts = [f"{part} {len(groups[part]):,} groups, {len(own):,} records" for part, own in names.items()]
    said = f"data.group: {grouping.column}: {len(set().union(*groups.values())):,} groups: {'; '.join(counts)}"
    if stratify is None:
        return said
    values = {part: Counter(names_in(parts[part], stratify)) for part in names}
    whole = sum(values.values(), Counter())
    n = whole.total()
    off = max(abs(own[value] / own.total() - whole[value] / n) for own in values.values() for value in whole)
    return f"{said}. Shares of {stratify} are within {off:.1%} of those of the whole, as far as whole groups allow"
