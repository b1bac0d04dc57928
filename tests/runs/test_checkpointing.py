"""A run that was killed, at any time, goes on and ends as one that never was: every bit of its weights, every row."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file

from anyformer.runs.checkpointing import Saving
from anyformer.saving.manifest import read_manifest
from anyformer.tasks.classify.classify import Classify
from tests.helpers.small_run import BATCHES, EPOCHS, in_a_fork, small_fit


class Signal(Callback):
    """Sends a signal to its own process when a hook is called for the nth time."""

    def __init__(self, number: int, n: int, hook: str = "on_train_batch_end") -> None:
        self.number, self.left, self.hook, self.send = number, n, hook, os.kill
        setattr(self, hook, self._count)

    def _count(self, trainer: Any, *args: Any) -> None:
        if not trainer.sanity_checking or self.hook == "on_sanity_check_start":
            self.left -= 1
            if self.left == 0:
                self.send(os.getpid(), self.number)


def last_state(run: Path) -> dict[str, Any]:
    line = read_manifest(run / "checkpoints")[-1]
    return torch.load(run / "checkpoints" / line["file"], weights_only=True)


def assert_same(one: Any, other: Any, path: str = "") -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_same(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), path
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{path}.{i}")
    else:
        assert one == other, path


def assert_same_run(run: Path, whole: Path) -> None:
    assert (run / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    assert (run / "metrics.json").read_text() == (whole / "metrics.json").read_text()
    assert (run / "model/config.json").read_text() == (whole / "model/config.json").read_text()
    assert_same(load_file(run / "model/weights.safetensors"), load_file(whole / "model/weights.safetensors"))
    one, other = last_state(run), last_state(whole)
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "average", "anyformer", "global_step", "epoch"):
        assert_same(one[key], other[key], key)


@pytest.fixture(scope="module", autouse=True)
def without_pictures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("anyformer.runs.checkpointing.draw_curves", lambda run: None)
        patch.setattr("anyformer.tasks.classify.classify.Classify.draw", lambda self, folder: None)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never killed."""
    run = tmp_path_factory.mktemp("whole")
    small_fit(run)
    return run


BY_STEPS = {"max_epochs": -1, "max_steps": 10, "val_check_interval": 3}


@pytest.fixture(scope="module")
def whole_by_steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole")
    small_fit(run, **BY_STEPS)
    return run


POINTS = random.Random(7).sample([k for k in range(1, BATCHES * EPOCHS) if k % BATCHES], 3)


@pytest.mark.parametrize(("point", "workers"), list(zip(POINTS, [(0, 0), (0, 2), (2, 0)], strict=True)))
def test_a_killed_run_goes_on_exactly(tmp_path: Path, whole: Path, point: int, workers: tuple[int, int]) -> None:
    before, after = workers
    kill = Signal(signal.SIGKILL, point)
    code = in_a_fork(lambda: small_fit(tmp_path, n_workers=before, callbacks=[kill]))
    assert code == -signal.SIGKILL
    assert in_a_fork(lambda: small_fit(tmp_path, n_workers=after, resume=True)) == 0
    assert_same_run(tmp_path, whole)


@pytest.mark.parametrize(
    ("point", "step"), [("batch", "part written"), ("epoch", "renamed"), ("validation", "renamed")]
)
def test_a_run_killed_in_the_middle_of_a_save_goes_on_exactly(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, point: str, step: str
) -> None:
    replace, left = os.replace, [2]

    def fail(source: Path, target: Path) -> None:
        if str(target).endswith(f"{point}.ckpt"):
            left[0] -= 1
            if left[0] == 0:
                if step == "renamed":
                    replace(source, target)
                os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    def work() -> None:
        os.replace = fail
        small_fit(tmp_path)

    monkeypatch.setattr("anyformer.runs.checkpointing.SAFE_VALIDATION", 0.0)
    assert in_a_fork(work) == -signal.SIGKILL
    assert in_a_fork(lambda: small_fit(tmp_path, resume=True)) == 0
    assert_same_run(tmp_path, whole)


@pytest.mark.parametrize(
    ("number", "hook"),
    [
        (signal.SIGTERM, "on_train_batch_end"),
        (signal.SIGINT, "on_validation_batch_end"),
        (signal.SIGTERM, "on_train_epoch_end"),
    ],
)
def test_a_signal_lets_the_batch_end_saves_and_gives_its_code(
    tmp_path: Path, whole: Path, capfd: pytest.CaptureFixture[str], number: signal.Signals, hook: str
) -> None:
    code = in_a_fork(lambda: small_fit(tmp_path, saving=Saving(None), callbacks=[Signal(number, 2, hook)]))
    assert code == 128 + number
    assert f"go on with: anyformer fit --resume {tmp_path}" in capfd.readouterr().err
    if hook == "on_train_batch_end":
        assert [line["file"] for line in read_manifest(tmp_path / "checkpoints")] == ["batch-00000002-batch.ckpt"]
    assert in_a_fork(lambda: small_fit(tmp_path, resume=True)) == 0
    assert_same_run(tmp_path, whole)


