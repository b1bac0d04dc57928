"""Rows of predictions: what tells a record apart, its true values, and what is predicted of it."""

from __future__ import annotations

from typing import Any

import pytest

import anyformer
from anyformer.data.python_records import PythonRecords
from anyformer.errors import InputError
from anyformer.runs.predictions.rows import RowsOfSource
from anyformer.tasks.base.given import AT_ONCE
from tests.helpers.goods import COLUMNS, goods

pytestmark = pytest.mark.usefixtures("at_goods")


def records(n: int) -> list[dict[str, Any]]:
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in goods(n, seed=1)]
    return [row | {"weight": {"grams": row["grams"]}, "colour": {"colour": row["colour"]}} for row in rows]


def test_rows_hold_what_predict_says_beside_the_true_values() -> None:
    task, given = anyformer.load("run"), records(AT_ONCE + 3)
    expected = task.predict(given)
    del given[1]["kind"]
    given[2]["price"] = "unknown"
    rows = [row for (row,) in RowsOfSource(task, PythonRecords(given), id_column="sku", whole=True).after()]
    assert len(rows) == len(given)
    for row, record, result in zip(rows, given, expected, strict=True):
        assert {name: row[name] for name in ("kind", "price")} == result
        assert row["sku"] == record["sku"] and row.get("true_kind") == record.get("kind")
    # A number as one where numbers are predicted, and what is none as it is.
    assert [rows[0]["true_price"], rows[2]["true_price"]] == [float(given[0]["price"]), "unknown"]
    ((flat,),) = RowsOfSource(task, PythonRecords(given[:1])).after()
    kind = expected[0]["kind"]
    assert flat["row"] == 0 and flat["kind"] == kind["label"]
    assert flat["kind(car)"] == pytest.approx(kind["probabilities"]["car"])
    again = [row for (row,) in RowsOfSource(task, PythonRecords(given), id_column="sku", whole=True).after(AT_ONCE)]
    assert again == rows[AT_ONCE:]


def test_a_bad_record_is_named_or_has_a_row_of_its_own() -> None:
    task, given = anyformer.load("run"), records(4)
    given[2]["weight"] = {"grams": "heavy"}
    rows = RowsOfSource(task, PythonRecords(given)).after()
    assert [next(rows)[0]["row"], next(rows)[0]["row"]] == [0, 1]
    with pytest.raises(InputError, match=r"^record 2: field 'weight': column 'grams' must hold a number, got 'heavy'"):
        next(rows)
    told: list[str] = []
    every = [row for (row,) in RowsOfSource(task, PythonRecords(given), failed=told.append).after()]
    assert [row["row"] for row in every] == [0, 1, 2, 3]
    assert every[2] == {"row": 2, "error": told[0]} and "error" not in every[3]


def test_a_wrong_id_is_refused() -> None:
    task = anyformer.load("run")
    with pytest.raises(InputError, match=r"id: record 0: no column 'skus'; there are .*; did you mean 'sku'\?"):
        next(RowsOfSource(task, PythonRecords(records(1)), id_column="skus").after())
    with pytest.raises(InputError, match="id: 'price' is what a prediction is called too; give another column"):
        next(RowsOfSource(task, PythonRecords(records(1)), id_column="price").after())
