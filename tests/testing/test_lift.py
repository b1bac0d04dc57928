"""The laws of vectors hold for a lift that keeps them, and are seen broken by one, or a core, that does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anyformer.batch import Batch
from anyformer.model.lifts import Projection
from anyformer.packing import collate
from anyformer.testing import lift as laws
from anyformer.testing.lift import OWN, check_lift, check_model, kind, require, same
from anyformer.tokens import Tokenizer, TokenSet


@dataclass(frozen=True)
class Numbers(Tokenizer):
    """Numbers of a list as tokens, lifted with a fault of choice."""

    fault: str = "none"
    axes = ("time",)

    def encode(self, record: list[float], random: np.random.Generator | None = None) -> TokenSet:
        return TokenSet(torch.tensor(record, dtype=torch.float32)[:, None], torch.arange(len(record))[:, None])

    def empty(self) -> TokenSet:
        return TokenSet(torch.zeros(0, 1), torch.zeros(0, 1, dtype=torch.int64))

    def lift(self, d_model: int) -> nn.Module:
        return Lift(self.fault, d_model)


class Lift(Projection):
    def __init__(self, fault: str, d_model: int) -> None:
        super().__init__(1, d_model)
        self.fault, self.beside = fault, nn.Linear(1, 1) if fault == "unused" else None

    def forward(self, content: Tensor, extents: Any = ()) -> Tensor:
        vectors = super().forward(content)
        if self.fault == "neighbours":
            return vectors + vectors.roll(1, 0)
        if self.fault == "place" and len(extents) > 1:
            # As if alone in the batch as it comes, and otherwise when it is turned round.
            return vectors + (content[0] > 2) * torch.arange(len(content))[:, None]
        if self.fault == "gradient" and len(extents) > 1:
            return vectors.detach() + 0.5 * (vectors - vectors.detach())
        if self.fault == "width":
            return vectors[:, :-1]
        if self.fault == "absent" and not len(content):
            return vectors.detach()
        if self.fault == "nothing" and not len(content):
            return vectors.new_zeros(1, vectors.shape[1])
        return vectors @ vectors if self.fault == "raises" else vectors


SETS = [Numbers().encode(numbers) for numbers in ([1.0, 2.0, 4.0], [3.0])]

FAULTS = {
    "neighbours": "lifting a batch is not lifting each sample alone: something of one reaches another",
    "place": "the vectors of a sample change with its place in the batch",
    "gradient": "the gradient of the lift's weight 'linear.weight' is another for a batch than for each sample",
    "width": r"must return a vector for each of the 4 tokens, \(4, 24\), got \(4, 23\)",
    "unused": "no gradient reaches the lift's weight 'beside.weight' from these samples",
    "absent": "where the field is absent, the gradient of the lift's weight 'linear.weight' must be 0 and not None",
    "nothing": r"the lift of no content must be \(0, 24\), got \(1, 24\)",
    "raises": r"the lift cannot be called on \(content \(4, 1\) float64, extents\)",
}


def test_a_lift_that_keeps_the_laws_passes() -> None:
    check_lift(Numbers(), SETS, "Numbers")
    check_model(Numbers(), [{OWN: tokens} for tokens in SETS], "Numbers")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_lift_that_breaks_one_is_found(fault: str) -> None:
    with pytest.raises(AssertionError, match=f"^Numbers: .*{FAULTS[fault]}"):
        check_lift(Numbers(fault), SETS, "Numbers")


def in_one_sample(batch: Batch) -> Batch:
    """Samples of a row see each other."""
    return replace(batch, layout=batch.layout._replace(segment=batch.layout.segment.clamp(max=1)))


def at_padding(batch: Batch) -> Batch:
    """Padding is seen."""
    return replace(batch, layout=batch.layout._replace(segment=batch.layout.segment * 0 + 1)) if batch.padded else batch


def by_place(batch: Batch) -> Batch:
    """A token stands where it happens to be among the others."""
    own = batch.fields[OWN]
    starts = torch.searchsorted(own.sample, own.sample)
    return replace(
        batch, fields={**batch.fields, OWN: replace(own, position=(torch.arange(len(own.index)) - starts)[:, None])}
    )


def by_absence(batch: Batch) -> Batch:
    """A sample without the field moves the others."""
    own = batch.fields[OWN]
    if len(own.extents) in (0, batch.n_samples):
        return batch
    return replace(batch, fields={**batch.fields, OWN: replace(own, content=own.content + 1)})


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (in_one_sample, "samples packed into one row have other vectors than alone"),
        (at_padding, "samples padded to the longest have other vectors than alone"),
        (by_place, "sample 0: the same tokens in another sequence have other vectors"),
        (by_absence, "a sample without the field changes the vectors of the others"),
    ],
)
def test_a_core_that_breaks_one_is_found(
    broken: Callable[[Batch], Batch], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(laws, "collate", lambda *given: broken(collate(*given)))
    with pytest.raises(AssertionError, match=f"^Numbers.*{message}"):
        check_model(Numbers(), [{OWN: tokens} for tokens in SETS], "Numbers")


def test_values_are_the_same_as_far_as_the_tolerance_goes() -> None:
    assert same({"a": [1.0, np.nan], "b": None}, {"a": [1.0, float("nan")], "b": None}, 0)
    assert same(torch.tensor([1.0, 2.0]), [1.0, 2.0], 0)
    assert same(np.array([1e6]), np.array([1e6 + 1]), 1e-5)
    assert not same(np.array([1.0]), np.array([1.001]), 1e-5)
    assert not same(np.zeros(2), np.zeros((2, 1)), 0)
    assert not same({"a": 1}, {"b": 1}, 0)
    assert not same([1], [1, 1], 0)
    assert not same(None, 0, 0)
    assert same(np.array(["a", "b"]), np.array(["a", "b"], dtype=object), 0)
    assert same(SETS[0], Numbers().encode([1.0, 2.0, 4.0]), 0)
    assert not same(SETS[0], SETS[1], 0)


def test_what_must_hold_is_said() -> None:
    require(True, "unheard")
    with pytest.raises(AssertionError, match=r"^it must rain$"):
        require(False, "it must rain")
    assert kind(torch.zeros(2, 3, dtype=torch.int64)) == "(2, 3) int64"
