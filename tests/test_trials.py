"""Runs over folds and seeds: which they are, what they come to, and the command that trains them."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest
import yaml

from anyformer.__main__ import main
from anyformer.errors import InputError
from anyformer.trials import (
    Trial,
    holds_trials,
    list_trials,
    mean,
    read_trials,
    show_trials,
    standard_error,
    write_trials,
)

CONFIG = """\
trainer: {max_epochs: 1, accelerator: cpu, enable_progress_bar: false, limit_train_batches: 1}
model:
  class_path: Classify
  init_args:
    tokenizers: {image: {class_path: ImagePatches, init_args: {size: [8, 8], patch: 4, channels: 1}}}
    transformer: {d_model: 8, depth: 1, n_heads: 2}
data: {train: Digits, validation: 0.1, stratify: label, batch_size: 500}
"""


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


def test_seeds_are_averaged_within_a_fold_and_the_error_is_over_the_folds(tmp_path: Path):
    trials = list_trials(2, 2)
    values = {"fold_0_seed_0": 0.5, "fold_1_seed_0": 0.8, "fold_0_seed_1": 0.7, "fold_1_seed_1": 1.0}
    figures = {
        name: {"val/accuracy": value, "best/val/accuracy": 1.0, "best/step": 3, "train/loss": 1.0, "epoch": 1}
        for name, value in values.items()
    }
    write_trials(tmp_path, trials, figures)
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["mean"] == {"best/val/accuracy": 1.0, "val/accuracy": pytest.approx(0.75)}
    # The folds come to 0.6 and 0.9: a deviation of 0.15 * sqrt(2), over sqrt(2).
    assert content["standard_error"]["val/accuracy"] == pytest.approx(0.15)
    assert read_trials(tmp_path) == figures
    lines = show_trials(trials, figures).splitlines()
    assert lines[0].split() == ["mean", "std.", "error", "fold_0", "fold_1"]
    assert lines[2].split() == ["val/accuracy", "0.7500", "0.1500", "0.6000", "0.9000"]
    assert len({len(line) for line in lines}) == 1 and len(lines) == 3


def test_what_only_some_runs_have_is_left_out_and_one_run_has_no_error(tmp_path: Path):
    trials = list_trials(None, 2)
    figures = {"seed_0": {"val/loss": 1.0, "val/auroc": 0.5}, "seed_1": {"val/loss": 2.0}}
    assert show_trials(trials, figures).splitlines()[1].split() == ["val/loss", "1.5000", "0.5000", "1.0000", "2.0000"]
    assert show_trials(trials[:1], {"seed_0": {"val/loss": 1.0}}).splitlines()[1].split()[1:] == [
        "1.0000",
        "-",
        "1.0000",
    ]
    assert not holds_trials(tmp_path) and read_trials(tmp_path) == {}
    write_trials(tmp_path, trials, {})
    assert holds_trials(tmp_path)


# The command


def test_folds_are_trained_summed_up_and_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(CONFIG)
    command = ["fit", "--config", "small.yaml", "--folds", "2", "--seeds", "1", "--seed_everything", "3"]
    # What broke off before anything was learned is begun anew.
    assert main([*command, "--data.stratify=lable"]) == 2
    assert "no column 'lable'" in capsys.readouterr().err
    assert main(command) == 0
    run = Path("runs/small")
    first = read_trials(run)
    assert list(first) == ["fold_0_seed_3", "fold_1_seed_3"]
    out, err = capsys.readouterr()
    assert "val/accuracy" in out and "run 2 of 2" in err
    configs = [yaml.safe_load((run / name / "config.yaml").read_text()) for name in first]
    assert [(config["data"]["folds"], config["data"]["fold"]) for config in configs] == [(2, 0), (2, 1)]
    assert [config["seed_everything"] for config in configs] == [3, 3]
    # As if it had been broken off between the end of the second run and its figures.
    write_trials(run, list_trials(2, 1, 3), {"fold_0_seed_3": first["fold_0_seed_3"]})
    kept = [(run / name / "metrics.csv").read_bytes() for name in first]

    assert main(command) == 0
    assert read_trials(run) == first
    assert kept == [(run / name / "metrics.csv").read_bytes() for name in first]
    assert "run 2 of 2" in (err := capsys.readouterr().err) and "run 1 of 2" not in err
    # Each is a run like any other.
    assert main(["validate", str(run / "fold_1_seed_3")]) == 0
    assert f"{first['fold_1_seed_3']['best/val/accuracy']:.4f}" in capsys.readouterr().out

    for argv, message in [
        ([*command, "--model.transformer.d_model=16"], "fold_0_seed_3 was trained with another config: model"),
        (["fit", "--resume", "runs/small", "--folds", "2"], "--resume goes on with one run"),
        (
            ["test", "runs/small"],
            "runs/small holds the runs of several folds or seeds; name one of them, runs/small/fold",
        ),
        (["run", "runs/small", "image=a.png"], "name one of them, runs/small/fold_0_seed_3"),
        (["fit", "--config", "small.yaml"], "runs/small holds the runs of several folds or seeds"),
        (["fit", "--config", "small.yaml", "--run_dir", "runs/small/fold_0_seed_3", "--seeds", "2"], "holds a run"),
        (["fit", "--config", "small.yaml", "--run_dir", "b", "--folds", "1"], "--folds must be at least 2, got 1"),
    ]:
        assert main(argv) == 2
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1
    assert read_trials(run) == first
