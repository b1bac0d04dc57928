"""The batch sampler: which samples share a batch, and in what order, within a budget of tokens.

Knows numbers of tokens alone. The order is a pure function of (seed, epoch), so that a place in it is two integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from anyformer.errors import InputError
from anyformer.packing import pack as pack_rows


class Draw(NamedTuple):
    """One place of a batch: which sample, drawn in which epoch, and its row where several share one."""

    epoch: int
    index: int
    row: int | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """Which samples stand together in a batch: a pure function of (seed, epoch). Made by `plan_batches`.

    Every epoch has the same number of batches, on every rank.
    """

    groups: np.ndarray
    """(n samples,) int64: samples of the same group are alike in length, and groups that follow one another too. All 0
    without a budget."""
    cost: np.ndarray | None
    """(n samples, stacks) int64: the longest lengths in the group of each place of the samples sorted by group."""
    rows: list[np.ndarray] | None
    """Where samples are packed, the places that share a row."""
    batch_size: int | None
    max_tokens: int | None
    n_batches: int
    """Of all ranks."""
    shuffle: bool
    seed: int
    rank: int
    world: int

    def __len__(self) -> int:
        return self.n_batches // self.world

    def epoch(self, epoch: int, start: int = 0) -> Iterator[list[Draw]]:
        """The batches of one epoch, of this rank, from number `start` on."""
        random = np.random.default_rng((self.seed, epoch)) if self.shuffle else None
        n = len(self.groups)
        sequence = np.arange(n) if random is None else random.permutation(n)
        sequence = sequence[np.argsort(self.groups[sequence], kind="stable")]
        if self.rows is not None:
            order = np.arange(len(self.rows)) if random is None else random.permutation(len(self.rows))
            parts = [[self.rows[row] for row in rows] for rows in np.array_split(order, self.n_batches)]
        else:
            # The first batch is of a random size: so all bounds move, and samples meet others than the epoch before.
            first = 1.0 if random is None or self.cost is None or self.n_batches == 1 else 1 - random.random()
            bounds = _fill(n, self.batch_size, self.max_tokens, self.cost, first)
            while len(bounds) <= self.n_batches:
                largest = int(np.diff(bounds).argmax())
                bounds.insert(largest + 1, (bounds[largest] + bounds[largest + 1]) // 2)
            parts = [[np.arange(*ends)] for ends in pairwise(bounds)]
        order = np.arange(self.n_batches)
        if random is not None and self.cost is not None:
            order = random.permutation(order)
        for number in order[self.rank :: self.world][start:].tolist():
            yield [
                Draw(epoch, index, None if self.rows is None else row)
                for row, places in enumerate(parts[number])
                for index in sequence[places].tolist()
            ]


def plan_batches(
    n_samples: int,
    *,
    batch_size: int | None = None,
    max_tokens: int | None = None,
    lengths: Sequence[int] | Sequence[Sequence[int]] | None = None,
    pack: bool = False,
    shuffle: bool = True,
    seed: int = 0,
    rank: int = 0,
    world: int = 1,
    name: Callable[[int], str] = "sample {}".format,
) -> Plan:
    """Plan batches of `batch_size` samples, or of samples of like length with at most `max_tokens` tokens, or both.

    lengths: tokens of each sample, needed for max_tokens; or, where two stacks read a sample (encoder and decoder), a
        pair for each, and samples are alike that are so in both. Lengths that differ by up to a tenth count as alike;
        padding to the longest is part of the budget.
    pack: several samples in a row as long as the longest sample; max_tokens // longest such rows are a batch.
    rank, world: each process takes every world-th batch; batches are split in two until all have the same number.
    name: says which sample a message is about.
    Raises InputError if a sample has more than max_tokens, or there are too few samples for so many processes.
    """
    groups, cost, rows = np.zeros(n_samples, dtype=np.int64), None, None
    if max_tokens is not None:
        sizes = np.maximum(np.asarray(lengths, dtype=np.int64), 1)
        sizes = sizes[:, None] if sizes.ndim == 1 else sizes
        total = sizes.sum(1)
        if n_samples and total.max() > max_tokens:
            longest = int(total.argmax())
            raise InputError(
                f"max_tokens={max_tokens} is less than the {total[longest]} tokens of {name(longest)}; "
                f"raise it to at least {total[longest]}"
            )
        groups = _alike(sizes)
        longest_of = np.zeros((groups.max(initial=0) + 1, sizes.shape[1]), dtype=np.int64)
        np.maximum.at(longest_of, groups, sizes)
        cost = longest_of[np.sort(groups)]
    if pack:
        row = int(cost.max(0, initial=1).sum())
        if row > max_tokens:
            raise InputError(
                f"max_tokens={max_tokens} is less than the {row} tokens of a row that holds the longest of both sides; "
                f"raise it to at least {row}"
            )
        rows = _fill_rows(cost)
        most, n_batches = len(rows), -(-len(rows) // (max_tokens // row))
    else:
        most, n_batches = n_samples, len(_fill(n_samples, batch_size, max_tokens, cost)) - 1
        # Wherever the first batch ends, filling the others takes as many or one more; see Plan.epoch.
        n_batches += bool(shuffle and max_tokens is not None and 1 < n_batches < n_samples)
    n_batches = -(-n_batches // world) * world
    if n_batches > most:
        raise InputError(f"{n_samples} samples cannot be shared by {world} processes; use fewer processes")
    return Plan(groups, cost, rows, batch_size, max_tokens, n_batches, shuffle, seed, rank, world)


def _alike(sizes: np.ndarray) -> np.ndarray:
    """The group of each sample, (n,), by its lengths, (n, stacks).

    Of two lengths the one that makes more tokens in all goes first. Within alike samples of that one the other rises
    and falls in turn, so that a batch that ends one group and begins the next has no long with short ones.
    """
    width = np.ceil(np.log(sizes) / np.log(1.1) - 1e-9).astype(np.int64)
    first, *others = np.argsort(-sizes.sum(0), kind="stable")
    key = width[:, first]
    for other in others:
        own, n = width[:, other], width[:, other].max(initial=0) + 1
        key = key * n + np.where(key % 2, n - 1 - own, own)
    return np.unique(key, return_inverse=True)[1]


def _fill(
    n: int, batch_size: int | None, max_tokens: int | None, cost: np.ndarray | None, first: float = 1.0
) -> list[int]:
    """Bounds of batches of the sequence sorted by group, as large as the limits allow; the first is a share of that."""
    bounds = [0]
    while (start := bounds[-1]) < n:
        size = min(batch_size or n, n - start)
        if cost is not None:
            size = min(size, max_tokens // int(cost[start].sum()))
            longest = np.maximum.accumulate(cost[start : start + size])
            padded = longest.sum(1) * np.arange(1, size + 1)
            # One sample is always within the budget, though the longest of its group on both sides may not be.
            size = max(int(np.searchsorted(padded, max_tokens, side="right")), 1)
        bounds.append(start + (size if start else math.ceil(size * first)))
    return bounds


def _fill_rows(cost: np.ndarray) -> list[np.ndarray]:
    """Pack the sequence sorted by group into rows as long as the longest: the places in each row."""
    n, longest, rows = len(cost), cost.max(0, initial=1).tolist(), []
    # Packing takes the square of the number of samples, so it is done for a few thousand at a time, a mixture each.
    n_pools = -(-n // 2048)
    for pool in range(n_pools):
        places = np.arange(pool, n, n_pools)
        row = np.asarray(pack_rows(cost[places].tolist(), longest))
        by_row = np.argsort(row, kind="stable")
        rows += np.split(places[by_row], np.flatnonzero(np.diff(row[by_row])) + 1)
    return rows
