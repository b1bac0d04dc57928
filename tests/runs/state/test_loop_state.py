"""Runs limited by steps or of several batches a step, and means over an epoch, go on exactly."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from lightning.pytorch.callbacks import LambdaCallback

from anyformer.runs.checkpointing import Saving
from anyformer.runs.metrics_file import read_rows
from anyformer.saving.manifest import read_manifest
from anyformer.tasks.classify.classify import Classify
from tests.helpers.small_run import BATCHES, in_a_fork, small_fit, small_task
from tests.helpers.stopped_runs import Signal, assert_same_run


@pytest.fixture(scope="module", autouse=True)
def without_pictures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("anyformer.runs.checkpointing.draw_curves", lambda *_: None)
        patch.setattr("anyformer.tasks.classify.classify.Classify.draw", lambda self, folder: None)
        yield


BY_STEPS = {"max_epochs": -1, "max_steps": 10, "val_check_interval": 3}


@pytest.fixture(scope="module")
def whole_by_steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole")
    small_fit(run, **BY_STEPS)
    return run


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


BY_4 = {"accumulate_grad_batches": 4, "val_check_interval": 3, "saving": Saving(every_n_steps=1)}


@pytest.fixture(scope="module")
def whole_by_4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose steps are of 4 batches, and the last of an epoch of 2."""
    run = tmp_path_factory.mktemp("whole")
    small_fit(run, **BY_4)
    return run


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


class Averaging(Classify):
    """Logs what Lightning averages over the epoch."""

    def training_step(self, batch, batch_index):
        loss = super().training_step(batch, batch_index)
        n = batch.tokens.n_samples
        self.log("train/mean", loss.detach() / n, on_step=False, on_epoch=True, batch_size=n)
        self.log("train/greatest", loss.detach() / n, on_step=False, on_epoch=True, reduce_fx="max", batch_size=n)
        # The first is the least, as the loss falls.
        self.log("train/least", -loss.detach() / n, on_step=False, on_epoch=True, reduce_fx="min", batch_size=n)
        if batch_index == 1:
            self.log("train/once", loss.detach(), on_step=False, on_epoch=True, batch_size=n)
        return loss


def averaging() -> Averaging:
    task = small_task()
    task.__class__ = Averaging
    return task


@pytest.mark.parametrize("batch", [2, BATCHES])
def test_means_over_an_epoch_go_on_too(tmp_path: Path, batch: int) -> None:
    whole, run, seen = tmp_path / "whole", tmp_path / "run", []

    def stop(*args) -> None:
        seen.append(0)
        if len(seen) == batch:
            os.kill(os.getpid(), signal.SIGTERM)

    stops = [LambdaCallback(on_train_batch_end=stop)]
    assert in_a_fork(lambda: small_fit(whole, task=averaging(), max_epochs=1)) == 0
    assert in_a_fork(lambda: small_fit(run, task=averaging(), max_epochs=1, callbacks=stops)) == 143
    assert in_a_fork(lambda: small_fit(run, task=averaging(), max_epochs=1, resume=True)) == 0
    assert (run / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    last = read_rows(run / "metrics.csv")[-1]
    mean, greatest, least = (float(last[f"train/{name}"]) for name in ("mean", "greatest", "least"))
    assert -least == greatest > mean > 1 and float(last["train/once"]) > 1, "numbers that say something"
