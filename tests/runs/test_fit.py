"""What a run folder holds, and what is not begun, resumed or tested."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, LambdaCallback

import anyformer
from anyformer.data.tables import Table
from anyformer.errors import InputError
from anyformer.faults import MachineError
from anyformer.model.config import TransformerConfig
from anyformer.runs.checkpoint_io import Checkpoints
from anyformer.runs.checkpointing import Saving
from anyformer.runs.fit import evaluate, fit
from anyformer.runs.metrics_file import read_rows
from anyformer.runs.signals import Stopped
from anyformer.saving.manifest import describe_file, read_manifest, write_manifest
from anyformer.saving.model_folder import load
from anyformer.tasks.base.records import Records
from anyformer.tasks.classify.classify import Classify
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.image.sources import Digits
from anyformer.tokenizers.row import Row
from tests.helpers.damage import cut, flip
from tests.helpers.small_run import AUGMENT, BATCHES, EPOCHS, in_a_fork, small_data, small_fit, small_task


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float], Classify]:
    run = tmp_path_factory.mktemp("runs") / "small"
    task = small_task()
    return run, small_fit(run, task=task), task


@pytest.fixture
def copy(trained: tuple, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained[0], tmp_path / "run"))


def test_a_run_folder_holds_what_is_promised(trained: tuple) -> None:
    run, metrics, _ = trained
    assert sorted(os.listdir(run)) == [
        "by_class.csv", "checkpoints", "confusion.png", "curves.png", "metrics.csv", "metrics.json", "model",
        "reliability.png", "samples.png",
    ]  # fmt: skip
    assert sorted(os.listdir(run / "model")) == ["config.json", "manifest.jsonl", "usage.json", "weights.safetensors"]
    assert len(os.listdir(run / "checkpoints")) == 3
    assert metrics == json.loads((run / "metrics.json").read_text())
    assert {"train/loss", "val/loss", "val/accuracy", "test/accuracy", "best/val/accuracy"} <= metrics.keys()
    rows = read_rows(run / "metrics.csv")
    assert [int(row["step"]) for row in rows] == list(range(len(rows)))
    assert max(float(row["val/accuracy"] or 0) for row in rows) == metrics["best/val/accuracy"]


def test_the_model_is_the_same_from_any_folder(trained: tuple, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run, metrics, task = trained
    shutil.copytree(run / "model", tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    records = [Digits()[i] for i in range(5)]
    for folder in (run, tmp_path, Path("model")):
        loaded = anyformer.load(folder)
        assert not loaded.training
        assert loaded.predict(records) == task.predict(records)
    assert evaluate(loaded, small_data(), "test", accelerator="cpu", enable_progress_bar=False) == pytest.approx(
        {name: value for name, value in metrics.items() if name.startswith("test/")}
    )


def test_an_evaluation_is_a_test_or_a_validation(trained: tuple) -> None:
    with pytest.raises(InputError, match=r"^stage must be test or validate, got 'predict'"):
        evaluate(trained[2], small_data(), "predict")


@pytest.mark.parametrize("stage", ["test", "validate"])
def test_an_evaluation_of_no_batch_is_refused_and_a_fit_leaves_the_test_out(
    trained: tuple, tmp_path: Path, stage: str
) -> None:
    limit = "limit_test_batches" if stage == "test" else "limit_val_batches"
    with pytest.raises(InputError, match=f"^trainer.{limit}: 0 leaves out all records, and there is nothing to eval"):
        evaluate(load(trained[0]), small_data(), stage, accelerator="cpu", **{limit: 0})
    metrics = small_fit(tmp_path, max_epochs=1, limit_train_batches=1, **{limit: 0})
    assert any(name.startswith("test/") for name in metrics) == (stage == "validate")


def test_the_averaged_weights_are_the_ones_kept(trained: tuple) -> None:
    """A run whose best model is the last: its weights are the moving average, not what the optimiser had."""
    state = Checkpoints().load_checkpoint(sorted((trained[0] / "checkpoints").glob("*.ckpt"))[-1])
    kept = load(trained[0]).state_dict()
    name = "heads.class_head.output.weight"
    assert not torch.equal(kept[name], state["state_dict"][name])


def test_a_run_never_starts_over_in_a_folder_that_holds_another(copy: Path) -> None:
    with pytest.raises(
        InputError, match=f"{copy} already holds a run; go on with resume=True, or choose another run_dir"
    ):
        small_fit(copy)


def test_what_broke_off_before_anything_was_learned_is_written_over(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the trainer's options cannot be used: .*barebones"):
        small_fit(tmp_path, barebones=True)
    assert (tmp_path / "metrics.csv").exists()
    small_fit(tmp_path, max_epochs=1, limit_train_batches=1)


def test_resuming_needs_a_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no run to resume; start one with fit"):
        small_fit(tmp_path / "nothing", resume=True)


def test_a_finished_run_resumed_ends_as_it_was(copy: Path, trained: tuple) -> None:
    assert small_fit(copy, resume=True) == trained[1]
    assert (copy / "metrics.csv").read_text() == (trained[0] / "metrics.csv").read_text()


def test_a_run_that_never_saved_begins_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    die = LambdaCallback(on_train_batch_end=lambda *args: os.kill(os.getpid(), signal.SIGKILL))
    assert in_a_fork(lambda: small_fit(tmp_path, saving=Saving(None), callbacks=[die])) == -signal.SIGKILL
    small_fit(tmp_path, resume=True, max_epochs=1, limit_train_batches=1)
    assert "no checkpoint yet: starting from the beginning" in capfd.readouterr().err


@pytest.mark.parametrize("harm", [cut, flip])
def test_a_damaged_checkpoint_is_passed_over(
    copy: Path, trained: tuple, harm, capfd: pytest.CaptureFixture[str]
) -> None:
    last = sorted((copy / "checkpoints").glob("*.ckpt"))[-1]
    harm(last)
    assert small_fit(copy, resume=True) == trained[1]
    said = capfd.readouterr().err
    assert f"{last.name} is damaged" in said
    assert "going on from" in said


@pytest.mark.parametrize(
    ("name", "harm", "message"),
    [
        (
            "checkpoints/manifest.jsonl",
            os.unlink,
            r"is missing: the run's checkpoints are lost; copy the run anew",
        ),
        ("checkpoints/manifest.jsonl", lambda path: path.write_text(""), r"has no line of batch-\d+-\w+.ckpt, batch-"),
        ("checkpoints", shutil.rmtree, r"manifest.jsonl is missing: the run's checkpoints are lost"),
        ("metrics.csv", os.unlink, r"metrics.csv is missing; copy the run anew, or train again"),
        ("metrics.csv", cut, r"metrics.csv is damaged: its first \d+ rows are not those that it had"),
        ("metrics.csv", lambda path: path.write_text(path.read_text().replace(",0.", ",1.", 1)), r"its first \d+ rows"),
        ("metrics.csv", lambda path: path.write_bytes(b"\xff\xfe"), r"metrics.csv is damaged: "),
        ("metrics.json", cut, r"metrics.json is damaged .* or remove it: it is written anew"),
        ("metrics.json", lambda path: path.write_text('{"val/loss": "low"}'), r"metrics.json is damaged: 'val/loss'"),
    ],
)
def test_what_is_lost_of_a_run_is_said_and_nothing_begins_anew_or_is_removed(
    copy: Path, name: str, harm, message: str
) -> None:
    harm(copy / name)
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=message) as caught:
        small_fit(copy, resume=True, max_epochs=EPOCHS + 1)
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("exchange", [lambda labels: labels[::-1], lambda labels: labels[:-1]])
def test_other_records_are_not_gone_on_with(tmp_path: Path, exchange) -> None:
    def data(labels: list[str]) -> Records:
        rows = [json.dumps({"x": {"a": f"n{i % 5}"}, "kind": label}) for i, label in enumerate(labels)]
        (tmp_path / "data.jsonl").write_text("\n".join(rows))
        return Records(Table(str(tmp_path / "data.jsonl")), batch_size=8)

    def train(labels: list[str], epochs: int, resume: bool) -> None:
        task = Classify({"x": Row()}, TransformerConfig(8, 1, 2), target="kind")
        options = {"accelerator": "cpu", "enable_progress_bar": False, "max_epochs": epochs}
        fit(task, data(labels), tmp_path / "run", resume=resume, **options)

    labels = [*"ab" * 8, "a", "b", "b"]
    train(labels, 1, resume=False)
    train(labels, 2, resume=True)
    with pytest.raises(InputError, match=r"data.train is not what .* trained on: (the values of kind|19 records)"):
        train(exchange(labels), 3, resume=True)


def test_another_model_is_not_resumed(copy: Path) -> None:
    with pytest.raises(InputError, match=r"is of another task: transformer.d_model was 16 and is now 32; resume with"):
        small_fit(copy, resume=True, task=small_task(d_model=32), max_epochs=EPOCHS + 1)


def test_other_classes_or_tokenizers_are_not_resumed(copy: Path) -> None:
    files = {name: (copy / name).read_bytes() for name in ("metrics.csv", "metrics.json")}
    other = small_task()
    other.classes = ["1", "0", *map(str, range(2, 10))]
    with pytest.raises(InputError, match=r"is of another task: classes.0 was '0' and is now '1'; resume with the"):
        small_fit(copy, resume=True, task=other, max_epochs=EPOCHS + 1)
    other = Classify(
        {"image": ImagePatches(size=(8, 8), patch=4, channels=1, augment=replace(AUGMENT, shift=2.0))},
        small_task().transformer,
    )
    with pytest.raises(InputError, match=r"another task: tokenizers.image.augment.shift was 1.0 and is now 2.0"):
        small_fit(copy, resume=True, task=other, max_epochs=EPOCHS + 1)
    assert files == {name: (copy / name).read_bytes() for name in files}


def test_another_optimiser_setting_is_resumed(copy: Path) -> None:
    other = small_task()
    other.optimizer = replace(other.optimizer, lr=0.02)
    metrics = small_fit(copy, resume=True, task=other, max_epochs=EPOCHS + 1, limit_train_batches=BATCHES)
    assert metrics["epoch"] == EPOCHS


def test_a_run_that_stopped_early_trains_on_only_when_it_may_train_for_longer(tmp_path: Path) -> None:
    def stop() -> EarlyStopping:
        return EarlyStopping("val/loss", divergence_threshold=0.0)

    metrics = small_fit(tmp_path, callbacks=[stop()], max_epochs=5)
    assert metrics["epoch"] == 0
    rows = (tmp_path / "metrics.csv").read_text()
    for epochs in (5, 4):
        assert small_fit(tmp_path, callbacks=[stop()], max_epochs=epochs, resume=True) == metrics
        assert (tmp_path / "metrics.csv").read_text() == rows
    assert small_fit(tmp_path, callbacks=[stop()], max_epochs=6, resume=True)["epoch"] == 1


def test_a_checkpoint_that_would_run_code_is_not_resumed(copy: Path) -> None:
    path = copy / "checkpoints/batch-99999999-epoch.ckpt"
    torch.save({"state_dict": os.system}, path)
    write_manifest(path.parent, [*read_manifest(path.parent), describe_file(path)])
    with pytest.raises(InputError, match=r"batch-99999999-epoch.ckpt is refused: .* would run code \(posix.system\)"):
        small_fit(copy, resume=True)


@pytest.mark.parametrize("field", ["every_n_minutes", "every_n_steps"])
def test_saving_never_is_null_and_not_0(field: str) -> None:
    with pytest.raises(InputError, match=f"checkpoints.{field} must be above 0, or null for never, got 0"):
        Saving(**{field: 0})


def test_a_model_that_was_loaded_is_trained_with_its_dropout(trained: tuple, tmp_path: Path) -> None:
    """Loaded models come in evaluation mode."""
    task, modes = load(trained[0]), []
    assert not any(part.training for part in task.modules())

    def note(trainer: Any, module: Classify, *_: Any) -> None:
        modes.extend(part.training for part in module.modules())

    watch = LambdaCallback(on_train_batch_start=note)
    small_fit(tmp_path, task=task, max_epochs=1, limit_train_batches=1, callbacks=[watch])
    assert modes and all(modes)


def test_without_validation_the_last_model_is_kept(tmp_path: Path) -> None:
    task, data = small_task(), small_data()
    data.given["validation"] = data.given["test"] = None
    metrics = fit(
        task, data, tmp_path, max_epochs=1, limit_train_batches=1, accelerator="cpu", enable_progress_bar=False
    )
    assert "test/accuracy" not in metrics
    assert load(tmp_path).classes == [str(digit) for digit in range(10)]


@pytest.mark.parametrize("fast_dev_run", [False, True])
def test_what_is_not_kept_is_not_to_be_gone_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fast_dev_run: bool
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/somewhere")

    def stop(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    for work, kind in ((fail, MachineError), (stop, Stopped)):
        run = tmp_path / work.__name__
        with pytest.raises(kind) as error:
            small_fit(run, callbacks=[LambdaCallback(on_train_batch_end=work)], fast_dev_run=fast_dev_run)
        said = f"{error.value} {capsys.readouterr().err}"
        assert (f"go on with: fit(..., run_dir='{run}', resume=True)" in said) == (not fast_dev_run)
        assert ("resume" in said) == (not fast_dev_run)
