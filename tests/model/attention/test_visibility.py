"""The visibility rule by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from anyformer.batch import Layout
from anyformer.model.attention.visibility import visible, visible_memory


def layout(order: str, segment: str | None = None, field: str | None = None) -> Layout:
    """One row, a digit for each place."""
    segment, field = segment or "1" * len(order), field or "0" * len(order)
    return Layout(*(torch.tensor([[int(digit) for digit in part]]) for part in (segment, order, field)))


def picture(mask: Tensor) -> str:
    """The rows of a mask."""
    return " ".join("".join(str(int(seen)) for seen in row) for row in mask[0])


@pytest.mark.parametrize(
    ("order", "segment", "seen"),
    [
        ("012", "111", "100 110 111"),  # a causal text
        ("001", "111", "110 110 111"),  # a prefix and a target
        ("000", "111", "111 111 111"),  # a picture
        ("0011", "1111", "1100 1100 1111 1111"),  # two frames
        ("0011", "1122", "1100 1100 0011 0011"),  # two samples of one row
        ("0101", "1122", "1000 1100 0010 0011"),
        ("010", "110", "100 110 000"),  # padding sees nothing, not even padding
        ("000", "000", "000 000 000"),
        ("0120", "1101", "1001 1101 0000 1001"),  # padding in the middle
    ],
)
def test_who_sees_whom(order: str, segment: str, seen: str) -> None:
    row = layout(order, segment)
    assert picture(visible(row, row)) == seen


def test_new_queries_see_cached_keys() -> None:
    assert picture(visible(layout("23"), layout("0123"))) == "1110 1111"
    # Rows of unlike length leave padding in the middle.
    assert picture(visible(layout("2"), layout("0102", "1101"))) == "1101"


def test_sees_hides_fields_from_fields() -> None:
    sees = torch.tensor([[True, False], [True, True]])
    row = layout("0000", field="0101")
    assert picture(visible(row, row, sees)) == "1010 1111 1010 1111"
    row = layout("0123", field="0101")
    assert picture(visible(row, row, sees)) == "1000 1100 1010 1111"


def test_a_relation_can_hide_a_pair() -> None:
    row = layout("000")
    assert picture(visible(row, row, relation=torch.tensor([[[0, -1, 2], [1, 0, 0], [-1, -1, 3]]]))) == "101 111 001"
    row = layout("012")
    assert picture(visible(row, row, relation=torch.tensor([[[0, 1, 2], [-1, 0, 0], [1, 1, 1]]]))) == "100 010 111"


def test_conditions_stand_before_all_that_a_decoder_reads() -> None:
    assert picture(visible_memory(layout("01", "12"), layout("0123", "1122"))) == "1100 0011"
    sees = torch.tensor([[True, False], [True, True]])
    assert picture(visible_memory(layout("01", field="01"), layout("23", field="01"), sees)) == "10 11"
