"""Rows of tables as columns: numbers as they are, categories one-hot, and for each whether it is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from anyformer.baselines.features.features import Features, Matrix
from anyformer.tokenizers.row import Row

MOST_DENSE = 1000
"""Columns, above which most are zeros of categories."""


class RowColumns(Features):
    """The numbers of a row, each category as a column of 0 and 1, and a column that says where one is missing, in whose
    place the mean of the training records stands."""

    tokenizer: Row

    def read(self, value: Mapping[str, Any]) -> Mapping[str, Any]:
        return value

    def fit(self, kept: Sequence[Mapping[str, Any]]) -> None:
        self._row = self.tokenizer.fit(kept)
        self._n_columns = len(self._row.columns)
        # As the lift counts its vectors: one for a column of numbers, one for each category and one for any other.
        self._n_vectors = sum(
            1 if kind == "number" else 1 + len(self._row.values[name]) for name, kind in self._row.columns.items()
        )

    def transform(self, kept: Sequence[Mapping[str, Any]]) -> Matrix:
        rows, places, values = [], [], []
        for number, record in enumerate(kept):
            column, value, vector = self._row.encode(record).content.double().numpy().T
            missing = np.setdiff1d(np.arange(self._n_columns), column.astype(int))
            rows += [number] * (len(column) + len(missing))
            places += [*vector.astype(int).tolist(), *(self._n_vectors + missing).tolist()]
            values += [*value.tolist(), *[1.0] * len(missing)]
        shape = (len(kept), self._n_vectors + self._n_columns)
        found = csr_matrix((values, (rows, places)), shape=shape)
        return found if shape[1] > MOST_DENSE else found.toarray()
