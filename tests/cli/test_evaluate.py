"""`anyformer validate` and `anyformer test`, called in the process."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

import anyformer
from anyformer.__main__ import main
from anyformer.runs.metrics_file import read_metrics
from tests.helpers.small_cli import CONFIG, refused

pytestmark = pytest.mark.usefixtures("at_home")


def test_test_and_validate_give_the_best_models_figures(capsys: pytest.CaptureFixture[str]) -> None:
    before = read_metrics(Path("runs/small"))
    assert main(["test", "runs/small"]) == 0
    assert f"test/accuracy  {before['test/accuracy']:.4f}" in capsys.readouterr().out
    assert main(["validate", "runs/small", "--data.n_workers=1"]) == 0
    assert f"val/accuracy  {before['best/val/accuracy']:.4f}" in capsys.readouterr().out
    assert read_metrics(Path("runs/small")) == before


def test_the_predictions_are_kept_in_the_run_folder(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("runs/small/predictions.csv")
    for command, metric in (("test", "test/accuracy"), ("validate", "val/accuracy")):
        assert main([command, "runs/small"]) == 0
        out, err = capsys.readouterr()
        rows = list(csv.DictReader(path.read_text().splitlines()))
        assert re.search(rf"the predictions of the {len(rows)} \w+ records are in {path}\n", err)
        right = sum(row["label"] == row["true_label"] for row in rows) / len(rows)
        assert f"{metric}  {right:.4f}" in out
        path.unlink()
        assert main([command, "runs/small", "--no-predictions"]) == 0
        assert f"{metric}  {right:.4f}" in capsys.readouterr().out and not path.exists()
        # Of other records nothing is kept.
        assert main([command, "runs/small", "--data.validation=0.2", "--data.test=0.2"]) == 0
        capsys.readouterr()
        assert not path.exists()


def test_other_records_are_tested_without_changing_the_runs_figures(capsys: pytest.CaptureFixture[str]) -> None:
    before = read_metrics(Path("runs/small"))
    for override in (["--data.test=0.5"], ["--data.test", "0.5"], ["--trainer.limit_test_batches=1"]):
        assert main(["test", "runs/small", *override]) == 0
        assert "test/accuracy" in capsys.readouterr().out
        assert read_metrics(Path("runs/small")) == before


def test_views_are_averaged_in_evaluation_and_use(at_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shifted = CONFIG.replace("channels: 1", "channels: 1, augment: {shift: 2.0}")
    Path("shifted.yaml").write_text(shifted)
    assert main(["fit", "--config", "shifted.yaml"]) == 0
    capsys.readouterr()
    shown = {}
    for views in ("1", "3"):
        assert main(["test", "runs/shifted", "--views", views]) == 0
        shown[views] = capsys.readouterr().out
    assert main(["test", "runs/shifted"]) == 0
    assert capsys.readouterr().out == shown["1"] != shown["3"]
    metrics = read_metrics(Path("runs/shifted"))
    task = anyformer.load("runs/shifted")
    task.views = 3
    data = anyformer.Records(train=anyformer.Digits(), validation=0.1, test=0.1, stratify="label", batch_size=50)
    mean = anyformer.evaluate(task, data, accelerator="cpu", enable_progress_bar=False)
    assert f"test/loss      {mean['test/loss']:.4f}" in shown["3"]
    assert read_metrics(Path("runs/shifted")) == metrics
    assert main(["predict", "runs/shifted", "image=seven.png", "--json", "--views", "3"]) == 0
    assert json.loads(capsys.readouterr().out) == task.predict([{"image": "seven.png"}])[0]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("test runs/small --views 0", "views must be at least 1, got 0"),
        ("test runs/small --views 4", "all 4 would be the same, as nothing augments image in training; give a tokeni"),
        ("predict runs/small image=seven.png --views 4", "all 4 would be the same, as nothing augments image"),
        ("test", "the following arguments are required: RUN; see anyformer test --help"),
        ("test --data.test 0.5 runs/small", "the run's folder stands first, got --data.test: anyformer test RUN"),
        ("test runs/absent", "there is no run folder runs/absent; a run is a local folder that fit has written"),
        (
            "test runs/small --data.test=null",
            "there are no test records: give data.test a source, a path or a fraction",
        ),
        ("test runs/small --data.test=absent.csv", "absent.csv: no such file"),
    ],
)
def test_a_wrong_command_is_refused_in_one_line(argv: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert re.search(message, refused(capsys, *argv.split()))
