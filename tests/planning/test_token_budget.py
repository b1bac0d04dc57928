"""What is counted in batches whose tokens can be counted by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from anyformer.batch import Batch
from anyformer.packing import collate
from anyformer.planning.token_budget import count_budget, stacks
from anyformer.tokens import Sample, TokenSet
from tests.helpers.witnesses import Ids

FIELDS = {name: Ids(9, ("word",)) for name in ("a", "b", "never")}


def of(**lengths: int) -> Sample:
    return {name: TokenSet(torch.zeros(n, dtype=torch.int64), torch.arange(n)[:, None]) for name, n in lengths.items()}


def test_tokens_are_counted_by_field_and_places_by_row() -> None:
    first = collate([of(a=2), of(a=3, b=1)], FIELDS)
    second = collate([of(a=7), of(b=2)], FIELDS)
    budget = count_budget([[first], [second]])
    a, b = budget.fields
    assert (a.name, a.present, a.median, a.most, a.longest, a.reach) == ("a", 3 / 4, 3, 7, 1 / 3, (6,))
    assert (b.name, b.present, b.median, b.most) == ("b", 2 / 4, 1.5, 2)
    assert a.share == pytest.approx(12 / 15) and b.share == pytest.approx(3 / 15)
    assert (budget.n_samples, budget.n_batches, budget.median, budget.most) == (4, 2, 3, 7)
    assert budget.fill == pytest.approx(15 / (2 * 4 + 2 * 7))
    assert budget.places == 14 and not budget.packed


def test_several_samples_in_a_row_are_packed() -> None:
    budget = count_budget([[collate([of(a=2), of(a=3)], FIELDS, rows=[0, 0])]])
    assert budget.packed and budget.fill == 1


def test_a_field_that_no_sample_has_is_none_of_them() -> None:
    assert [field.name for field in count_budget([[collate([of(b=2)], FIELDS)]]).fields] == ["b"]


def test_two_stacks_of_the_same_samples_are_one_budget() -> None:
    reads, writes = collate([of(a=2), of(a=4)], FIELDS), collate([of(b=1), of(b=1)], FIELDS)
    budget = count_budget([[writes, reads]])
    assert [(field.name, field.most) for field in budget.fields] == [("a", 4), ("b", 1)]
    assert (budget.n_samples, budget.most, budget.places) == (2, 5, 8 + 2)


@dataclass
class Held:
    """A batch inside what a task hands round."""

    words: str
    inner: Any


def test_batches_are_found_wherever_they_are() -> None:
    one, other = collate([of(a=2)], FIELDS), collate([of(b=2)], FIELDS)
    found: list[Batch] = stacks(Held("x", Held("y", one)))
    assert found == [one] and stacks(other) == [other]


def test_the_table_has_a_line_for_each_field() -> None:
    lines = str(count_budget([[collate([of(a=2), of(a=4, b=1000)], FIELDS)]])).splitlines()
    assert lines[0].split() == ["tokens", "of", "a", "sample", "median", "most", "share", "present"]
    assert lines[1].split() == ["a", "3", "4", "1%", "100%"]
    assert lines[2].split() == ["b", "1000", "1,000", "99%", "50%"]
    assert lines[4] == "rows filled 50%, the rest is padding; of 2 samples in 1 batches"
