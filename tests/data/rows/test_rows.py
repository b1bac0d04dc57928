"""Columns that are not there, or several times."""

from __future__ import annotations

import pytest

from anyformer.data.rows.rows import check_names
from anyformer.errors import InputError


def test_columns_of_one_name_are_refused() -> None:
    check_names("t.csv", ["a", "", "A", "a "])
    with pytest.raises(InputError, match=r"^t.csv: several columns are called 'a'; give each a name of its own$"):
        check_names("t.csv", ["a", "b", "a"])
    with pytest.raises(InputError, match=r"^t.csv: several columns are called '' \(columns 2, 3\); give each a name"):
        check_names("t.csv", ["a", "", ""])
