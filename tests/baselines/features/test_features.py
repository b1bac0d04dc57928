"""What all features have in common: missing numbers, stretches of steps."""

from __future__ import annotations

import numpy as np

from anyformer.baselines.features.features import Imputer, segments


def test_what_is_missing_has_the_mean_of_the_training_records_and_a_column_that_says_so() -> None:
    impute = Imputer([np.array([1.0, 2.0]), np.array([3.0, np.nan]), np.array([5.0, 6.0])])
    found = impute([np.array([7.0, np.nan]), np.array([np.nan, 8.0])])
    # Of the first column no training record lacks a value, so there is nothing to learn of that.
    assert found.tolist() == [[7.0, 4.0, 1.0], [3.0, 8.0, 0.0]]


def test_stretches_leave_no_step_out_and_are_never_empty() -> None:
    steps = np.arange(10)
    assert [part.tolist() for part in segments(steps, 4)] == [[0, 1], [2, 3, 4], [5, 6, 7], [8, 9]]
    for n in range(1, 12):
        parts = segments(np.arange(n), 5)
        assert len(parts) == 5 and min(map(len, parts)) > 0
        assert set(np.concatenate(parts).tolist()) == set(range(n))
