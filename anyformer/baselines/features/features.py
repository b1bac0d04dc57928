"""A field as columns of numbers, for models that know no tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from anyformer.tokens import Tokenizer

Matrix = np.ndarray | csr_matrix
"""(records, columns) float."""


class Features(ABC):
    """What simple models read of one field.

    `read` is asked once for each record, whatever the folds; `fit` and `transform` for each training part.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """tokenizer: of the field, as its config gives it: what the data decides is not known yet."""
        self.tokenizer = tokenizer

    @abstractmethod
    def read(self, value: Any) -> Any:
        """What is kept of a record's value. Raises InputError for one that cannot be used."""

    @abstractmethod
    def fit(self, kept: Sequence[Any]) -> None:
        """Take what the training records decide: which words there are. kept: of `read`, at least one."""

    @abstractmethod
    def transform(self, kept: Sequence[Any]) -> Matrix:
        """The columns of records."""


class Imputer:
    """Fills in what is missing in vectors, NaN: a column that is missing somewhere in training has its mean there, and
    another column that says so."""

    def __init__(self, vectors: Sequence[np.ndarray]) -> None:
        """vectors: of the training records, (columns,) each."""
        values = np.stack(vectors)
        there = ~np.isnan(values)
        self._means = np.where(there, values, 0).sum(0) / there.sum(0).clip(1)
        self._flagged = np.flatnonzero(~there.all(0))

    def __call__(self, vectors: Sequence[np.ndarray]) -> np.ndarray:
        """(vectors, columns and flags)"""
        values = np.stack(vectors) if len(vectors) else np.zeros((0, len(self._means)))
        missing = np.isnan(values)
        return np.hstack([np.where(missing, self._means, values), missing[:, self._flagged]])


class Vectors(Features):
    """Features of which `read` gives the columns as they are: (columns,) float, NaN for what is missing."""

    def fit(self, kept: Sequence[np.ndarray]) -> None:
        self._imputer = Imputer(kept)

    def transform(self, kept: Sequence[np.ndarray]) -> np.ndarray:
        return self._imputer(kept)


def segments(values: np.ndarray, n: int) -> list[np.ndarray]:
    """Steps in n stretches as even as can be; of fewer steps some stretches are the same one.

    values: (steps, ...), at least one.
    """
    edges = np.linspace(0, len(values), n + 1)
    starts = np.minimum(np.floor(edges[:-1]).astype(int), len(values) - 1)
    stops = np.maximum(np.ceil(edges[1:]).astype(int), starts + 1)
    if len(values) >= n:
        bounds = edges.round().astype(int)
        starts, stops = bounds[:-1], bounds[1:]
    return [values[start:stop] for start, stop in zip(starts, stops, strict=True)]
