"""A run that was killed, at any time, goes on and ends as one that never was: every bit of its weights, every row."""

from __future__ import annotations

import math
import os
import random
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import LambdaCallback
from safetensors.torch import load_file
from torch import Tensor

from anyformer.errors import InputError
from anyformer.model.config import ExpertsConfig, TransformerConfig
from anyformer.runs.checkpointing import Saving
from anyformer.saving.manifest import read_manifest
from anyformer.tasks.base.records import Records
from anyformer.tasks.classify.classify import Classify
from anyformer.tasks.language.language import LanguageModel
from anyformer.tokenizers.image.sources import Digits
from anyformer.tokenizers.text.corpus import Corpus
from anyformer.tokenizers.text.text import Text
from tests.helpers.small_run import BATCHES, EPOCHS, in_a_fork, small_fit, small_options
from tests.helpers.stopped_runs import Signal, assert_same_run


@pytest.fixture(scope="module", autouse=True)
def without_pictures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("anyformer.runs.checkpointing.draw_curves", lambda *_: None)
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


PATTERNS = (
    {"window": {"row": 1}},
    {"window": {"column": 0}, "global": ["class"], "random": 1},
    {"random": [[1], [0]]},
    {"compress": 2},
    {"linformer": 2, "length": 5},
)


def test_a_killed_run_with_every_pattern_and_experts_goes_on_exactly(tmp_path: Path) -> None:
    def run(name: str, **options: Any) -> None:
        given = small_options()
        choices = {"depth": 5, "patterns": PATTERNS, "experts": ExpertsConfig(n=3, every=2)}
        stack = replace(given["transformer"], attention_dropout=0.1, **choices)
        task = Classify(**given | {"transformer": stack})
        small_fit(tmp_path / name, task=task, max_epochs=1, **options)

    assert in_a_fork(lambda: run("run", callbacks=[Signal(signal.SIGKILL, 3)])) == -signal.SIGKILL
    run("run", resume=True)
    run("whole")
    assert_same_run(tmp_path / "run", tmp_path / "whole")


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
    ("saving", "batches"),
    [
        # At the first batch that begins more than a minute after the checkpoint before.
        (Saving(every_n_minutes=1), [[], [], [], [3], [3], [3]]),
        (Saving(None, every_n_steps=2), [[], [], [2], [2], [2, 4], [2, 4]]),
        (Saving(None), [[]] * 6),
    ],
)
def test_a_checkpoint_is_due_after_minutes_or_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saving: Saving, batches: list[list[int]]
) -> None:
    clock, saved = SimpleNamespace(now=0.0), []
    monkeypatch.setattr("anyformer.runs.checkpointing.time", SimpleNamespace(monotonic=lambda: clock.now))

    def pass_time(*_: Any) -> None:
        clock.now += 25
        saved.append([int(line["file"].split("-")[1]) for line in read_manifest(tmp_path / "checkpoints")])

    callback = LambdaCallback(on_train_batch_end=pass_time)
    small_fit(tmp_path, saving=saving, callbacks=[callback], max_epochs=1)
    assert saved == batches


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
    assert f"go on with: fit(..., run_dir='{tmp_path}', resume=True)" in capfd.readouterr().err
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


class Scripted(Classify):
    """Whose validations come to what is written, one after another."""

    values: list[float]
    best: str

    @property
    def metric(self) -> tuple[str, str]:
        return "val/value", self.best

    def report(self, stage: str) -> dict[str, float]:
        return {"value": 0.0 if self.trainer.sanity_checking or stage != "val" else self.values.pop(0)}


