"""The loader that goes on where it stopped."""

from __future__ import annotations

import json
import pickle
import zipfile
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from anyformer.data.batch_plan import Draw, plan_batches
from anyformer.data.chopper import Chopper, LeftOut, Unasked
from anyformer.data.files import read_file
from anyformer.data.loader import OR_SKIP, Loader, Samples
from anyformer.data.tables import Table
from anyformer.errors import InputError
from tests.helpers.mixed_fields import LEFT, RIGHT, Shown
from tests.helpers.witnesses import Ids, Numbers
from tests.tasks.base.test_fields import INPUTS


@dataclass
class Sums:
    """A batch as lists."""

    items: list[tuple[int, float]]
    rows: list[int] | None
    samples: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pairs:
    """Chops a record into its number and a random number; some numbers cannot be used."""

    bad: tuple[int, ...] = ()
    tokenizers: dict = field(default_factory=dict)

    def __call__(self, record: dict[str, Any], random: np.random.Generator | None) -> tuple[int, float]:
        if record["x"] in self.bad:
            raise InputError(f"field 'x': {record['x']} is bad")
        return record["x"], -1.0 if random is None else float(random.random())

    def count(self, record: dict[str, Any]) -> int:
        if record["x"] in self.bad:
            raise InputError(f"field 'x': {record['x']} is bad")
        return 1 + record["x"] % 7

    def collate(self, items: list, rows: list[int] | None = None) -> Sums:
        return Sums(items, rows)

    partner, mix, by = Chopper.partner, Chopper.mix, Chopper.by


def loader(
    n: int = 10, n_workers: int = 0, batch_size: int = 3, bad: tuple[int, ...] = (), skip: bool = False, **plan: Any
) -> Loader:
    samples = Samples(Numbers(n), Pairs(bad), training=True, on_bad_sample="skip" if skip else "fail")
    return Loader(samples, plan_batches(n, batch_size=batch_size, **plan), n_workers)


# The loader


def drain(batches: Any) -> list[Any]:
    return [(batch.items, batch.samples) for batch in batches]


@pytest.mark.parametrize("n_workers", [0, 2])
def test_epochs_follow_one_another_and_the_number_of_workers_does_not_matter(n_workers):
    here, there = loader(), loader(n_workers=n_workers)
    assert [drain(here) for _ in range(3)] == [drain(there) for _ in range(3)]
    assert drain(here) != drain(here)
    assert here.epoch == 4


@pytest.mark.parametrize("n_workers", [0, 2])
@pytest.mark.parametrize("stop", [0, 1, 3, 4])
def test_a_loader_goes_on_where_the_other_stopped(n_workers, stop):
    whole = loader()
    expected = drain(whole) + drain(whole)
    first = loader(n_workers=n_workers)
    taken = [batch for batch, _ in zip(first, range(stop), strict=False)]  # one more is handed out, but for stop = 4
    state = first.state_dict()
    assert state["offset"] == min(stop + 1, 4)
    state = state | {"offset": stop}
    second = loader(n_workers=2 - n_workers)
    second.load_state_dict(json.loads(json.dumps(state)))
    assert drain(taken) + drain(second) + (drain(second) if stop < 4 else []) == expected


def test_an_epoch_cut_short_is_followed_by_the_next():
    short, whole = loader(), loader()
    next(iter(short))
    drain(whole)
    assert drain(short) == drain(whole)


def test_calling_iter_without_asking_for_a_batch_changes_nothing():
    tried = loader()
    iter(tried), iter(tried)
    assert drain(tried) == drain(loader())


@pytest.mark.parametrize("n_workers", [0, 2])
def test_loading_does_not_touch_the_global_generators(n_workers):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    drain(loader(n_workers=n_workers))
    assert torch.equal(before[0], torch.get_rng_state()) and before[1] == np.random.get_state()[1].tolist()


def test_what_is_drawn_for_a_sample_depends_on_seed_epoch_and_index_alone():
    samples = Samples(Numbers(9), Pairs(), training=True)
    assert samples[Draw(2, 5)] == samples[Draw(2, 5, row=3)]
    others = [samples[Draw(3, 5)], samples[Draw(2, 6)], Samples(Numbers(9), Pairs(), training=True, seed=1)[Draw(2, 5)]]
    assert samples[Draw(2, 5)] not in others
    assert Samples(Numbers(9), Pairs())[Draw(2, 5)] == (5, -1.0)


