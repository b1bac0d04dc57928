"""The command that trains runs over folds and seeds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from anyformer.__main__ import main
from anyformer.runs.trials import list_trials, write_trials
from anyformer.saving.run_folder import read_trials

CONFIG = """\
trainer: {max_epochs: 1, accelerator: cpu, enable_progress_bar: false, limit_train_batches: 1}
model:
  class_path: Classify
  init_args:
    tokenizers: {image: {class_path: ImagePatches, init_args: {size: [8, 8], patch: 4, channels: 1}}}
    transformer: {d_model: 8, depth: 1, n_heads: 2}
data: {train: Digits, validation: 0.1, stratify: label, batch_size: 500}
"""


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
    # As if it had been broken off between the end of the second run and its metrics.
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
        (["predict", "runs/small", "image=a.png"], "name one of them, runs/small/fold_0_seed_3"),
        (["fit", "--config", "small.yaml"], "runs/small holds the runs of several folds or seeds"),
        (["fit", "--config", "small.yaml", "--run_dir", "runs/small/fold_0_seed_3", "--seeds", "2"], "holds a run"),
        (["fit", "--config", "small.yaml", "--run_dir", "b", "--folds", "1"], "--folds must be at least 2, got 1"),
    ]:
        assert main(argv) == 2
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1
    assert read_trials(run) == first


def test_runs_that_are_not_asked_for_stay_and_others_are_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(CONFIG)
    assert main(["fit", "--config", "small.yaml", "--seeds", "2"]) == 0
    before = Path("runs/small/metrics.json").read_bytes()
    assert list(json.loads(before)["runs"]) == ["seed_0", "seed_1"]
    for options, message in [
        (["--seeds", "1", "--model.transformer.d_model=16"], "seed_0 was trained with another config: model"),
        (["--seeds", "1", "--seed_everything=7", "--model.transformer.d_model=16"], "seed_0 was trained with another"),
        (["--folds", "2"], "runs/small/seed_0 is no fold; choose another --run_dir"),
    ]:
        assert main(["fit", "--config", "small.yaml", *options]) == 2
        assert message in capsys.readouterr().err
        assert Path("runs/small/metrics.json").read_bytes() == before
    # Both count, though one is asked for.
    assert main(["fit", "--config", "small.yaml", "--seeds", "1"]) == 0
    assert Path("runs/small/metrics.json").read_bytes() == before
    assert "seed_1" in capsys.readouterr().out
    # Of other folds.
    metrics = {f"fold_{i}_seed_0": {"val/loss": 1.0} for i in range(3)}
    write_trials(Path("folds"), list_trials(3, 1), metrics)
    for name in metrics:
        resolved = yaml.safe_load(Path("runs/small/seed_0/config.yaml").read_text())
        resolved["data"] |= {"folds": 3, "fold": int(name[5])}
        Path("folds", name).mkdir()
        Path("folds", name, "config.yaml").write_text(yaml.safe_dump(resolved))
    assert main(["fit", "--config", "small.yaml", "--run_dir", "folds", "--folds", "2"]) == 2
    assert "fold_0_seed_0 was trained with another config: data.folds" in capsys.readouterr().err
    assert read_trials(Path("folds")) == metrics


def test_a_trial_that_is_done_keeps_its_results_and_one_that_goes_on_may_change_what_a_resume_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(CONFIG)
    command = ["fit", "--config", "small.yaml", "--seeds", "1"]
    longer = ["--trainer.max_epochs=2", "--model.optimizer.lr=0.002"]
    assert main(command) == 0
    done = read_trials(Path("runs/small"))
    assert main([*command, "--data.worker_timeout=9", "--checkpoints.every_n_steps=3"]) == 0
    capsys.readouterr()
    for option in longer:
        assert main([*command, option]) == 2
        assert "seed_0 was trained with another config: " in capsys.readouterr().err
    # As if it had been broken off before its metrics were summed up.
    write_trials(Path("runs/small"), list_trials(None, 1), {})
    for option in ("--model.transformer.d_model=16", "--data.batch_size=9", "--trainer.accumulate_grad_batches=2"):
        assert main([*command, *longer, option]) == 2
        assert f"{option[2:].partition('=')[0].rpartition('.')[2]} was" in capsys.readouterr().err
    assert main([*command, *longer, "--data.n_workers=1"]) == 0
    err = capsys.readouterr().err
    assert "model.optimizer.lr was 0.001 and is now 0.002" in err and "data.n_workers was 0 and is now 1" in err
    assert read_trials(Path("runs/small"))["seed_0"]["step"] > done["seed_0"]["step"]
