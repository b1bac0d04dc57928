"""Splits of a source into parts and folds, stratified where asked."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from anyformer.data.source import Source, names_in
from anyformer.errors import InputError


def split(
    source: Source, fractions: Mapping[str, float], seed: int = 0, stratify: str | None = None
) -> tuple[Source, dict[str, Source]]:
    """Take parts out of a source. Returns what is left, and the parts by name; each keeps the order of the source.

    fractions: of the whole source, taken one after another: a part never depends on those taken after it.
    stratify: a column; every part gets each of its values in proportion, and what is left at least one record of each.
    Raises InputError for a fraction outside (0, 1), too few records, no such column, a value that only one record has.
    """
    n = len(source)
    for name, fraction in fractions.items():
        if not 0 < fraction < 1:
            raise InputError(
                f"{name} must be a fraction between 0 and 1 where it is taken out of train, got {fraction}"
            )
    if sum(fractions.values()) >= 1:
        raise InputError(f"{' and '.join(fractions)} take {sum(fractions.values()):g} of train and leave nothing of it")
    values = _values(source, stratify)
    left, parts = np.arange(n), {}
    for number, (name, fraction) in enumerate(fractions.items()):
        wanted = round(fraction * n)
        random = np.random.default_rng((seed, number))
        total = np.bincount(values)
        available = np.bincount(values[left], minlength=len(total))
        # Largest remainders: the whole shares first, then one more for those who were cut most.
        share = fraction * total
        quota = np.minimum(np.floor(share).astype(np.int64), available - 1)
        room = np.flatnonzero(quota < available - 1)
        most = room[np.argsort(-(share - quota)[room], kind="stable")]
        quota[most[: max(wanted - quota.sum(), 0)]] += 1
        drawn = random.permutation(left)
        drawn = drawn[np.argsort(values[drawn], kind="stable")]
        rank = np.arange(len(drawn)) - np.searchsorted(values[drawn], values[drawn])
        taken = np.sort(drawn[rank < quota[values[drawn]]])
        if not len(taken):
            raise InputError(
                f"{name}={fraction:g} of {n} records is none at all; give a larger fraction or more records"
            )
        parts[name] = source.take(taken)
        left = np.setdiff1d(left, taken, assume_unique=True)
    return source.take(left), parts


def deal(source: Source, n_folds: int, fold: int, seed: int = 0, stratify: str | None = None) -> tuple[Source, Source]:
    """One of the folds of a cross-validation: the others' records, and its own; each keeps the order of the source.

    Every record is in one fold, and no two folds differ by more than one record in size.
    stratify: a column; nor do they in how many records they have of each of its values.
    Raises InputError where there are fewer records than folds, for no such column, a value that only one record has.
    """
    n = len(source)
    if n < n_folds:
        raise InputError(f"folds: {n} records cannot be dealt into {n_folds} folds; ask for fewer")
    values = _values(source, stratify)
    drawn = np.random.default_rng(seed).permutation(n)
    # By value, so that those of each are dealt round one after another.
    drawn = drawn[np.argsort(values[drawn], kind="stable")]
    own = np.sort(drawn[fold::n_folds])
    return source.take(np.setdiff1d(np.arange(n), own, assume_unique=True)), source.take(own)


def _values(source: Source, stratify: str | None) -> np.ndarray:
    """The value of each record in a column, as a number, (n,) int64; all 0 without a column.

    Raises InputError for a value that only one record has, which cannot be on both sides of a split.
    """
    if stratify is None:
        return np.zeros(len(source), dtype=np.int64)
    names, values, counts = np.unique(names_in(source, stratify), return_inverse=True, return_counts=True)
    if (counts == 1).any():
        alone = int((counts == 1).argmax())
        name, where = str(names[alone]) or None, source.name(int((values == alone).argmax()))
        raise InputError(
            f"stratify needs at least 2 records of each {stratify!r}, but {name!r} has 1 ({where}); "
            "add records, merge it with another, or leave stratify out"
        )
    return values
