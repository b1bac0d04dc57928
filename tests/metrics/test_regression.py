import numpy as np
import pytest
import torch
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from anyformer.metrics.regression import mae, r2, rmse


def sums(true, said):
    error = said - true
    parts = [np.ones_like(true), true, true**2, error**2, np.abs(error)]
    return torch.from_numpy(np.stack([part.sum(0) for part in parts]))


def test_metrics_of_numbers_are_those_of_sklearn():
    true, said = np.random.default_rng(0).normal(size=(2, 20, 3))
    given = sums(true, said)
    assert rmse(given).tolist() == pytest.approx(mean_squared_error(true, said, multioutput="raw_values") ** 0.5)
    assert mae(given).tolist() == pytest.approx(mean_absolute_error(true, said, multioutput="raw_values"))
    assert r2(given).tolist() == pytest.approx(r2_score(true, said, multioutput="raw_values"))


def test_numbers_that_are_all_the_same_have_no_r2():
    assert r2(sums(np.full((5, 1), 3.1), np.zeros((5, 1)))).isnan()
