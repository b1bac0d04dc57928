"""The lines that a run writes while it trains, and why it ended."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lightning.pytorch.callbacks import EarlyStopping, LambdaCallback

from anyformer.runs.progress import duration
from anyformer.tasks.base.records import Records
from anyformer.tokenizers.image.sources import Digits
from tests.helpers.small_run import BATCHES, small_fit

BATCH = 240


@pytest.fixture(autouse=True)
def undrawn() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("anyformer.runs.checkpointing.draw_curves", lambda *_: None)
        patch.setattr("anyformer.tasks.predict.predict.Predict.draw", lambda self, folder: None)
        yield


BEFORE = ("records ", "label ", "parameters ", "device ", "run ")
"""What is said before training."""


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if not line.startswith(BEFORE)]


def test_without_a_terminal_there_is_a_line_for_each_validation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small_fit(tmp_path / "run", enable_progress_bar=None, max_epochs=2)
    out = lines(capsys)
    number = r"\d+\.?\d*(e-\d+)?"
    metrics = "  ".join(rf"{name} {number}" for name in ("train/loss", "val/loss"))
    others = "  ".join(rf"val/{name} {number}" for name in ("f1", "top5", "ece"))
    last = rf"val/accuracy {number} \(best {number}\)  {others}  [\d,]+ samples/s"
    first, second, end = out
    assert re.fullmatch(rf"epoch 1/2  step {BATCHES}/{2 * BATCHES}  {metrics}  {last}  [\d. mins]+ left", first), first
    assert re.fullmatch(rf"epoch 2/2  step {2 * BATCHES}/{2 * BATCHES}  {metrics}  {last}", second), second
    assert end == "ended after 2 epochs (trainer.max_epochs)"


def test_who_asks_for_no_bar_gets_no_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_fit(tmp_path / "run", max_epochs=1)
    assert capsys.readouterr().out == ""


def test_the_best_is_that_of_the_metric_that_chooses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_fit(tmp_path / "run", max_epochs=4, enable_progress_bar=None)
    pattern = r"val/accuracy ([\d.]+) \(best ([\d.]+)\)"
    shown = [re.search(pattern, line) for line in lines(capsys)[:-1]]
    values, bests = zip(*(map(float, each.groups()) for each in shown), strict=True)
    assert list(bests) == [max(values[: i + 1]) for i in range(4)]


def test_an_epoch_without_a_validation_has_a_line_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_fit(tmp_path / "run", max_epochs=3, check_val_every_n_epoch=2, enable_progress_bar=None)
    assert [("val/loss" in line, line.split("  ")[0]) for line in lines(capsys)[:-1]] == [
        (False, "epoch 1/3"), (True, "epoch 2/3"), (False, "epoch 3/3"),
    ]  # fmt: skip
    data = Records(Digits(), batch_size=BATCH)
    small_fit(tmp_path / "other", data=data, max_steps=3, max_epochs=-1, enable_progress_bar=None)
    line, end = lines(capsys)
    assert re.fullmatch(r"epoch 1  step 3/3  train/loss [\d.]+  [\d,]+ samples/s", line)
    assert end == "ended after 3 steps (trainer.max_steps)"


def test_validations_within_an_epoch_have_their_lines_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_fit(tmp_path / "run", max_epochs=1, val_check_interval=2, enable_progress_bar=None)
    steps = [line.split("  ")[1] for line in lines(capsys)[:-1]]
    assert steps == [f"step {n}/{BATCHES}" for n in (2, 4, 6)]


def test_the_pace_is_that_of_training_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ends = []
    slow = LambdaCallback(
        on_validation_epoch_start=lambda *_: time.sleep(1.0), on_validation_end=lambda *_: ends.append(time.monotonic())
    )
    options = {"num_sanity_val_steps": 0, "callbacks": [slow], "enable_progress_bar": None}
    small_fit(tmp_path / "run", max_epochs=2, **options)
    first, second, _ = lines(capsys)
    rate = int(re.search(r"([\d,]+) samples/s", second)[1].replace(",", ""))
    # The second epoch took that long, validation included.
    assert BATCHES * BATCH / rate < ends[1] - ends[0] - 0.95
    # What is left has a validation before it too.
    assert float(re.search(r"([\d.]+) s left", first)[1]) > 1.0


def test_a_line_is_written_at_once(tmp_path: Path) -> None:
    """By a process whose output goes into a pipe: the first line is read while it still trains."""
    program = """
