"""Runs over folds and seeds: which they are, and what they come to."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from anyformer.errors import InputError
from anyformer.runs.trials import Trial, list_trials, mean, show_trials, standard_error, write_trials
from anyformer.saving.run_folder import first_trial, holds_trials, read_trials


def test_every_fold_is_trained_before_another_seed_is_begun():
    assert [trial.name for trial in list_trials(2, 2, 5)] == [
        "fold_0_seed_5",
        "fold_1_seed_5",
        "fold_0_seed_6",
        "fold_1_seed_6",
    ]
    assert [trial.name for trial in list_trials(None, 2)] == ["seed_0", "seed_1"]
    assert (Trial(1, 5).unit, Trial(None, 5).unit) == ("fold_1", "seed_5")
    with pytest.raises(InputError, match=r"^--folds must be at least 2, got 1$"):
        list_trials(1, 1)
    with pytest.raises(InputError, match=r"^--seeds must be at least 1, got 0$"):
        list_trials(None, 0)


def test_the_standard_error_is_that_of_a_sample():
    values = [0.9, 0.8, 1.0, 0.9, 0.7]
    assert mean(values) == pytest.approx(statistics.mean(values))
    assert standard_error(values) == pytest.approx(statistics.stdev(values) / 5**0.5)
    assert standard_error([0.9]) is None and mean([0.9, None]) is None and standard_error([None, 1.0]) is None


def test_the_first_run_is_one_that_is_there(tmp_path: Path):
    assert first_trial(tmp_path).name == "seed_0"
    (tmp_path / "seed_4").mkdir()
    assert first_trial(tmp_path).name == "seed_4"


def test_seeds_are_averaged_within_a_fold_and_the_error_is_over_the_folds(tmp_path: Path):
    trials = list_trials(2, 2)
    values = {"fold_0_seed_0": 0.5, "fold_1_seed_0": 0.8, "fold_0_seed_1": 0.7, "fold_1_seed_1": 1.0}
    metrics = {
        name: {"val/accuracy": value, "best/val/accuracy": 1.0, "best/step": 3, "train/loss": 1.0, "epoch": 1}
        for name, value in values.items()
    }
    write_trials(tmp_path, trials, metrics)
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["mean"] == {"best/val/accuracy": 1.0, "val/accuracy": pytest.approx(0.75)}
    # The folds come to 0.6 and 0.9: a deviation of 0.15 * sqrt(2), over sqrt(2).
    assert content["standard_error"]["val/accuracy"] == pytest.approx(0.15)
    assert read_trials(tmp_path) == metrics
    lines = show_trials(trials, metrics).splitlines()
    assert lines[0].split() == ["mean", "std.", "error", "fold_0", "fold_1"]
    assert lines[2].split() == ["val/accuracy", "0.7500", "0.1500", "0.6000", "0.9000"]
    assert len({len(line) for line in lines}) == 1 and len(lines) == 3


def test_what_only_some_runs_have_is_left_out_and_one_run_has_no_error(tmp_path: Path):
    trials = list_trials(None, 2)
    metrics = {"seed_0": {"val/loss": 1.0, "val/auroc": 0.5}, "seed_1": {"val/loss": 2.0}}
    assert show_trials(trials, metrics).splitlines()[1].split() == ["val/loss", "1.5000", "0.5000", "1.0000", "2.0000"]
    assert show_trials(trials[:1], {"seed_0": {"train/loss": 1.0}}).startswith("There are no metrics")
    assert show_trials(trials[:1], {"seed_0": {"val/loss": 1.0}}).splitlines()[1].split()[1:] == [
        "1.0000",
        "-",
        "1.0000",
    ]
    assert not holds_trials(tmp_path) and read_trials(tmp_path) == {}
    write_trials(tmp_path, trials, {})
    assert holds_trials(tmp_path)
