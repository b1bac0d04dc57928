"""A row comes back from its tokens, a missing value has none, and text among numbers is refused with its column."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anyformer.errors import InputError
from anyformer.tokenizers.row import Row

PETS = [
    {"age": "4", "kind": "cat", "weight": 3.5},
    {"age": None, "kind": "dog", "weight": 20.0},
    {"age": "6", "kind": "", "weight": float("nan")},
]

cells = st.fixed_dictionaries(
    {"number": st.none() | st.floats(-1e3, 1e3, width=32), "word": st.none() | st.sampled_from(["a", "b", "1 c"])}
)


@given(st.lists(cells, min_size=1, max_size=5))
def test_a_row_comes_back_from_its_tokens(rows: list[dict[str, Any]]) -> None:
    tokenizer = Row({"number": "number", "word": "category"}).fit(rows)
    for row in rows:
        there = {name: value for name, value in row.items() if value is not None}
        tokens = tokenizer.encode(row)
        assert len(tokens) == tokenizer.count(row) == len(there)
        back = tokenizer.decode(tokens)
        assert back.keys() == there.keys()
        assert back.get("word") == there.get("word")
        assert back.get("number", 0) == pytest.approx(there.get("number", 0), abs=1e-2)


def test_a_token_says_its_column_and_its_value() -> None:
    tokenizer = Row().fit(PETS)
    for pet, said in zip(
        [*PETS[:2], {"kind": "bat"}],
        (["age: 4", "kind: cat", "weight: 3.5"], ["kind: dog", "weight: 20"], ["kind: None"]),
        strict=True,
    ):
        assert tokenizer.pieces(tokenizer.encode(pet)) == said


def test_what_columns_are_is_learnt_and_a_missing_value_has_no_token() -> None:
    tokenizer = Row().fit(PETS)
    assert tokenizer.columns == {"age": "number", "kind": "category", "weight": "number"}
    assert tokenizer.means == {"age": 5, "weight": 11.75}
    assert tokenizer.stds == {"age": 1, "weight": 8.25}
    assert tokenizer.values == {"kind": ("cat", "dog")}
    # The number of the column, the value, the number among all ids: 0 age, 1 another kind, 2 cat, 3 dog, 4 weight.
    assert tokenizer.encode(PETS[0]).content.tolist() == [[0, -1, 0], [1, 1, 2], [2, -1, 4]]
    assert tokenizer.encode(PETS[1]).content.tolist() == [[1, 1, 3], [2, 1, 4]]
    assert tokenizer.encode({"kind": "cow"}).content.tolist() == [[1, 1, 1]]
    assert tokenizer.decode(tokenizer.encode({"kind": "cow"})) == {"kind": None}
    assert tokenizer.encode({}).content.shape == (0, 3)
    assert tokenizer.fit([]) is tokenizer


def test_a_row_may_be_spelt_as_json() -> None:
    tokenizer, spelt = Row().fit(PETS), '{"age": 4, "kind": "cat", "weight": 3.5}'
    assert torch.equal(tokenizer.encode(spelt).content, tokenizer.encode(PETS[0]).content)
    assert tokenizer.count(spelt) == 3


def test_a_number_is_a_multiple_of_its_vector_and_a_category_one_of_its_own() -> None:
    tokenizer = Row(normalize=False).fit([{"x": 1.0, "kind": "a"}, {"x": 2, "kind": "b"}])
    lift = tokenizer.lift(8)

    def lifted(**row: Any) -> torch.Tensor:
        return lift(tokenizer.encode(row).content)[0]

    torch.testing.assert_close(lifted(x=3) - lifted(x=0), 3 * (lifted(x=1) - lifted(x=0)))
    torch.testing.assert_close(lifted(x=0), lift.bias[0])
    assert not torch.equal(lifted(kind="a"), lifted(kind="b"))
    torch.testing.assert_close(lifted(kind="b"), lift.bias[1] + lift.table[3])


def test_codes_are_one_category_however_a_file_keeps_them() -> None:
    tokenizer = Row({"code": "category"}).fit([{"code": 1}, {"code": "2"}, {"code": 3.0}])
    assert tokenizer.values == {"code": ("1", "2", "3")}
    ids = [tokenizer.encode({"code": code}).content[0, 2].item() for code in ("1", 1.0, np.int64(1))]
    assert ids == [1, 1, 1]


def test_what_never_changes_is_not_blown_up() -> None:
    tokenizer = Row({"x": "number", "y": "number"}).fit([{"x": 7.0, "y": None}, {"x": 7.0}])
    assert (tokenizer.means, tokenizer.stds) == ({"x": 7, "y": 0}, {"x": 1, "y": 1})


@pytest.mark.parametrize(
    ("columns", "rows", "message"),
    [
        (
            None,
            [{"age": "4"}, {"age": "four"}],
            "column 'age' holds numbers and text, as 'four'; correct it, or say in the tokenizer which it is, columns",
        ),
        (
            {"age": "number"},
            [{"age": "four"}],
            "column 'age' must hold a number, got 'four'; correct it, leave the cell",
        ),
        ({"age": "number"}, [{"age": "inf"}], "column 'age' must hold a finite number, got inf"),
        ({"age": "number"}, [{"age": "nan"}], "column 'age' must hold a number, got nan; leave the cell empty"),
        (None, [{"age": 10**400}], "column 'age' must hold a number below 1e308, got a whole number that is larger"),
        ({"aged": "number"}, [{"age": 1}], "columns: no record has 'aged'; there are age; did you mean 'age'"),
        (None, [{"age": None}], "there is no value to learn the columns from"),
        (None, ["4"], "a row must be a dict of columns, or one value, got '4'; give the field a list of columns"),
    ],
)
def test_records_that_cannot_be_learnt_from_are_refused(
    columns: dict[str, Any] | None, rows: list[Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Row(columns).fit(rows)


def test_text_in_a_column_of_numbers_is_refused_later_too() -> None:
    with pytest.raises(InputError, match="column 'age' must hold a number, got 'unknown'"):
        Row().fit(PETS).encode({"age": "unknown"})


def test_options_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="columns must name at least one column"):
        Row({})
    with pytest.raises(InputError, match="means and stds belong together; give both, or leave both out"):
        Row({"age": "number"}, means={"age": 4.0}, values={})
    with pytest.raises(InputError, match="values must have each column that is a category, and has no 'kind'"):
        Row({"kind": "category"}, values={})
    with pytest.raises(InputError, match=r"stds must be above 0, got 0.0 of 'age'"):
        Row(means={"age": 4.0}, stds={"age": 0.0})
    with pytest.raises(InputError, match="the columns of the row are not known yet; fit to data first"):
        Row({"age": "number"}).lift(8)


def test_what_was_learnt_is_inherited_and_must_agree() -> None:
    fitted = Row().fit(PETS)
    assert Row().inherit(fitted) == fitted
    fitted.agree(Row().inherit(fitted), "pet")
    with pytest.raises(InputError, match="pet: values are not the same as the model was trained with"):
        fitted.agree(Row().fit([*PETS, {"kind": "cow"}]), "pet")
    assert Row({"age": "number"}).inherit(fitted) == Row({"age": "number"})


def test_what_was_given_is_kept_where_the_rest_is_learnt() -> None:
    learnt = Row().fit(PETS)
    part = Row(learnt.columns, values={"kind": ("cow",)}).fit(PETS)
    assert part.values == {"kind": ("cow",)}
    assert (part.columns, part.means, part.stds) == (learnt.columns, learnt.means, learnt.stds)


def test_a_column_that_the_model_does_not_know_is_refused_unless_training_left_it_out() -> None:
    rows = [{"age": 1, "height": 2, "note": None}, {"age": 3, "height": 5}]
    row = Row().fit(rows)
    with pytest.raises(InputError, match=r"no column 'hight' is known to the model; .*; did you mean"):
        row.encode({"age": 1, "hight": None})
    with pytest.raises(InputError, match="no column 'name' is known to the model; there are age, height; leave it out"):
        row.encode({"age": 1, "name": "x"})
    # One that is all but a column that is there too is no misspelling, and an empty cell says nothing.
    with pytest.raises(InputError, match=r"no column 'hight' .*; leave it out"):
        row.encode({"age": 1, "height": 2, "hight": 3})
    assert len(row.encode({"age": 1, "height": 2, "hight": None, "name": ""})) == 2
    assert row.left_out == ("note",) and len(row.encode({"age": 1, "note": "x"})) == 1
    part = Row({"age": "number"}).fit(rows)
    assert part.left_out == ("height", "note") and len(part.encode({"age": 1, "height": 2})) == 1
    assert Row().inherit(part).left_out == part.left_out and Row().fit([{"age": 1}]).left_out is None


def test_a_bare_value_is_the_column_that_the_field_is_named_like() -> None:
    row = Row().named("age").fit(["4", 6.0, {"age": 5}, '{"age": 9}'])
    assert row.columns == {"age": "number"} and row.means == {"age": 6}
    assert torch.equal(row.encode(4).content, row.encode({"age": "4"}).content)
    assert row.count(np.float32(4)) == 1 and row.count(float("nan")) == 0
    assert row == Row().named("years").fit([{"age": value} for value in (4, 6, 5, 9)])
    assert Row().named("colour").fit(["red", "blue"]).values == {"colour": ("blue", "red")}
    assert Row().named("years").inherit(Row().named("age").fit([1, 2])).columns == {"age": "number"}
    for several in ([4, 6], (4, [6]), np.array([4])):
        with pytest.raises(InputError, match="a row must be a dict of columns, or one value, got"):
            row.encode(several)


@pytest.mark.parametrize(
    "values", [["01234", "98101"], ["98101", " 007"], ["007", 98101], ["1_0", "007", "A1"], ["-01"]]
)
def test_a_column_in_which_zeros_lead_holds_names(values: list[Any]) -> None:
    tokenizer = Row().fit([{"zip": value} for value in values])
    assert tokenizer.columns == {"zip": "category"}
    assert tokenizer.values == {"zip": tuple(sorted(str(value).strip() for value in values))}
    assert tokenizer.decode(tokenizer.encode({"zip": values[0]})) == {"zip": str(values[0]).strip()}
    assert tokenizer.decode(tokenizer.encode({"zip": "7"})) == {"zip": None}


def test_numbers_with_a_zero_before_the_point_stay_numbers_and_underscores_make_none() -> None:
    assert Row().fit([{"a": "0.5", "b": "1_2"}, {"a": "0", "b": "1_3"}]).columns == {"a": "number", "b": "category"}


def test_categories_are_named_alike_however_they_come(capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = Row().fit([{"kind": "cafe\u0301"}, {"kind": b"tea"}, {"kind": True}, {"kind": "True"}])
    assert tokenizer.values == {"kind": ("caf\u00e9", "tea", "true")}
    assert "column 'kind': 2 values are written otherwise than their names: " in capsys.readouterr().err
    ids = [
        tokenizer.encode({"kind": kind}).content[0, 2] for kind in ("caf\u00e9 ", "cafe\u0301", np.str_("caf\u00e9"))
    ]
    assert ids == [1, 1, 1]
    # What an older one was saved with.
    assert Row({"a": "category"}, values={"a": ["False", "True"]}).values == {"a": ("false", "true")}
    with pytest.raises(InputError, match=r"values\.a: 'x', ' x' are 'x' more than once"):
        Row({"a": "category"}, values={"a": ["x", " x"]})
    with pytest.raises(InputError, match="column 'kind' must be one text or number, got a list, "):
        Row().fit([{"kind": ["a"]}, {"kind": ["b"]}])
