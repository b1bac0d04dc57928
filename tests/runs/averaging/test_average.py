"""`anyformer.average`, and the command: one model of several runs, used like any run."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import anyformer
from anyformer.__main__ import main
from anyformer.errors import InputError
from anyformer.runs.metrics_file import read_metrics
from anyformer.saving.model_folder import load, save
from tests.helpers.small_cli import refused
from tests.tasks.ensemble.test_ensemble import member
from tests.tasks.predict.test_predict import records

CONFIG = """\
trainer: {max_epochs: 1, accelerator: cpu, enable_progress_bar: false, limit_train_batches: 1}
model:
  class_path: Classify
  init_args:
    tokenizers: {image: {class_path: ImagePatches, init_args: {size: [8, 8], patch: 4, channels: 1}}}
    transformer: {d_model: 8, depth: 1, n_heads: 2}
data: {train: Digits, validation: 0.1, test: 0.1, stratify: label, batch_size: 500}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs of two seeds."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        Path("small.yaml").write_text(CONFIG)
        assert main(["fit", "--config", "small.yaml", "--seeds", "2"]) == 0
    return home


@pytest.fixture
def at_home(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(trained, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


def test_a_folder_of_runs_becomes_one_that_is_tested_and_used_like_any(
    at_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["average", "runs/small", "--output", "runs/mean"]) == 0
    assert capsys.readouterr().out == (
        "runs/mean is the mean of the predictions of runs/small/seed_0, runs/small/seed_1.\n"
        "Next:\n  anyformer predict runs/mean image=...\n"
    )
    task = load("runs/mean")
    assert isinstance(task, anyformer.Ensemble) and len(task.runs) == 2
    assert main(["test", "runs/mean"]) == 0
    out = capsys.readouterr().out
    data = anyformer.Records(anyformer.Digits(), 0.1, 0.1, stratify="label")
    metrics = anyformer.evaluate(task, data, accelerator="cpu", enable_progress_bar=False)
    assert f"test/accuracy  {metrics['test/accuracy']:.4f}" in out
    assert read_metrics(Path("runs/mean"))["test/loss"] == pytest.approx(metrics["test/loss"], rel=1e-5)
    image = anyformer.Digits()[7]["image"]
    each = [load(f"runs/small/seed_{i}").predict([{"image": image}])[0]["probabilities"]["3"] for i in (0, 1)]
    assert task.predict([{"image": image}])[0]["probabilities"]["3"] == pytest.approx(sum(each) / 2, rel=1e-5)

    # What cannot be done with it is one line.
    for argv, message in (
        ("average runs/small --output runs/mean", "runs/mean is there already; choose another folder"),
        (
            "average runs/mean runs/small --output x",
            "runs/mean is of Ensemble, and predictions of Predict and Clas",
        ),
        ("export runs/mean x.safetensors", "timm has no counterpart of a Ensemble"),
        (
            "fit --config small.yaml --run_dir y --model.init_from runs/mean",
            "several models, and training starts from one",
        ),
    ):
        assert re.search(message, refused(capsys, *argv.split())), argv


def test_of_folds_no_validation_is_left(at_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = Path("runs/small/seed_0/config.yaml").read_text()
    for fold in (0, 1):
        assert "folds: null" in text and "fold: 0" in text
        own = text.replace("folds: null", "folds: 2").replace("fold: 0", f"fold: {fold}")
        Path(f"runs/small/seed_{fold}/config.yaml").write_text(own)
    assert main(["average", "runs/small", "--output", "runs/mean"]) == 0
    assert "Note: each run was trained on the other folds' validation records: the ave" in capsys.readouterr().out
    assert refused(capsys, "validate", "runs/mean").startswith("there are no validation records: give data.validation")
    assert main(["test", "runs/mean"]) == 0


def test_weights_of_runs_from_one_start_become_one_model(at_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = ["runs/small/seed_0", "runs/small/seed_1"]
    message = "did not start from the same weights (seed_everything: 0; seed_everything: 1)"
    assert message in refused(capsys, "average", *runs, "--weights", "--output", "runs/soup")
    assert not Path("runs/soup").exists()
    path = Path(runs[1], "config.yaml")
    path.write_text(path.read_text().replace("seed_everything: 1", "seed_everything: 0"))
    assert main(["average", *runs, "--weights", "--output", "runs/soup"]) == 0
    one, other, soup = (load_file(f"{run}/model/weights.safetensors") for run in (*runs, "runs/soup"))
    for name, value in soup.items():
        torch.testing.assert_close(value, (one[name] + other[name]) / 2)
    assert isinstance(load("runs/soup"), anyformer.Classify)
    assert main(["test", "runs/soup"]) == 0


def test_the_mean_of_weights_has_none_of_the_temperatures(tmp_path: Path) -> None:
    for seed, temperature in ((0, 2.0), (1, 0.25)):
        made = member(seed, train=records(30))
        made.targets["kind"] = replace(made.targets["kind"], calibrate=True, temperature=temperature)
        save(made, tmp_path / f"{seed}" / "model")
        (tmp_path / f"{seed}" / "config.yaml").write_text(
            "seed_everything: 0\nmodel: {class_path: Predict}\ndata: {class_path: Records}\n"
        )
    said = anyformer.average([tmp_path / "0", tmp_path / "1"], tmp_path / "mean", weights=True)
    assert "Note: its temperature is 1, not 2 and 0.25, to which the weights that it is the mean of" in said
    task = load(tmp_path / "mean")
    assert task.targets["kind"].temperature == task.head("kind").temperature == 1


def test_a_run_that_is_half_done_is_not_left_out(at_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = json.loads(Path("runs/small/metrics.json").read_text())
    del metrics["runs"]["seed_1"]
    Path("runs/small/metrics.json").write_text(json.dumps(metrics))
    message = "runs/small: seed_1 has not come to its end; give the same fit again, or name the runs to average"
    assert refused(capsys, "average", "runs/small", "--output", "x") == message
    one = "runs/small/seed_0"
    message = "runs/small/seed_0 is one run; name several, or give --weights for the mean of its checkpoints"
    assert refused(capsys, "average", one, "--output", "x") == message
    message = "a run is named twice, and would count twice; name each once"
    assert refused(capsys, "average", one, one, "--output", "x") == message


def test_runs_that_differ_are_named_with_what_differs(tmp_path: Path) -> None:
    save(member(0), tmp_path / "a" / "model")
    save(member(0, n_registers=1, tokenizers={"note": member().tokenizers["note"]}), tmp_path / "b" / "model")
    save(member(1), tmp_path / "c" / "model")
    with pytest.raises(InputError, match=r"a and .*b cannot be averaged: their fields are image .* and note"):
        anyformer.average([tmp_path / "a", tmp_path / "b"], tmp_path / "mean")
    # From Python there is no config.yaml, and none is made up.
    said = anyformer.average([tmp_path / "a", tmp_path / "c"], tmp_path / "mean")
    assert "not all of them have a config.yaml, so that it is tested from Python alone" in said
    assert not (tmp_path / "mean" / "config.yaml").exists()
    assert load(tmp_path / "mean").predict(records(1))[0]["width"]
