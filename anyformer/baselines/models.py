"""Models of scikit-learn, and what they say of records that they have not learned from.

The one thing that is chosen, how strongly a linear model is held back, is chosen by inner folds of the training
records.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import issparse

from anyformer.baselines.aims import Aim, Kind
from anyformer.baselines.features.features import Matrix

N_TREES, LEAST_TREES = 200, 20
MANY_CLASSES = 100
"""Classes, above which there are fewer trees in proportion, as each of their leaves has a number for each class."""
STRENGTHS = (1.0, 10.0, 100.0, 1000.0)
"""Of a logistic regression, C; of ridge its inverse, times 10. Of records whose squares add up to 1 on the average."""
MOST_WEIGHTS = 500_000
"""Of a linear model, classes times columns, above which it is fitted with one strength, the second: of a thousand
classes all would take minutes."""
N_INNER = 3
MOST_FOLDED = 2000
"""Records, above which one inner fold tells enough."""

MOST_DENSE = 20_000_000
"""Numbers of a matrix that may be held with its zeros."""

Predict = Callable[[Matrix], np.ndarray]
"""What it says of records, as `Aim.score` takes it."""


class Fitted(NamedTuple):
    predict: Predict
    inner: np.ndarray
    """What models alike say of training records that they did not learn from."""
    rows: np.ndarray
    """Which of the training records these are, (rows,)."""


def constant(aim: Aim, x: Matrix, y: np.ndarray, seed: int) -> Fitted:
    """The most frequent class, each label's share, or the mean."""
    if aim.kind == "class":
        said = np.bincount(y, minlength=aim.n) / len(y)
    else:
        said = np.nan_to_num(np.nanmean(y, 0)) if (~np.isnan(y)).any() else np.zeros(aim.n)
    return Fitted(lambda x: np.tile(said, (x.shape[0], 1)), np.tile(said, (len(y), 1)), np.arange(len(y)))


def linear(aim: Aim, x: Matrix, y: np.ndarray, seed: int) -> Fitted:
    """Logistic regression, or ridge: of a few strengths the one that is best in inner folds."""
    is_large = aim.kind != "numbers" and aim.n * x.shape[1] > MOST_WEIGHTS
    folds = list(_inner_folds(aim.kind, y, seed))[: 1 if is_large else None]
    rows = np.concatenate([held for _, held in folds])
    best: tuple[float, float, np.ndarray] | None = None
    for strength in STRENGTHS[1:2] if is_large else STRENGTHS:
        said = np.concatenate([_linear(aim, x[kept], y[kept], strength)(x[held]) for kept, held in folds])
        loss = _loss(aim.kind, said, y[rows])
        if best is None or loss < best[0]:
            best = loss, strength, said
    _, strength, inner = best
    return Fitted(_linear(aim, x, y, strength), inner, rows)


