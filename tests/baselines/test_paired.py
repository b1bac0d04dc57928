"""Runs of folds beside simple models."""

from __future__ import annotations

import math

import pytest

from anyformer.baselines.paired import pair, runs_in
from anyformer.baselines.report import Best, Outcome
from anyformer.runs.trials import Trial, by_unit, write_trials


def best(values, metric="accuracy", target=""):
    name = f"val/{target and f'{target}/'}{metric}"
    outcomes = [
        Outcome(Trial(fold, seed), {name: value}) for seed, row in enumerate(values) for fold, value in enumerate(row)
    ]
    return Best(target, metric, ["forest"], outcomes)


def test_folds_are_paired_and_seeds_averaged_within_them():
    theirs = best([[0.5, 0.6, 0.7], [0.7, 0.6, 0.7]])
    runs = {f"fold_{fold}": {"val/accuracy": value} for fold, value in enumerate([0.8, 0.6, 0.6])}
    found = pair(theirs, "max", runs, "val/")
    assert found.differences == pytest.approx([0.2, 0.0, -0.1])
    error = math.sqrt(sum((each - 0.1 / 3) ** 2 for each in (0.2, 0.0, -0.1)) / 6)
    assert found.plain()["difference"] == pytest.approx(0.1 / 3) and found.plain()["standard_error"] == pytest.approx(
        error
    )
    assert str(found) == (
        "The runs less the best of these: val/accuracy +0.0333 ±0.0882 (0.6667 ±0.0667 against 0.6333 ±0.0333), "
        "better in 1 of 3 folds"
    )
    assert "better in 1 of 3" in str(pair(theirs, "min", runs, "val/"))


def test_what_has_nothing_in_common_has_no_pair():
    theirs = best([[0.5, 0.6]])
    assert pair(theirs, "max", {"fold_0": {"val/f1": 0.8}}, "val/") is None
    assert pair(theirs, "max", {"seed_0": {"val/accuracy": 0.8}}, "val/") is None
    assert pair(best([[0.5]], "auroc"), "max", {"fold_0": {"val/accuracy": 0.8}}, "val/") is None
    half = pair(theirs, "max", {"fold_1": {"val/accuracy": 0.9}, "fold_0": {"val/accuracy": None}}, "val/")
    assert half.ours == {"fold_1": 0.9} and half.plain()["standard_error"] is None


def test_of_several_targets_each_has_its_own():
    found = pair(best([[1.0, 2.0]], "rmse", "price"), "min", {"fold_0": {"test/price/rmse": 0.5}}, "test/")
    assert found.metric == "test/price/rmse" and found.differences == [-0.5]
    of_task = pair(best([[0.5]]), "max", {"fold_0": {"val/digits/accuracy": 0.75}}, "val/", "digits")
    assert of_task.metric == "val/digits/accuracy" and of_task.differences == [0.25]


def test_runs_are_read_with_what_chose_nothing_in_them(tmp_path):
    trials = [Trial(fold, seed) for seed in range(2) for fold in range(2)]
    metrics = {trial.name: {"val/accuracy": 0.1 * (1 + trial.fold) + trial.seed} for trial in trials}
    write_trials(tmp_path, metrics, by_unit(trials, metrics))
    units, part = runs_in(tmp_path)
    assert part == "val/" and units["fold_1"]["val/accuracy"] == pytest.approx(0.7)
    write_trials(tmp_path, metrics, {}, folds={"fold_0": {"test/accuracy": 0.3}})
    assert runs_in(tmp_path) == ({"fold_0": {"test/accuracy": 0.3}}, "test/")