@pytest.mark.parametrize(
    ("best", "values", "kept"),
    [
        ("min", [math.nan, 3.0, 1.0, 1.0, math.nan, 2.0], 3),
        ("max", [math.nan, 1.0, 3.0, 3.0, math.nan, 2.0], 3),
        ("max", [-1.0, -2.0], 0),
    ],
)
def test_the_model_that_is_kept_is_the_least_or_most_never_that_of_nan_and_of_equals_the_later(
    tmp_path: Path, best: str, values: list[float], kept: int
) -> None:
    task, seen = Scripted(**small_options()), []
    task.values, task.best = list(values), best

    def look(trainer: Trainer, module: Classify) -> None:
        if not trainer.sanity_checking:
            seen.append((trainer.global_step, {n: w.clone() for n, w in module.best_weights().items()}))

    look_on = LambdaCallback(on_validation_end=look)
    metrics = small_fit(
        tmp_path,
        task=task,
        data=Records(Digits(), 0.01, batch_size=8),
        max_epochs=len(values),
        limit_train_batches=1,
        callbacks=[look_on],
    )
    assert metrics["best/val/value"] == values[kept] and len(seen) == len(values)
    weights = load_file(tmp_path / "model/weights.safetensors")
    same = [all(torch.equal(weights[name], own[name]) for name in weights) for _, own in seen]
    assert same == [i == kept for i in range(len(values))]
    assert metrics["best/step"] == seen[kept][0] - 1


class Watched(Classify):
    """Keeps its weights: before and after each step, and as each validation sees them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.began: list[dict[str, Tensor]] = []
        self.stepped: list[dict[str, Tensor]] = []
        self.validated: list[tuple[int, dict[str, Tensor]]] = []

    def _now(self) -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self.named_parameters()}

    def training_step(self, *given: Any) -> Tensor:
        self.began.append(self._now())
        return super().training_step(*given)

    def optimizer_step(self, *given: Any, **options: Any) -> None:
        super().optimizer_step(*given, **options)
        self.stepped.append(self._now())

    def evaluate(self, batch: Any) -> Any:
        self.validated.append((len(self.stepped), self._now()))
        return super().evaluate(batch)


def test_validation_sees_the_average_training_goes_on_from_the_raw_weights_and_the_model_is_the_average(
    tmp_path: Path,
) -> None:
    task = Watched(**small_options())
    metrics = small_fit(tmp_path, task=task, data=Records(Digits(), 0.01, batch_size=8), limit_train_batches=3)
    averages, average = [], dict(task.began[0])
    for step, weights in enumerate(task.stepped, start=1):
        decay = min(0.9, step / (9 + step))
        average = {name: decay * average[name] + (1 - decay) * value for name, value in weights.items()}
        averages.append(average)
    for n_steps, seen in task.validated:
        # Lightning tries a batch before the first step, and the test comes last, of the best.
        if 0 < n_steps < len(averages):
            torch.testing.assert_close(seen, averages[n_steps - 1])
    assert {n_steps for n_steps, _ in task.validated} == {0, 3, 6}
    for before, after in zip(task.stepped, task.began[1:], strict=False):
        torch.testing.assert_close(after, before, atol=0, rtol=0)
    kept = load_file(tmp_path / "model/weights.safetensors")
    best = averages[int(metrics["best/step"])]
    torch.testing.assert_close({name: kept[name] for name in best}, best)
    assert not torch.allclose(
        best["heads.class_head.output.weight"],
        task.stepped[int(metrics["best/step"])]["heads.class_head.output.weight"],
    )


def test_a_run_does_not_go_on_with_a_text_that_was_changed_in_place(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one two three\n" * 50)

    def train(epochs: int, **options: Any) -> None:
        task = LanguageModel(
            {"text": Text("bytes")},
            TransformerConfig(d_model=8, depth=1, n_heads=2),
            context=8,
            example=None,
            cache=str(tmp_path / "cache"),
        )
        small_fit(tmp_path / "run", task=task, data=Records(Corpus(str(path))), max_epochs=epochs, **options)

    train(1)
    # Of the same length; and the same text again, in another file, is the same data.
    path.write_text("one two eight\n" * 50)
    with pytest.raises(InputError, match=r"data.train is not what .* was trained on: the values of text have changed"):
        train(2, resume=True)
    path.unlink()
    path.write_text("one two three\n" * 50)
    train(2, resume=True)
