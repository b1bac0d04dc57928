"""Shapley values (Shapley 1953): what each player adds to a game, in the mean of all sequences in which they may come.

Knows no model: a game gives a number to every set of players. Up to `EXACT` players all sets are played; above it some
sequences are drawn, each with its reverse (antithetic, Mitchell et al. 2022), and the error of the mean is told.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from anyformer.errors import InputError

EXACT = 8
"""Players up to which all of the 2^n sets are played."""
SEQUENCES = 64
"""That are drawn above it."""

Game = Callable[[np.ndarray], np.ndarray]
"""Of sets of players, (sets, n) boolean, the value of each, (sets,) float64."""


@dataclass(frozen=True)
class Shapley:
    values: np.ndarray
    """(n,); they add up to the difference between all players and none."""
    errors: np.ndarray | None
    """(n,), the standard error of each where sequences were drawn; None where the values are exact."""
    whole: float
    """The value of all players."""
    nothing: float
    """The value of none."""
    last: np.ndarray
    """(n,), what each adds where all others are there already."""
    n_played: int
    """Sets that were played."""


def n_games(n: int) -> int:
    """How many sets of n players are played, at most."""
    return 2**n if n <= EXACT else SEQUENCES * (n - 1) + 2 + n


def shapley(n: int, game: Game, seed: int = 0) -> Shapley:
    """The values of n players. seed: of the sequences that are drawn."""
    if n < 1:
        raise InputError("there is no field that could be left out")
    return _exact(n, game) if n <= EXACT else _sampled(n, game, seed)


def _exact(n: int, game: Game) -> Shapley:
    sets = np.array([[number >> i & 1 for i in range(n)] for number in range(2**n)], dtype=bool)
    value = game(sets)
    size = sets.sum(1)
    # The share of all sequences in which exactly the players of a set come before another.
    share = np.array([1 / (n * math.comb(n - 1, k)) for k in range(n)])
    values = np.zeros(n)
    for i in range(n):
        without = np.flatnonzero(~sets[:, i])
        values[i] = (share[size[without]] * (value[without + 2**i] - value[without])).sum()
    last = value[-1] - value[[2**n - 1 - 2**i for i in range(n)]]
    return Shapley(values, None, float(value[-1]), float(value[0]), last, 2**n)


def _sampled(n: int, game: Game, seed: int) -> Shapley:
    generator = np.random.default_rng(seed)
    drawn = [generator.permutation(n) for _ in range(SEQUENCES // 2)]
    sequences = [each for own in drawn for each in (own, own[::-1])]
    # By sequence the sets that come to be as the players come one by one; a set that comes twice is played once.
    steps = np.zeros((SEQUENCES, n + 1, n), dtype=bool)
    for own, sequence in zip(steps, sequences, strict=True):
        for k, player in enumerate(sequence, 1):
            own[k:, player] = True
    without_one = ~np.eye(n, dtype=bool)
    sets, where = np.unique(np.concatenate([steps.reshape(-1, n), without_one]), axis=0, return_inverse=True)
    played = game(sets)[where]
    value, last = played[:-n].reshape(SEQUENCES, n + 1), played[-n:]
    added = np.zeros((SEQUENCES, n))
    for own, sequence, along in zip(added, sequences, value, strict=True):
        own[sequence] = np.diff(along)
    # Those of a sequence and its reverse hang together: their mean is one draw.
    pairs = added.reshape(-1, 2, n).mean(1)
    errors = pairs.std(0, ddof=1) / math.sqrt(len(pairs))
    return Shapley(added.mean(0), errors, float(value[0, -1]), float(value[0, 0]), value[0, -1] - last, len(sets))
