"""Fields of examples as matrices, one or several side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, hstack, issparse

from anyformer.baselines.features.features import Features, Matrix
from anyformer.baselines.features.table import features_of
from anyformer.tokens import Tokenizer


class Block:
    """The columns of one field, of the records that lack it too.

    Of numbers each column has mean 0 and deviation 1 in training; and of all the mean over the training records of the
    sum of their squares is 1, so that no field outweighs another. A record that lacks the field is 0, and where there
    are such in training a column says which.
    """

    def __init__(self, tokenizer: Tokenizer, kept: Sequence[Any]) -> None:
        """kept: what the features have read of the training records, None where missing."""
        there = [each for each in kept if each is not None]
        self._features: Features = features_of(tokenizer)
        self._features.fit(there)
        self._flagged = len(there) < len(kept)
        self._mean, self._scale, self._size = 0.0, 1.0, 1.0
        found = self._features.transform(there)
        if not issparse(found):
            deviation = found.std(0)
            self._mean, self._scale = found.mean(0), np.where(deviation > 1e-12, deviation, 1.0)
        found = self._scaled(found)
        squares = found.multiply(found).sum() if issparse(found) else (found**2).sum()
        self._size = float(np.sqrt(squares / len(there))) or 1.0

    def _scaled(self, found: Matrix) -> Matrix:
        return (found if issparse(found) else (found - self._mean) / self._scale) / self._size

    def matrix(self, kept: Sequence[Any]) -> Matrix:
        there = np.array([each is not None for each in kept], dtype=bool)
        found = self._scaled(self._features.transform([each for each in kept if each is not None]))
        if there.all() and not self._flagged:
            return found
        if issparse(found):
            # Each record that has the field, at its row.
            rows = csr_matrix((np.ones(there.sum()), (np.flatnonzero(there), np.arange(there.sum()))),
                              shape=(len(kept), int(there.sum())))  # fmt: skip
            whole = rows @ found
        else:
            whole = np.zeros((len(kept), found.shape[1]))
            whole[there] = found
        return side_by_side([whole, (~there).astype(float)[:, None]]) if self._flagged else whole


def side_by_side(matrices: Sequence[Matrix]) -> Matrix:
    if len(matrices) == 1:
        return matrices[0]
    return csr_matrix(hstack(matrices)) if any(map(issparse, matrices)) else np.hstack(matrices)


def field_sets(fields: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Each field alone, and all together."""
    return [*((name,) for name in fields), *([tuple(fields)] if len(fields) > 1 else [])]
