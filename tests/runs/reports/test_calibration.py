"""A model that has learnt noise by heart is too sure; calibrated, its folder says what is as often right as it says."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightning import seed_everything
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image
from torch.multiprocessing import start_processes

from anyformer.errors import InputError
from anyformer.model.config import TransformerConfig
from anyformer.optim.optimizer import OptimizerConfig
from anyformer.runs.fit import evaluate, fit
from anyformer.runs.metrics_file import read_metrics, write_metrics
from anyformer.runs.reports.ending import final_metrics
from anyformer.saving.model_folder import load
from anyformer.tasks.base.records import Records
from anyformer.tasks.classify.classify import Classify
from anyformer.tasks.predict.predict import Predict
from anyformer.tasks.targets.category import Category
from anyformer.tasks.targets.regression import Regression
from anyformer.tokenizers.row import Row

FIELDS = {"x": Row()}
SMALL = TransformerConfig(d_model=16, depth=1, n_heads=2)
FAST = OptimizerConfig(lr=0.03, weight_decay=0.0)


def noisy(n: int, seed: int) -> list[dict[str, Any]]:
    """Of which a quarter has the wrong label."""
    random = np.random.default_rng(seed)
    numbers, is_wrong = random.normal(size=(n, 8)).tolist(), random.random(n) < 0.25
    return [
        {"x": dict(zip("abcdefgh", row, strict=True)), "label": "high" if (row[0] > 0) != wrong else "low"}
        for row, wrong in zip(numbers, is_wrong, strict=True)
    ]


def trained(run: Path, task: Any, data: Records | None = None, **options: Any) -> dict[str, float]:
    seed_everything(0, verbose=False)
    # One epoch, as a checkpoint is saved at the end of each.
    data = data or Records(40 * noisy(60, 0), noisy(300, 1), noisy(300, 2), batch_size=60)
    options = {"max_epochs": 1, "num_sanity_val_steps": 0, "enable_progress_bar": False, "accelerator": "cpu"} | options
    return fit(task, data, run, **options)


def test_an_over_confident_model_is_calibrated_on_the_validation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = Classify(FIELDS, SMALL, optimizer=FAST, calibrate=True)
    metrics = trained(tmp_path / "run", task)
    assert metrics["val/ece"] > 0.1 and metrics["calibrated/val/ece"] < metrics["val/ece"] / 2
    temperature = metrics["calibrated/temperature"]
    assert temperature > 1.5 and task.temperature == temperature
    errors = [f"{metrics[name]:.4f}" for name in ("val/ece", "calibrated/val/ece")]
    assert f"calibrated: val/ece {errors[0]} before, {errors[1]} after; val/loss" in capsys.readouterr().err
    with Image.open(tmp_path / "run/reliability.png") as picture:
        assert np.asarray(picture).std() > 1
    # It is the model's, whoever uses it; without it more is wrong in the test than with it.
    used, plain = load(tmp_path / "run"), load(tmp_path / "run")
    plain.head("label").temperature = 1.0
    data = Records(noisy(60, 0), test=noisy(300, 2))
    now, then = (evaluate(each, data, enable_progress_bar=False, accelerator="cpu") for each in (used, plain))
    assert now["test/ece"] == pytest.approx(metrics["test/ece"], abs=1e-6) and now["test/ece"] < then["test/ece"] / 2
    assert now["test/accuracy"] == then["test/accuracy"] and now["test/loss"] < then["test/loss"]
    records = noisy(5, 3)
    for result, before in zip(used.predict(records), plain.predict(records), strict=True):
        assert result["label"] == before["label"]
        shares = {name: p ** (1 / temperature) for name, p in before["probabilities"].items()}
        expected = {name: share / sum(shares.values()) for name, share in shares.items()}
        assert result["probabilities"] == pytest.approx(expected, rel=1e-4)
    # Gone on with, it is fitted anew.
    again = Classify(FIELDS, SMALL, optimizer=FAST, calibrate=True)
    assert trained(tmp_path / "run", again, resume=True)["calibrated/temperature"] == temperature


def test_each_target_that_asks_has_its_own_and_a_perfect_one_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def with_both(n: int, seed: int) -> list[dict[str, Any]]:
        up = [str(record["x"]["b"] > 0) for record in noisy(n, seed)]
        return [
            record | {"sign": sign, "other": sign, "x": record["x"] | {"c": 3.0 * (sign == "True")}}
            for record, sign in zip(noisy(n, seed), up, strict=True)
        ]

    targets = {"label": Category(calibrate=True), "sign": Category(calibrate=True), "other": Category()}
    data = Records(30 * with_both(40, 0), with_both(40, 1), batch_size=40)
    options = {"max_epochs": 1, "num_sanity_val_steps": 0, "enable_progress_bar": False, "accelerator": "cpu"}
    seed_everything(0, verbose=False)
    metrics = fit(Predict(FIELDS, targets, SMALL, optimizer=FAST), data, tmp_path / "run", **options)
    calibrated = {name.removeprefix("calibrated/") for name in metrics if name.startswith("calibrated/")}
    assert calibrated == {name for name in metrics if name.startswith("val/")} | {"temperature/label"}
    shown = final_metrics(tmp_path / "run", metrics)
    for name in ("val/loss", "val/label/loss", "val/label/ece"):
        assert shown[name] == metrics[f"calibrated/{name}"] != metrics[name]
    assert "not calibrated: all validation records are right" in capsys.readouterr().err
    kept = load(tmp_path / "run").targets
    assert kept["label"].temperature == metrics["calibrated/temperature/label"] != 1
    assert kept["sign"].temperature == kept["other"].temperature == 1
    assert (tmp_path / "run/reliability_label.png").exists()


def train_as_one_of_two(rank: int, port: int, run: Path) -> None:
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    # What the first process of a command sets in the others.
    rank_zero_only.rank = rank
    task = Classify(FIELDS, SMALL, optimizer=FAST, calibrate=True)
    # Batches of 60, of which there are seven in the validation, and the last has no partner.
    data = Records(20 * noisy(60, 0), noisy(370, 1), batch_size=60)
    metrics = trained(run, task, data, devices=2, strategy="ddp")
    (run / f"{rank}.json").write_text(json.dumps([task.temperature, metrics]))


def test_several_processes_fit_what_one_does(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start_processes(train_as_one_of_two, (port, run), nprocs=2, start_method="fork")
    assert capfd.readouterr().err.count("calibrated: val/ece") == 1
    (one, metrics), (other, same) = (json.loads((run / f"{rank}.json").read_text()) for rank in (0, 1))
    assert one == other == metrics["calibrated/temperature"] == load(run).temperature and metrics == same
    assert abs(one - 1) > 0.1
    task = load(run)
    task.begin_calibration()
    data = Records(noisy(60, 0), noisy(370, 1), batch_size=60)
    evaluate(task, data, "validate", enable_progress_bar=False, accelerator="cpu")
    assert list(task.end_calibration().values()) == [pytest.approx(one, rel=1e-5)]
    after = evaluate(task, data, "validate", enable_progress_bar=False, accelerator="cpu")
    assert after == pytest.approx({name: metrics[f"calibrated/{name}"] for name in after}, rel=1e-5)
    assert (run / "reliability.png").exists()


def test_what_has_started_the_processes_that_train_calibrates_by_itself(tmp_path: Path) -> None:
    task = Classify(FIELDS, SMALL, optimizer=FAST, calibrate=True)
    data = Records(20 * noisy(60, 0), noisy(130, 1), batch_size=60)
    metrics = trained(tmp_path / "run", task, data, devices=2, strategy="ddp_fork")
    assert metrics["calibrated/temperature"] == task.temperature == load(tmp_path / "run").temperature != 1
    assert task.predict(noisy(2, 3)) == load(tmp_path / "run").predict(noisy(2, 3))


def test_of_a_target_that_no_validation_record_has_the_run_ends_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    validation = [record | {"label": None, "size": i} for i, record in enumerate(noisy(20, 1))]
    data = Records([record | {"size": 1} for record in noisy(20, 0)], validation, batch_size=20)
    targets = {"label": Category(calibrate=True), "size": Regression()}
    task = Predict(FIELDS, targets, SMALL)
    options = {"max_epochs": 1, "num_sanity_val_steps": 0, "enable_progress_bar": False, "accelerator": "cpu"}
    fit(task, data, tmp_path / "run", **options)
    message = "not calibrated: no validation record has a value of the target (val/label/ece)\n"
    assert message in capsys.readouterr().err
    assert load(tmp_path / "run").targets["label"].temperature == 1
    # Of a run that was calibrated and has gone on nothing of then stays.
    write_metrics(tmp_path / "run", {"calibrated/val/size/mae": 0.25})
    fit(Predict(FIELDS, targets, SMALL), data, tmp_path / "run", resume=True, **options)
    metrics = read_metrics(tmp_path / "run")
    assert [v for name, v in metrics.items() if name.startswith("calibrated/")] == [None]


def test_without_validation_there_is_nothing_to_calibrate_on(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"calibrate: it is fitted on the validation records; give data\.validation"):
        fit(Classify(FIELDS, SMALL, calibrate=True), Records(noisy(20, 0)), tmp_path / "run")
    with pytest.raises(InputError, match=r"temperature must be above 0, got 0"):
        Classify(FIELDS, SMALL, temperature=0)
    data = Records(noisy(20, 0), noisy(20, 1))
    message = "calibrate: it is fitted on the validation records, which trainer.limit_val_batches: 0 leaves out; raise"
    with pytest.raises(InputError, match=message):
        fit(Classify(FIELDS, SMALL, calibrate=True), data, tmp_path / "limited", limit_val_batches=0)
    assert not (tmp_path / "limited").exists()
