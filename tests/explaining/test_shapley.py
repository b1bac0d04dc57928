"""Shapley values against their definition."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from anyformer.errors import InputError
from anyformer.explaining.shapley import EXACT, n_games, shapley


def table(n: int, seed: int = 0):
    values = np.random.default_rng(seed).normal(size=2**n)
    return lambda sets: values[(sets * 2 ** np.arange(n)).sum(1)]


def test_they_are_the_mean_over_all_sequences() -> None:
    n, game = 4, table(4)
    by_hand = np.zeros(n)
    for sequence in permutations(range(n)):
        present = np.zeros((1, n), dtype=bool)
        for player in sequence:
            before = game(present)[0]
            present[0, player] = True
            by_hand[player] += (game(present)[0] - before) / 24
    found = shapley(n, game)
    np.testing.assert_allclose(found.values, by_hand, atol=1e-12)
    assert found.errors is None
    assert found.n_played == n_games(4) == 16


@pytest.mark.parametrize("n", [1, 3, EXACT, EXACT + 3])
def test_they_add_up_to_the_difference_between_all_and_none(n: int) -> None:
    game = table(n)
    found = shapley(n, game)
    whole, nothing = game(np.array([[True] * n, [False] * n]))
    np.testing.assert_allclose(found.values.sum(), whole - nothing, atol=1e-9)
    assert (found.whole, found.nothing) == (whole, nothing)
    np.testing.assert_allclose(found.last, whole - game(~np.eye(n, dtype=bool)))


def test_players_alike_share_and_one_that_adds_nothing_gets_nothing() -> None:
    for n in (4, EXACT + 2):
        found = shapley(n, lambda sets: 3.0 * (sets[:, 0] | sets[:, 1]) + sets[:, 2])
        np.testing.assert_allclose(found.values[2:], [1, *[0] * (n - 3)], atol=1e-12)
        np.testing.assert_allclose(found.values[:2].sum(), 3)
        assert abs(found.values[0] - found.values[1]) < (1e-9 if n == 4 else 1e-6)


def test_above_the_exact_the_error_is_that_of_the_mean() -> None:
    n = EXACT + 2
    weights = np.random.default_rng(1).normal(size=(n, n))

    def game(sets: np.ndarray) -> np.ndarray:
        return np.einsum("si,ij,sj->s", sets, weights, sets) + (sets[:, 0] & sets[:, 1] & sets[:, 2])

    true = (weights + weights.T).sum(1) / 2
    true[:3] += 1 / 3
    found = [shapley(n, game, seed) for seed in range(20)]
    away = np.array([each.values - true for each in found])
    told = np.array([each.errors for each in found])
    # Over many draws the errors that are told are those that are made.
    assert 0.5 < np.sqrt((away**2).mean()) / np.sqrt((told**2).mean()) < 2
    assert max(each.n_played for each in found) <= n_games(n) < 2**n


def test_without_players_there_is_nothing_to_share() -> None:
    with pytest.raises(InputError, match="no field that could be left out"):
        shapley(0, table(1))
