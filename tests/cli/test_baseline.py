"""`anyformer baseline`, called in the process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anyformer.__main__ import main
from anyformer.baselines import models
from tests.helpers.small_cli import refused

pytestmark = pytest.mark.usefixtures("at_home")


def test_the_command_compares_on_the_records_of_a_config_or_a_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "N_TREES", 40)
    few = ["--records", "200"]
    assert main(["baseline", "small.yaml", *few]) == 0
    told = capsys.readouterr().out
    assert "Classify, image -> label; 1,437 train, 180 validation, 180 test records" in told
    assert "Best by the training records alone: " in told and "- a sample of 200 of the 1,437 training records" in told
    # A run has the records of its config, which is complete: nothing is added to it from what it started from.
    with monkeypatch.context() as patched:
        patched.setattr("anyformer.runs.experiment.find_start", None)
        assert main(["baseline", "runs/small", *few]) == 0
    assert capsys.readouterr().out == told
    assert main(["baseline", "small.yaml", *few, "--folds", "2", "--json", "--data.test=null"]) == 0
    (found,) = json.loads(capsys.readouterr().out).values()
    forest = found["baselines"][-1]
    assert forest["model"] == "random forest" and forest["values"]["val/accuracy"].keys() == {"fold_0", "fold_1"}
    assert forest["mean"]["val/accuracy"] > 0.8 and forest["standard_error"]["val/accuracy"] > 0
    assert "test/accuracy" not in forest["mean"]


def test_runs_of_folds_are_shown_less_the_best_of_each_fold(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "N_TREES", 40)
    assert main(["fit", "--config", "small.yaml", "--folds", "2", "--run_dir", "two", "--data.test=null"]) == 0
    assert "Simple models on the same records: anyformer baseline two\n" in capsys.readouterr().out
    assert main(["baseline", "two", "--records", "200", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out).values()
    (paired,), (best,) = found["runs"], found["best"]
    assert paired["theirs"] == best["values"]["val/accuracy"]
    runs = json.loads(Path("two/metrics.json").read_text())["runs"]
    assert paired["ours"] == {f"fold_{i}": runs[f"fold_{i}_seed_0"]["val/accuracy"] for i in range(2)}
    assert main(["baseline", "two", "--records", "200"]) == 0
    assert "\nThe runs less the best of these: val/accuracy -0." in capsys.readouterr().out
    message = refused(capsys, "baseline", "two", "--folds", "3")
    assert "--folds must be 2, as that of the runs in two, got 3" in message


def test_what_cannot_be_used_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--folds must be at least 2, got 1" in refused(capsys, "baseline", "small.yaml", "--folds", "1")
    assert "--records must be at least 10, got 3" in refused(capsys, "baseline", "small.yaml", "--records", "3")
    assert "none.yaml" in refused(capsys, "baseline", "none.yaml")
    assert "no column 'lable'" in refused(capsys, "baseline", "small.yaml", "--data.stratify=lable")
    assert "the config stands first" in refused(capsys, "baseline", "--json", "small.yaml")
