"""Rows as columns."""

from __future__ import annotations

import numpy as np
import pytest

from anyformer.baselines.features import columns as module
from anyformer.baselines.features.columns import RowColumns
from anyformer.errors import InputError
from anyformer.tokenizers.row import Row

ROWS = [
    {"age": 20, "city": "Bonn", "height": 1.6},
    {"age": 40, "city": "Kiel", "height": None},
    {"age": 60, "city": "Bonn", "height": 1.8},
]


def test_numbers_are_standardised_categories_one_hot_and_what_is_missing_is_flagged() -> None:
    columns = RowColumns(Row())
    columns.fit(ROWS)
    found = columns.transform([*ROWS, {"age": None, "city": "Rome", "height": 1.7}])
    # age; city: another, Bonn, Kiel; height; and whether each is missing.
    assert found.shape == (4, 5 + 3)
    assert found[:3, 0].mean() == pytest.approx(0) and found[:3, 0].std() == pytest.approx(1)
    assert found[:, 1:4].tolist() == [[0, 1, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]]
    assert found[:, 5:].tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 0], [1, 0, 0]]
    # The mean of the training records.
    assert found[1, 4] == found[3, 0] == 0


def test_many_categories_are_kept_without_their_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_DENSE", 20)
    columns = RowColumns(Row(columns={"name": "category"}))
    rows = [{"name": f"n{i}"} for i in range(30)]
    columns.fit(rows)
    found = columns.transform(rows)
    assert found.shape == (30, 32) and found.nnz == 30
    assert np.unique(found.indices).size == 30


def test_text_in_a_column_of_numbers_is_refused() -> None:
    columns = RowColumns(Row())
    columns.fit(ROWS)
    with pytest.raises(InputError, match="column 'age' must hold a number"):
        columns.transform([{"age": "old"}])