def forest(aim: Aim, x: Matrix, y: np.ndarray, seed: int) -> Fitted:
    """A random forest, whose trees tell of the records that they were not given (out of bag)."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    n_trees = max(N_TREES * MANY_CLASSES // max(aim.n, MANY_CLASSES), LEAST_TREES)
    options = {"n_estimators": n_trees, "oob_score": True, "random_state": seed, "n_jobs": -1}
    rows = np.arange(len(y))
    if issparse(x) and np.prod(x.shape) <= MOST_DENSE:
        # Which trees go through up to five times as fast, to the same result.
        x = x.toarray()
    if aim.kind == "class":
        model = RandomForestClassifier(**options).fit(x, y)
        return Fitted(
            lambda x: _spread(model.predict_proba(x), model.classes_, aim.n),
            _spread(model.oob_decision_function_, model.classes_, aim.n),
            rows,
        )
    # A label is a number from 0 to 1, whose mean in a leaf is its probability.
    of_each = []
    for column, known in _columns(y):
        model = RandomForestRegressor(max_features=1 / 3, **options).fit(x[known], y[known][:, column].squeeze())
        inner = np.full((len(y), len(column)), np.nan)
        inner[known] = model.oob_prediction_.reshape(-1, len(column))
        missing = np.flatnonzero(np.isnan(inner[:, 0]))
        if len(missing):
            inner[missing] = model.predict(x[missing]).reshape(-1, len(column))
        of_each.append((model, len(column), inner))
    return Fitted(
        lambda x: np.hstack([model.predict(x).reshape(-1, n) for model, n, _ in of_each]),
        np.hstack([inner for _, _, inner in of_each]),
        rows,
    )


MODELS = {"constant": constant, "linear": linear, "forest": forest}
NAMES: dict[str, dict[Kind, str]] = {
    "constant": {"class": "most frequent", "labels": "shares", "numbers": "mean"},
    "linear": {"class": "logistic regression", "labels": "logistic regression", "numbers": "ridge"},
    "forest": {"class": "random forest", "labels": "random forest", "numbers": "random forest"},
}


def _linear(aim: Aim, x: Matrix, y: np.ndarray, strength: float) -> Predict:
    if aim.kind == "numbers":
        return _side_by_side([_ridge(x[known], y[known][:, column], strength) for column, known in _columns(y)])
    if aim.kind == "class":
        return _logistic(x, y, strength, aim.n)
    every = [_logistic(x, column.astype(np.int64), strength, 2) for column in y.T]
    return lambda x: np.column_stack([each(x)[:, 1] for each in every])


def _ridge(x: Matrix, y: np.ndarray, strength: float) -> Predict:
    from sklearn.linear_model import Ridge

    model = Ridge(10 / strength).fit(x, y)
    return lambda x: model.predict(x).reshape(x.shape[0], -1)


def _logistic(x: Matrix, y: np.ndarray, strength: float, n: int) -> Predict:
    """y: (records,) int64, one of n classes."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    classes = np.unique(y)
    if len(classes) == 1 or not x.shape[1]:
        share = np.bincount(y, minlength=n) / len(y)
        return lambda x: np.tile(share, (x.shape[0], 1))
    with warnings.catch_warnings():
        # One that is not quite there is as good a baseline.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=strength, max_iter=100, tol=1e-3).fit(x, y)
    return lambda x: _spread(model.predict_proba(x), model.classes_, n)


def _side_by_side(every: Sequence[Predict]) -> Predict:
    return lambda x: np.hstack([each(x) for each in every])


def _columns(y: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The numbers that are predicted together, and the records in which they are known: all, or each by itself."""
    known = ~np.isnan(y)
    if known.all():
        return [(np.arange(y.shape[1]), np.arange(len(y)))]
    return [(np.array([i]), np.flatnonzero(known[:, i])) for i in range(y.shape[1])]


def _spread(p: np.ndarray, classes: np.ndarray, n: int) -> np.ndarray:
    """Probabilities of the classes that were learned among those of all, (records, n)."""
    whole = np.zeros((len(p), n))
    whole[:, classes] = np.nan_to_num(p, nan=1 / len(classes))
    return whole


def _inner_folds(kind: Kind, y: np.ndarray, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The records that are learned from, and those that are held out."""
    from sklearn.model_selection import KFold, StratifiedKFold

    n = min(N_INNER, len(y))
    is_even = kind == "class" and np.bincount(y)[np.unique(y)].min() >= n
    folds = list((StratifiedKFold if is_even else KFold)(n, shuffle=True, random_state=seed).split(np.zeros(len(y)), y))
    yield from folds[:1] if len(y) > MOST_FOLDED else folds


def _loss(kind: Kind, said: np.ndarray, y: np.ndarray) -> float:
    """What the strength is chosen by: the cross-entropy, or the squared error."""
    if kind == "class":
        return float(-np.log(np.maximum(said[np.arange(len(y)), y], 1e-9)).mean())
    if kind == "labels":
        said = said.clip(1e-9, 1 - 1e-9)
        return float(-(y * np.log(said) + (1 - y) * np.log(1 - said)).mean())
    return float(np.nanmean((said - y) ** 2))