import sys, time
from pathlib import Path
from lightning.pytorch.callbacks import LambdaCallback
from tests.helpers.small_run import small_fit

def wait(trainer, module):
    while trainer.current_epoch == 1 and not Path(sys.argv[2]).exists():
        time.sleep(0.05)

small_fit(Path(sys.argv[1]), callbacks=[LambdaCallback(on_train_epoch_start=wait)], enable_progress_bar=None)
"""
    read = tmp_path / "read"
    argv = [sys.executable, "-c", program, str(tmp_path / "run"), str(read)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        assert next(line for line in process.stdout if not line.startswith(BEFORE)).startswith("epoch 1/2  ")
        read.touch()
        assert process.stdout.read().startswith("epoch 2/2  ")
    assert process.returncode == 0


def test_a_run_that_was_stopped_early_says_by_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def stop():
        return EarlyStopping("val/loss", patience=1, mode="max")

    small_fit(tmp_path / "run", max_epochs=9, callbacks=[stop()], enable_progress_bar=None)
    n = int(re.fullmatch(
        r"ended early, after epoch (\d), by EarlyStopping: val/loss was not better for 1 validations",
        lines(capsys)[-1],
    )[1])  # fmt: skip
    assert 1 < n < 9
    small_fit(tmp_path / "run", max_epochs=9, callbacks=[stop()], resume=True, enable_progress_bar=None)
    assert (err := capsys.readouterr().err).startswith(f"nothing was trained: it ended early, after epoch {n}, by ")
    assert "raise trainer.max_epochs to train on" in err


def test_other_reasons_of_an_early_end_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stop = EarlyStopping("val/loss", stopping_threshold=100.0)
    small_fit(tmp_path / "first", max_epochs=5, callbacks=[stop], enable_progress_bar=None)
    end = lines(capsys)[-1]
    assert end.startswith("ended early, after epoch 1, by EarlyStopping: Stopping threshold reached: val/loss = ")

    def enough(trainer, *_):
        trainer.should_stop = True

    own = LambdaCallback(on_train_epoch_end=enough)
    small_fit(tmp_path / "own", max_epochs=50, callbacks=[own], enable_progress_bar=None)
    end = lines(capsys)[-1]
    assert end == f"ended early, in epoch 1 at step {BATCHES}, by a callback"


def test_a_run_that_its_time_ended_goes_on_with_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_fit(tmp_path / "run", max_epochs=9, max_time={"milliseconds": 1}, enable_progress_bar=None)
    assert re.fullmatch(
        r"ended by the trainer.max_time of 1 ms, at step \d; fit --resume with a longer one trains on",
        lines(capsys)[-1],
    )
    small_fit(tmp_path / "run", max_epochs=12, max_time={"milliseconds": 1}, resume=True)
    assert "nothing was trained: the trainer.max_time of 1 ms is used up; give a longer one" in capsys.readouterr().err
    small_fit(tmp_path / "run", max_epochs=2, max_time={"minutes": 9}, resume=True, enable_progress_bar=None)
    assert capsys.readouterr().out.endswith("ended after 2 epochs (trainer.max_epochs)\n")


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.0, "0 ms"), (0.5, "500 ms"), (59.4, "59.4 s"), (119.9, "2 min 0 s"), (3660, "1 h 1 min")]
)
def test_durations_are_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words
