"""Fields that are left out of a sample, by chance or as asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from anyformer.data.batch_plan import Draw, plan_batches
from anyformer.data.chopper import Chopper, Unasked
from anyformer.data.loader import Loader
from anyformer.data.samples import Samples
from anyformer.errors import InputError
from tests.helpers.choppers import Sums
from tests.helpers.mixed_fields import LEFT, RIGHT, Shown
from tests.helpers.witnesses import Ids
from tests.tasks.base.test_fields import INPUTS


@dataclass(frozen=True)
class Fields(Chopper):
    """Chops a record into the contents of its fields."""

    def __call__(self, record: dict[str, Any], random: np.random.Generator | None = None) -> dict[str, list]:
        return {name: tokens.content.tolist() for name, tokens in self.encode(record, random).items()}

    def collate(self, items: list, rows: list[int] | None = None) -> Sums:
        return Sums(items, rows)


BOTH = {"left": LEFT, "right": RIGHT}
HALF = {"left": 0.5, "right": 0.3}


def test_what_a_sample_goes_without_depends_on_seed_epoch_and_index_alone() -> None:
    samples = Samples(Shown(), Fields(BOTH, dropout=HALF), training=True)
    draws = [Draw(epoch, i) for epoch in range(3) for i in range(24)]
    items = [samples[draw] for draw in draws]
    assert all(samples[draw] == item for draw, item in zip(draws[::-1], items[::-1], strict=True))
    assert {tuple(item) for item in items} == {("left",), ("right",), ("left", "right")}
    # Nor on the batch, the row, the workers, or what else the sample draws.
    rows = samples.__getitems__([draw._replace(row=0) for draw in draws]).batch
    assert rows.items == items
    plan = plan_batches(24, batch_size=5)
    every = [[batch.items for batch in Loader(samples, plan, n_workers)] for n_workers in (0, 2)]
    assert every[0] == every[1] == [[samples[draw] for draw in batch] for batch in plan.epoch(0)]

    class Noisy(Ids):
        def encode(self, record: Any, random: np.random.Generator) -> Any:
            random.random(len(record))
            return super().encode(record)

    noisy = Samples(Shown(), Fields({"left": Noisy(), "right": Noisy()}, dropout=HALF), training=True)
    assert [noisy[draw] for draw in draws] == items
    both = Samples(Shown(both=True), Fields(BOTH, dropout=HALF), training=True)
    for draw, item in zip(draws, items, strict=True):
        # A record that lacks a field keeps the other; else nothing hangs on what it has.
        assert len(item) == 1 if None in Shown()[draw.index].values() and draw.index % 4 < 2 else both[draw] == item
    # In evaluation nothing is drawn.
    assert all(len(Samples(Shown(both=True), Fields(BOTH, dropout=HALF))[draw]) == 2 for draw in draws)
    others = [Samples(Shown(), Fields(BOTH, dropout=HALF), training=True, seed=1)[draw] for draw in draws]
    assert others != items


def test_each_field_is_left_out_as_often_as_asked_and_one_always_stays() -> None:
    samples = Samples(Shown(1000, both=True), Fields(BOTH, dropout=HALF), training=True)
    found = [tuple(samples[Draw(0, i)]) for i in range(1000)]
    shares = {fields: found.count(fields) / 1000 for fields in (("left", "right"), ("right",), ("left",))}
    # Of the 0.15 that would have nothing each half keeps one.
    assert shares == pytest.approx(
        {("left", "right"): 0.35, ("right",): 0.35 + 0.075, ("left",): 0.15 + 0.075}, abs=0.04
    )
    always = Samples(Shown(), Fields(BOTH, dropout={"left": 0.999}), training=True)
    kept = [always[Draw(0, i)] for i in range(24)]
    assert all(("left" in item) == (Shown()[i]["right"] is None) for i, item in enumerate(kept))


def test_an_input_of_several_fields_goes_as_one_or_in_part() -> None:
    record = {name: {"image": np.ones((1, 3)), "vector": [1]} for name in ("left", "right")} | {"text": [3]}
    record = {name: {**value, "image": torch.ones(1, 3)} if name != "text" else value for name, value in record.items()}
    names = {
        gone: list(Fields(INPUTS, without=gone)(record))
        for gone in ((), ("left",), ("left.image", "text"), ("left.image", "left.vector"))
    }
    assert names == {
        (): ["left.image", "left.vector", "right.image", "right.vector", "text"],
        ("left",): ["right.image", "right.vector", "text"],
        ("left.image", "text"): ["left.vector", "right.image", "right.vector"],
        ("left.image", "left.vector"): ["right.image", "right.vector", "text"],
    }
    random = np.random.default_rng(0)
    dropping = Fields({"left": INPUTS["left"]}, dropout={"left": 0.99})
    assert {tuple(dropping(record, random)) for _ in range(60)} > {("left.image",), ("left.vector",)}


def test_a_record_of_which_nothing_is_left_is_not_asked_and_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    samples = Samples(Shown(), Fields(BOTH, without=("left",), by="size"))
    batches = list(Loader(samples, plan_batches(24, batch_size=4, shuffle=False)))
    assert not caplog.messages
    # Rows 1, 5, ... have nothing but the left.
    assert batches[0].samples == ("shown row 0", "shown row 2", "shown row 3")
    assert [batch.groups for batch in batches][:2] == [("few", "few", "many"), ("", "few", "few")]
    lefts = Samples(Shown().take([1, 5, 9, 13]), Fields(BOTH, without=("left",)))
    plan = plan_batches(4, batch_size=1, shuffle=False)
    assert list(Loader(lefts, plan)) == []
    # Where another process waits at every batch, a batch is there.
    plan = plan_batches(4, batch_size=1, shuffle=False, world=2)
    assert list(Loader(lefts, plan)) == [None, None]
    with pytest.raises(InputError, match="shown row 0: a record needs one of the fields left, right; it has "):
        Samples(Nothing(), Fields(BOTH, without=("left",)))[Draw(0, 0)]


def test_a_record_of_no_token_is_refused_where_an_empty_text_is_not_asked_for() -> None:
    chopper, words = Fields(BOTH), "a record needs one of the fields left, right; it has left, right, and nothing is in"
    for record in ({"left": [], "right": None}, {"left": [], "right": []}):
        with pytest.raises(InputError, match=words):
            chopper.encode(record)
    assert len(chopper.encode({"left": [], "right": None}, empty_too=True)["left"]) == 0
    with pytest.raises(InputError, match="fields left, right; it has right, and nothing is in right"):
        chopper.encode({"right": None}, empty_too=True)
    assert len(chopper.encode({"left": [], "right": [1]})["right"]) == 1
    with pytest.raises(Unasked):
        Fields(BOTH, without=("right",)).encode({"left": [], "right": [1]})
    # What holds nothing is not the input that stays.
    dropping, random = Fields(BOTH, dropout={"left": 0.5, "right": 0.9}), np.random.default_rng(0)
    assert all(dropping({"left": [], "right": [1]}, random)["right"] == [1] for _ in range(20))


class Nothing(Shown):
    """Records of no input."""

    def __getitem__(self, i: int) -> dict[str, Any]:
        return super().__getitem__(i) | {"left": None, "right": None}
