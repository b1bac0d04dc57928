"""Means and deviations in one pass."""

from __future__ import annotations

import numpy as np
import pytest

from anyformer.data.moments import Moments


def test_moments_of_parts_are_those_of_the_whole() -> None:
    rows = np.random.default_rng(0).normal([1e6, 0, 1e-9], [1, 5, 1e-9], (50, 3))
    rows[::7, 1], whole = np.nan, Moments()
    for part in np.split(rows, [1, 1, 20]):
        whole.add(part)
    np.testing.assert_allclose(whole.mean, np.nanmean(rows, 0), rtol=1e-12)
    np.testing.assert_allclose(whole.std, np.nanstd(rows, 0), rtol=1e-9)
    same = Moments()
    for _ in range(3):
        same.add(np.full(1001, 0.1))
    assert (same.mean, same.std) == (pytest.approx(0.1), 1)
    empty = Moments()
    empty.add(np.zeros(0))
    assert (empty.mean, empty.std) == (0, 1)