@pytest.fixture(scope="module")
def whole_by_4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose steps are of 4 batches, and the last of an epoch of 2."""
    run = tmp_path_factory.mktemp("whole")
    small_fit(run, **BY_4)
    return run


BY_4 = {"accumulate_grad_batches": 4, "val_check_interval": 3, "saving": Saving(every_n_steps=1)}


@pytest.mark.parametrize(
    ("number", "n", "hook"),
    [
        (signal.SIGKILL, 5, "on_train_batch_end"),
        (signal.SIGTERM, 2, "on_train_batch_end"),
        (signal.SIGTERM, 7, "on_train_batch_end"),
        (signal.SIGTERM, 1, "on_validation_end"),
        (signal.SIGTERM, 2, "on_validation_batch_end"),
    ],
)
def test_a_run_stopped_in_the_middle_of_a_step_goes_on_exactly(
    tmp_path: Path, whole_by_4: Path, monkeypatch: pytest.MonkeyPatch, number: int, n: int, hook: str
) -> None:
    monkeypatch.setattr("anyformer.runs.checkpointing.SAFE_VALIDATION", 0.0)
    code = in_a_fork(lambda: small_fit(tmp_path, callbacks=[Signal(number, n, hook)], **BY_4))
    assert code == (-number if number == signal.SIGKILL else 128 + number)
    names = [line["file"] for line in read_manifest(tmp_path / "checkpoints")]
    # 4 and 2 batches make an epoch.
    assert names and all(int(name.split("-")[1]) % 6 in (4, 0) for name in names)
    assert in_a_fork(lambda: small_fit(tmp_path, resume=True, **BY_4)) == 0
    assert_same_run(tmp_path, whole_by_4)


def test_a_signal_to_the_workers_too_lets_the_batch_end_and_saves(
    tmp_path: Path, whole: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As the scheduler of a cluster sends it: to all processes of a job."""

    def work() -> None:
        os.setpgid(0, 0)
        stop = Signal(signal.SIGTERM, 2)
        stop.send = os.killpg
        small_fit(tmp_path, n_workers=2, saving=Saving(None), callbacks=[stop])

    assert in_a_fork(work) == 128 + signal.SIGTERM
    assert "Traceback" not in capfd.readouterr().err
    assert in_a_fork(lambda: small_fit(tmp_path, resume=True)) == 0
    assert_same_run(tmp_path, whole)


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    twice = [Signal(signal.SIGTERM, 2), Signal(signal.SIGTERM, 2)]
    assert in_a_fork(lambda: small_fit(tmp_path, callbacks=twice)) == -signal.SIGTERM


def test_a_signal_at_the_last_batch_saves_before_the_validation(tmp_path: Path, whole: Path) -> None:
    term = Signal(signal.SIGTERM, BATCHES)
    assert in_a_fork(lambda: small_fit(tmp_path, callbacks=[term])) == 128 + signal.SIGTERM
    assert read_manifest(tmp_path / "checkpoints")[-1]["file"] == f"batch-{BATCHES:08d}-validation.ckpt"
    assert in_a_fork(lambda: small_fit(tmp_path, resume=True)) == 0
    assert_same_run(tmp_path, whole)


@pytest.mark.parametrize(
    ("batch", "hook", "point"),
    [
        (8, "on_train_batch_end", "batch-00000008-batch"),
        (1, "on_validation_end", "batch-00000003-batch"),
        (1, "on_train_epoch_end", "batch-00000006-epoch"),
    ],
)
def test_a_run_of_max_steps_with_validations_inside_the_epoch_goes_on_exactly(
    tmp_path: Path, whole_by_steps: Path, batch: int, hook: str, point: str
) -> None:
    term = Signal(signal.SIGTERM, batch, hook)
    assert in_a_fork(lambda: small_fit(tmp_path, callbacks=[term], **BY_STEPS)) == 128 + signal.SIGTERM
    assert read_manifest(tmp_path / "checkpoints")[-1]["file"] == f"{point}.ckpt"
    assert in_a_fork(lambda: small_fit(tmp_path, resume=True, **BY_STEPS)) == 0
    assert_same_run(tmp_path, whole_by_steps)


@pytest.mark.parametrize("stop", [(signal.SIGKILL, 1, "on_validation_batch_end"), (signal.SIGTERM, 3)])
def test_a_run_of_max_steps_stopped_in_its_last_validation_goes_on_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: tuple
) -> None:
    monkeypatch.setattr("anyformer.runs.checkpointing.SAFE_VALIDATION", 0.0)
    options = {"max_epochs": -1, "max_steps": 3, "val_check_interval": 3}
    assert in_a_fork(lambda: small_fit(tmp_path / "whole", **options)) == 0
    assert in_a_fork(lambda: small_fit(tmp_path / "run", callbacks=[Signal(*stop)], **options)) != 0
    assert read_manifest(tmp_path / "run/checkpoints")[-1]["file"] == "batch-00000003-validation.ckpt"
    assert in_a_fork(lambda: small_fit(tmp_path / "run", resume=True, **options)) == 0
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_a_signal_before_the_first_batch_gives_its_code(tmp_path: Path, whole: Path) -> None:
    term = Signal(signal.SIGTERM, 1, "on_sanity_check_start")
    assert in_a_fork(lambda: small_fit(tmp_path, callbacks=[term])) == 128 + signal.SIGTERM
    assert in_a_fork(lambda: small_fit(tmp_path, resume=True)) == 0
    assert_same_run(tmp_path, whole)


def test_a_signal_during_the_closing_test_gives_its_code_and_the_run_is_only_tested_again(
    tmp_path: Path, whole: Path
) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):

        def work(number: int = number) -> None:
            Classify.test_step = lambda *args: os.kill(os.getpid(), number)
            small_fit(tmp_path, resume=(tmp_path / "metrics.csv").exists())

        assert in_a_fork(work) == 128 + number
    assert in_a_fork(lambda: small_fit(tmp_path, resume=True)) == 0
    assert_same_run(tmp_path, whole)


def test_the_signals_have_their_old_handlers_after_a_run(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    small_fit(tmp_path, max_epochs=1, limit_train_batches=1)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    with pytest.raises(SystemExit, match="143"):
        small_fit(tmp_path / "stopped", callbacks=[Signal(signal.SIGTERM, 1)])
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
