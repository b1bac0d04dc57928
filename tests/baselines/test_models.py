"""Models, and what they say of records that they have not learned from."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from anyformer.baselines import models
from anyformer.baselines.aims import aim_of
from anyformer.baselines.models import MODELS
from anyformer.tasks.targets.category import Category
from anyformer.tasks.targets.labels import Labels
from anyformer.tasks.targets.regression import Regression
from tests.helpers.given_rows import Rows

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(90, 4)) / 2


def learned(target, values):
    aim, source = aim_of("y", target), Rows([{"y": value} for value in values])
    aim.fit(source)
    return aim, aim.learned([aim.value(row) for row in source.rows])


@pytest.mark.parametrize("name", ["linear", "forest"])
@pytest.mark.parametrize("form", [np.asarray, csr_matrix])
def test_what_can_be_learned_is_learned_and_noise_is_not_taken_for_it(name: str, form: type) -> None:
    aim, y = learned(Category(), np.where(X[:, 0] > 0.2, "c", np.where(X[:, 1] > 0, "a", "b")).tolist())
    fitted = MODELS[name](aim, form(X[:60]), y[:60], seed=0)
    assert (fitted.predict(form(X[60:])).argmax(1) == y[60:]).mean() > 0.8
    assert (fitted.inner.argmax(1) == y[fitted.rows]).mean() > 0.75
    assert fitted.inner.sum(1) == pytest.approx(1)
    # Of labels that say nothing, the records that were learned from would be right, and the inner ones are not.
    noise = RANDOM.permutation(y[:60])
    fitted = MODELS[name](aim, form(X[:60]), noise, seed=0)
    assert (fitted.inner.argmax(1) == noise[fitted.rows]).mean() < 0.65


@pytest.mark.parametrize("name", ["linear", "forest"])
def test_many_classes_are_learned_with_less(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    aim, y = learned(Category(), np.where(X[:, 0] > 0.2, "c", np.where(X[:, 1] > 0, "a", "b")).tolist())
    monkeypatch.setattr(models, "MOST_WEIGHTS", 1)
    monkeypatch.setattr(models, "MANY_CLASSES", 1)
    fitted = MODELS[name](aim, X[:60], y[:60], seed=0)
    assert (fitted.predict(X[60:]).argmax(1) == y[60:]).mean() > 0.8
    assert len(fitted.rows) == (20 if name == "linear" else 60)


@pytest.mark.parametrize("name", ["linear", "forest"])
def test_numbers_that_are_missing_are_learned_from_those_that_are_there(name: str) -> None:
    numbers = np.stack([3 * X[:, 0], X[:, 1] - X[:, 2]], 1)
    given = [[a, None if i % 3 == 0 else b] for i, (a, b) in enumerate(numbers.tolist())]
    aim, y = learned(Regression(scaling="none"), given)
    fitted = MODELS[name](aim, X[:70], y[:70], seed=0)
    said = fitted.predict(X[70:])
    assert said.shape == (20, 2) and np.isfinite(fitted.inner).all()
    for column in (0, 1):
        assert np.corrcoef(said[:, column], numbers[70:, column])[0, 1] > 0.7


@pytest.mark.parametrize("name", MODELS)
def test_each_label_has_its_own_probability(name: str) -> None:
    labels = [",".join(each for each, has in zip("ab", row > 0, strict=True) if has) for row in X[:, :2]]
    aim, y = learned(Labels(), [label.split(",") if label else [] for label in labels])
    fitted = MODELS[name](aim, X[:60], y[:60], seed=0)
    p = fitted.predict(X[60:])
    assert p.shape == (30, 2) and 0 <= p.min() <= p.max() <= 1
    if name == "constant":
        assert p[0] == pytest.approx(y[:60].mean(0))
    else:
        assert ((p > 0.5) == (y[60:] > 0.5)).mean() > 0.8


def test_a_class_of_one_record_and_a_field_without_columns_are_no_errors() -> None:
    aim, y = learned(Category(), ["a"] * 5 + ["b"] * 5 + ["c"])
    fitted = MODELS["linear"](aim, X[:11], y, seed=0)
    assert fitted.predict(X).shape == (90, 3)
    said = MODELS["linear"](aim, csr_matrix((11, 0)), y, seed=0).predict(csr_matrix((2, 0)))
    assert said == pytest.approx(np.tile([5 / 11, 5 / 11, 1 / 11], (2, 1)))
