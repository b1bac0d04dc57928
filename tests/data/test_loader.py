"""The loader that goes on where it stopped."""

from __future__ import annotations

import json
import os
import signal
import time
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from anyformer.data.batch_plan import plan_batches
from anyformer.data.chopper import LeftOut
from anyformer.data.files import read_file
from anyformer.data.loader import Loader
from anyformer.data.samples import OR_SKIP, Samples
from anyformer.errors import InputError
from anyformer.faults import MachineError, machine_faults
from tests.helpers.choppers import Pairs
from tests.helpers.witnesses import Numbers


def loader(
    n: int = 10, n_workers: int = 0, batch_size: int = 3, bad: tuple[int, ...] = (), skip: bool = False, **plan: Any
) -> Loader:
    samples = Samples(Numbers(n), Pairs(bad), training=True, on_bad_sample="skip" if skip else "fail")
    return Loader(samples, plan_batches(n, batch_size=batch_size, **plan), n_workers)


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


def test_workers_of_a_pass_need_not_wait_for_the_next() -> None:
    samples, plan = Samples(Numbers(24), Pairs()), plan_batches(24, batch_size=4, shuffle=False)
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


@dataclass(frozen=True)
class Stuck(Pairs):
    """Sleeps for long, deaf to SIGTERM, or is killed, at one of its records."""

    kills: bool = False

    def __call__(self, record: dict[str, Any], random: np.random.Generator | None) -> tuple[int, float]:
        if record["x"] == 5:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if self.kills:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(600)
        return record["x"], 0.0


def test_a_worker_that_hangs_is_given_up_and_ended() -> None:
    loader = Loader(Samples(Numbers(8), Stuck()), plan_batches(8, batch_size=2, shuffle=False), 1, worker_timeout=0.5)
    workers = []
    with pytest.raises(MachineError, match=r"no data worker has given a batch for 0.5 s \(data.worker_timeout\)"):
        for _ in loader:
            workers += loader._fetcher._iterator._workers
    workers[0].join(5)
    assert workers[0].exitcode == -signal.SIGKILL


def test_a_worker_that_was_killed_is_said_to_have_been() -> None:
    loader = Loader(Samples(Numbers(8), Stuck(kills=True)), plan_batches(8, batch_size=2, shuffle=False), 1)
    with pytest.raises(MachineError, match=r"a data worker was killed .*give fewer workers"), machine_faults():
        drain(loader)
    loader.close()