def test_a_place_in_other_data_is_refused():
    state = loader(n=10).state_dict()
    with pytest.raises(
        InputError, match="cannot go on inside an epoch: the checkpoint was made with n_batches=4, this run has 5"
    ):
        loader(n=13).load_state_dict(state)
    with pytest.raises(InputError, match="the checkpoint was made with seed=0, this run has 1"):
        loader(seed=1).load_state_dict(state)


@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_bad_sample_fails_with_its_name(n_workers):
    with pytest.raises(InputError, match=rf"^numbers row 4: field 'x': 4 is bad; {OR_SKIP}$"):
        drain(loader(bad=(4,), n_workers=n_workers))


def test_the_first_samples_are_those_of_training_without_what_is_left_out():
    whole = loader(seed=5)
    drawn = [item for items, _ in drain(whole) for item in items]
    assert list(whole.samples.first(whole.plan, 4)) == drawn[:4]
    bad = drawn[1][0]
    skipping = loader(seed=5, bad=(bad,), skip=True)
    assert list(skipping.samples.first(skipping.plan, 4)) == [drawn[0], *drawn[2:4]]
    failing = loader(seed=5, bad=(bad,))
    with pytest.raises(InputError, match=f"numbers row {bad}: field 'x': {bad} is bad"):
        list(failing.samples.first(failing.plan, 4))


def test_what_is_to_be_mended_is_said_once():
    @dataclass(frozen=True)
    class Bad(Pairs):
        def __call__(self, record, random):
            raise InputError("field 'x' is bad; mend it, or leave it empty")

    once = "field 'x' is bad; mend it, or leave it empty; or leave such records out by data.on_bad_sample: skip"
    with pytest.raises(InputError, match=f"^numbers row 0: {once}$"):
        drain(Loader(Samples(Numbers(3), Bad()), plan_batches(3, batch_size=1, shuffle=False)))


@pytest.mark.parametrize("n_workers", [0, 2])
def test_skipped_samples_are_counted_and_reported_at_the_end_of_the_epoch(n_workers, caplog):
    skipping = loader(bad=(1, 3, 4, 8, 9), skip=True, n_workers=n_workers)
    seen = [number for batch in skipping for number, _ in batch.items]
    assert set(seen) == {0, 2, 5, 6, 7}
    (line,) = caplog.messages
    assert line.startswith("epoch 0 of training left out 5 samples: numbers row ") and line.endswith(", and 2 more")
    assert line.count("is bad") == 3
    drain(skipping)
    assert len(caplog.messages) == 2


def test_evaluation_reports_what_it_left_out_without_an_epoch(caplog):
    samples = Samples(Numbers(4), Pairs((1,)), on_bad_sample="skip")
    evaluation = Loader(samples, plan_batches(4, batch_size=2, shuffle=False))
    next(iter(evaluation))
    drain(evaluation)
    drain(evaluation)
    assert set(caplog.messages) == {"evaluation left out 1 samples: numbers row 1: field 'x': 1 is bad"}


def test_a_batch_of_bad_samples_is_filled_in_training_and_left_out_in_evaluation():
    training = loader(n=4, batch_size=1, bad=(0, 1), skip=True)
    batches = [batch.items[0][0] for batch in training]
    assert len(batches) == len(training) == 4 and set(batches) == {2, 3}
    samples = Samples(Numbers(4), Pairs((0, 1)), on_bad_sample="skip")
    evaluation = Loader(samples, plan_batches(4, batch_size=1, shuffle=False))
    assert [batch.items for batch in evaluation] == [[(2, -1.0)], [(3, -1.0)]]
    with pytest.raises(InputError, match=r"numbers row .: field 'x'"):
        drain(loader(n=2, bad=(0, 1), skip=True))


