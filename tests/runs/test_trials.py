"""Runs over folds and seeds: which they are, and what they come to."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from anyformer.errors import InputError
from anyformer.runs.trials import (
    Trial,
    by_unit,
    choose,
    list_trials,
    mean,
    read_trial,
    show_units,
    standard_error,
    write_trials,
)
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
    units = by_unit(trials, metrics)
    write_trials(tmp_path, metrics, units)
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["mean"] == {"best/val/accuracy": 1.0, "val/accuracy": pytest.approx(0.75)}
    # The folds come to 0.6 and 0.9: a deviation of 0.15 * sqrt(2), over sqrt(2).
    assert content["standard_error"]["val/accuracy"] == pytest.approx(0.15)
    assert read_trials(tmp_path) == metrics
    lines = show_units(units).splitlines()
    assert lines[0].split() == ["mean", "std.", "error", "fold_0", "fold_1"]
    assert lines[2].split() == ["val/accuracy", "0.7500", "0.1500", "0.6000", "0.9000"]
    assert len({len(line) for line in lines}) == 1 and len(lines) == 3


def test_what_only_some_runs_have_is_left_out_and_one_run_has_no_error(tmp_path: Path):
    def row(trials: list[Trial], metrics: dict) -> list[str]:
        return show_units(by_unit(trials, metrics)).splitlines()[1].split()

    trials = list_trials(None, 2)
    metrics = {"seed_0": {"val/loss": 1.0, "val/auroc": 0.5}, "seed_1": {"val/loss": 2.0}}
    assert row(trials, metrics) == ["val/loss", "1.5000", "0.5000", "1.0000", "2.0000"]
    assert show_units(by_unit(trials[:1], {"seed_0": {"train/loss": 1.0}})).startswith("There are no metrics")
    assert row(trials[:1], {"seed_0": {"val/loss": 1.0}}) == ["val/loss", "1.0000", "-", "1.0000"]
    assert not holds_trials(tmp_path) and read_trials(tmp_path) == {}
    write_trials(tmp_path, {}, {})
    assert holds_trials(tmp_path)


def test_nested_runs_are_listed_by_seed_fold_setting_and_inner_fold():
    trials = list_trials(2, 2, n_inner=1, n_settings=2)
    assert [trial.name for trial in trials[:3]] == [
        "fold_0_setting_0_inner_0_seed_0",
        "fold_0_setting_1_inner_0_seed_0",
        "fold_1_setting_0_inner_0_seed_0",
    ]
    assert len(trials) == 8 and {trial.unit for trial in trials} == {"fold_0", "fold_1"}
    assert list_trials(2, 1, 3, n_inner=2)[1].name == "fold_0_inner_1_seed_3"
    for trial in (*trials, *list_trials(2, 1, n_inner=3), *list_trials(2, 1), *list_trials(None, 2)):
        assert read_trial(trial.name) == trial


def of_run(validation: float | None, test: float, loss: float = 1.0) -> dict[str, float | None]:
    values = {"best/val/accuracy": validation, "test/accuracy": test, "best/val/loss": 2.0, "test/loss": loss}
    return {**values, "val/accuracy": 0.0, "best/step": 1}


def test_the_setting_of_the_best_inner_validation_counts_by_its_test_figure():
    trials = list_trials(2, 2, n_inner=1, n_settings=2)
    metrics = {
        # In the mean of the seeds the second is better, 0.75 to 0.7, though it has the worst run and the worse test.
        "fold_0_setting_0_inner_0_seed_0": of_run(0.7, 0.9),
        "fold_0_setting_0_inner_0_seed_1": of_run(0.7, 0.9),
        "fold_0_setting_1_inner_0_seed_0": of_run(0.6, 0.5),
        "fold_0_setting_1_inner_0_seed_1": of_run(0.9, 0.6),
        # Of equals the first.
        "fold_1_setting_0_inner_0_seed_0": of_run(0.8, 0.4),
        "fold_1_setting_1_inner_0_seed_0": of_run(0.8, 0.3),
        # It has no like of the first setting yet.
        "fold_1_setting_1_inner_0_seed_1": of_run(1.0, 1.0),
    }
    chosen = choose(trials, metrics, "val/accuracy", "max")
    assert {fold: choice.setting for fold, choice in chosen.items()} == {"fold_0": 1, "fold_1": 0}
    assert chosen["fold_0"].scores == {0: pytest.approx(0.7), 1: pytest.approx(0.75)}
    # That which chooses stands first.
    assert chosen["fold_0"].metrics == {
        "best/val/accuracy": pytest.approx(0.75),
        "test/accuracy": pytest.approx(0.55),
        "gap/accuracy": pytest.approx(-0.2),
        "best/val/loss": 2.0,
        "test/loss": 1.0,
        "gap/loss": -1.0,
    }
    assert next(iter(chosen["fold_0"].metrics)) == "best/val/accuracy"
    assert chosen["fold_1"].metrics["test/accuracy"] == 0.4
    lines = show_units({fold: choice.metrics for fold, choice in chosen.items()}).splitlines()
    # 0.55 and 0.4: half their difference is the standard error.
    assert lines[2].split() == ["test/accuracy", "0.4750", "0.0750", "0.5500", "0.4000"]
    smallest = choose(trials, metrics, "val/accuracy", "min")
    assert {fold: choice.setting for fold, choice in smallest.items()} == {"fold_0": 0, "fold_1": 0}


def test_a_fold_counts_once_all_its_settings_can_be_compared():
    trials = list_trials(2, 1, n_inner=2, n_settings=2)
    metrics = {"fold_1_setting_0_inner_0_seed_0": of_run(0.5, 0.5), "fold_1_setting_1_inner_1_seed_0": of_run(1.0, 1.0)}
    assert choose(trials, metrics, "val/accuracy", "max") == choose(trials, {}, "val/accuracy", "max") == {}
    # A loss that ran away is never chosen.
    metrics["fold_1_setting_0_inner_1_seed_0"] = of_run(None, 0.9)
    assert [choice.setting for choice in choose(trials, metrics, "val/accuracy", "max").values()] == [1]
    metrics["fold_1_setting_1_inner_1_seed_0"] = of_run(None, 0.9)
    chosen = choose(trials, metrics, "val/accuracy", "max")["fold_1"]
    assert (chosen.setting, chosen.metrics["gap/accuracy"], chosen.metrics["test/accuracy"]) == (0, None, 0.9)
    assert choose(trials, {"fold_0_setting_0_inner_0_seed_0": {"test/loss": 1.0}}, "val/accuracy", "max") == {}


def test_without_settings_the_inner_folds_are_averaged():
    trials = list_trials(2, 1, n_inner=2)
    metrics = {"fold_0_inner_0_seed_0": of_run(0.5, 0.4), "fold_0_inner_1_seed_0": of_run(0.7, 0.5)}
    chosen = choose(trials, metrics, "val/accuracy", "max")
    assert list(chosen) == ["fold_0"] and chosen["fold_0"].setting is None
    assert chosen["fold_0"].metrics["test/accuracy"] == pytest.approx(0.45)
