"""A run that was killed, at any time, goes on and ends as one that never was: every bit of its weights, every row."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from anyformer.runs.checkpointing import Saving
from anyformer.saving.manifest import read_manifest
from anyformer.tasks.classify.classify import Classify
from tests.helpers.small_run import BATCHES, EPOCHS, in_a_fork, small_fit
from tests.helpers.stopped_runs import Signal, assert_same_run


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


def test_a_signal_at_the_last_batch_saves_before_the_validation(tmp_path: Path, whole: Path) -> None:
    term = Signal(signal.SIGTERM, BATCHES)
    assert in_a_fork(lambda: small_fit(tmp_path, callbacks=[term])) == 128 + signal.SIGTERM
    assert read_manifest(tmp_path / "checkpoints")[-1]["file"] == f"batch-{BATCHES:08d}-validation.ckpt"
    assert in_a_fork(lambda: small_fit(tmp_path, resume=True)) == 0
    assert_same_run(tmp_path, whole)


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