def test_the_count_of_skipped_samples_survives_a_restart(caplog):
    first = loader(bad=(0, 1, 2, 3, 4, 5, 6, 7), skip=True)
    for _ in zip(range(2), first, strict=False):
        pass
    second = loader(bad=(0, 1, 2, 3, 4, 5, 6, 7), skip=True)
    second.load_state_dict(first.state_dict())
    drain(second)
    assert "left out 8 samples" in caplog.text


def test_a_row_that_lost_all_its_samples_is_gone():
    samples = Samples(Numbers(4), Pairs((1,)), on_bad_sample="skip")
    batch = samples.__getitems__([Draw(0, 0, 0), Draw(0, 1, 1), Draw(0, 3, 2)]).batch
    assert batch.rows == [0, 1] and batch.samples == ("numbers row 0", "numbers row 3")


def test_lengths_are_counted_once_a_sample_and_name_the_bad_one():
    assert Samples(Numbers(9), Pairs()).lengths() == [1, 2, 3, 4, 5, 6, 7, 1, 2]
    assert Samples(Numbers(3), Pairs((1,)), on_bad_sample="skip").lengths() == [1, 1, 3]
    with pytest.raises(InputError, match="numbers row 1: field 'x': 1 is bad"):
        Samples(Numbers(3), Pairs((1,))).lengths()


def test_samples_travel_to_workers_that_are_not_forked(tmp_path):
    (tmp_path / "t.csv").write_text("file,kind\n" + "".join(f"{i}.png,cat\n" for i in range(5)))
    table = Table(str(tmp_path / "t.csv"))
    assert pickle.loads(pickle.dumps(Samples(table.take([3, 1]), Pairs()))).source[0]["file"] == "3.png"


def test_forked_workers_read_one_zip_at_once(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        for i in range(40):
            archive.writestr(f"{i}.bin", bytes([i]) * 5000)

    files = loader(n=40, n_workers=2, batch_size=4)
    files.samples = Samples(Numbers(40), Zipped(str(tmp_path / "t.zip")))
    read_file(tmp_path / "t.zip" / "0.bin")  # so that the workers inherit an open handle
    assert sorted(item for batch in files for item in batch.items) == [(i, 5000) for i in range(40)]


@dataclass(frozen=True)
class Zipped(Pairs):
    path: str = ""

    def __init__(self, path: str) -> None:
        object.__setattr__(self, "path", path)
        object.__setattr__(self, "tokenizers", {})

    def __call__(self, record: dict[str, Any], random: np.random.Generator | None) -> tuple[int, int]:
        content = read_file(f"{self.path}/{record['x']}.bin")
        assert set(content) == {record["x"]}
        return record["x"], len(content)


# Fields that are left out


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
    with pytest.raises(InputError, match=r"a record needs one of the fields left, right; it has right$"):
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


def test_workers_of_a_pass_need_not_wait_for_the_next() -> None:
    samples, plan = Samples(Shown(), Fields(BOTH)), plan_batches(24, batch_size=4, shuffle=False)
    loader = Loader(samples, plan, n_workers=1, keep_workers=False)
    seen = []
    for _ in range(2):
        next(iter(loader))
        assert loader._fetcher is None, "also where the epoch is cut short"
        seen.append([batch.items for batch in loader])
        assert loader._fetcher is None
    assert seen[0] == seen[1] == [[samples[draw] for draw in batch] for batch in plan.epoch(0)]


def test_a_sample_that_is_left_out_stops_nothing_and_is_counted(caplog):
    class Shy(Pairs):
        def __call__(self, record: dict[str, Any], random: np.random.Generator | None) -> tuple[int, float]:
            if record["x"] in (2, 5):
                raise LeftOut(f"{record['x']} is too long")
            return super().__call__(record, random)

    loader = Loader(Samples(Numbers(8), Shy(), training=True), plan_batches(8, batch_size=3))
    seen = [number for batch in loader for number, _ in batch.items]
    assert sorted(seen) == [0, 1, 3, 4, 6, 7]
    assert "epoch 0 of training left out 2 samples: numbers row" in caplog.text and "is too long" in caplog.text
    assert Samples(Numbers(8), Pairs(bad=(1,)), on_bad_sample="skip").lengths()[:3] == [1, 1, 3]
