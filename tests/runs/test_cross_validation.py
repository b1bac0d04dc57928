"""The command that trains runs over folds and seeds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from anyformer.__main__ import main
from anyformer.errors import InputError
from anyformer.runs.cross_validation import at_the_best, read_settings
from anyformer.runs.trials import write_trials
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
    assert "val/ is at the end of training: it chose nothing" in out and "test/" not in out
    configs = [yaml.safe_load((run / name / "config.yaml").read_text()) for name in first]
    assert [(config["data"]["folds"], config["data"]["fold"]) for config in configs] == [(2, 0), (2, 1)]
    assert [config["seed_everything"] for config in configs] == [3, 3]
    # As if it had been broken off between the end of the second run and its metrics.
    write_trials(run, {"fold_0_seed_3": first["fold_0_seed_3"]}, {})
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
    write_trials(Path("folds"), metrics, {})
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
    write_trials(Path("runs/small"), {}, {})
    for option in ("--model.transformer.d_model=16", "--data.batch_size=9", "--trainer.accumulate_grad_batches=2"):
        assert main([*command, *longer, option]) == 2
        assert f"{option[2:].partition('=')[0].rpartition('.')[2]} was" in capsys.readouterr().err
    assert main([*command, *longer, "--data.n_workers=1"]) == 0
    err = capsys.readouterr().err
    assert "model.optimizer.lr was 0.001 and is now 0.002" in err and "data.n_workers was 0 and is now 1" in err
    assert read_trials(Path("runs/small"))["seed_0"]["step"] > done["seed_0"]["step"]


def test_nested_folds_choose_a_setting_inside_and_are_tested_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(CONFIG)
    command = ["fit", "--config", "small.yaml", "--folds", "2", "--nested", "--inner", "3"]
    over = ["--over", "model.optimizer.lr=1.0e-9,0.03"]
    assert main([*command, *over]) == 0
    run, out = Path("runs/small"), capsys.readouterr().out
    content = json.loads((run / "metrics.json").read_text())
    assert list(content["runs"]) == [f"fold_{i}_setting_{j}_inner_0_seed_0" for i in range(2) for j in range(2)]
    assert content["settings"] == ["model.optimizer.lr=1.0e-9", "model.optimizer.lr=0.03"]
    for fold in range(2):
        runs = [content["runs"][f"fold_{fold}_setting_{setting}_inner_0_seed_0"] for setting in range(2)]
        best = max(range(2), key=lambda setting: runs[setting]["best/val/accuracy"])
        assert content["chosen"][f"fold_{fold}"] == best
        own, chosen, folder = content["folds"][f"fold_{fold}"], runs[best], f"fold_{fold}_setting_{best}_inner_0_seed_0"
        assert own["test/accuracy"] == chosen["test/accuracy"]
        assert own["gap/f1"] == pytest.approx(chosen["test/f1"] - chosen["best/val/f1"])
        config = yaml.safe_load((run / folder / "config.yaml").read_text())["data"]
        assert [config[name] for name in ("folds", "fold", "inner_folds", "inner_fold")] == [2, fold, 3, 0]
    values = [content["folds"][f"fold_{fold}"]["test/accuracy"] for fold in range(2)]
    assert content["mean"]["test/accuracy"] == pytest.approx(sum(values) / 2)
    assert content["standard_error"]["test/accuracy"] == pytest.approx(abs(values[0] - values[1]) / 2)
    where = [fold for fold, setting in content["chosen"].items() if setting == 1]
    assert f"model.optimizer.lr=0.03: chosen {'in ' + ', '.join(where) if where else 'nowhere'}; best/val/acc" in out
    assert "test/ is of the outer folds, which chose nothing here" in out

    # As if it had been killed between the end of a run and its metrics: it goes on with that alone, to the same.
    before = (run / "metrics.json").read_bytes()
    write_trials(
        run, {name: metrics for name, metrics in content["runs"].items() if "fold_1_setting_1" not in name}, {}
    )
    assert main([*command, *over]) == 0
    assert (run / "metrics.json").read_bytes() == before
    assert "run 4 of 4 (model.optimizer.lr=0.03)" in (err := capsys.readouterr().err) and err.count(" of 4") == 1
    # An average is of the chosen settings alone.
    assert main(["average", "runs/small", "--output", "runs/all"]) == 0
    own = [f"runs/small/fold_{fold}_setting_{content['chosen'][f'fold_{fold}']}_inner_0_seed_0" for fold in range(2)]
    assert f"the mean of the predictions of {', '.join(own)}." in capsys.readouterr().out
    # The outer fold is what a test of the run is on, but for other data that is given.
    folder, shown = run / "fold_1_setting_1_inner_0_seed_0", []
    for options in ([], ["--data.test.class_path=Digits"]):
        assert main(["test", str(folder), *options]) == 0
        shown.append(capsys.readouterr().out)
    assert f"{content['runs'][folder.name]['test/loss']:.4f}" in shown[0] and shown[0] != shown[1]

    for argv, message in [
        (command, "fold_0_setting_0_inner_0_seed_0 is a setting of --over; choose another --run_dir"),
        (["fit", "--config", "small.yaml", "--folds", "2"], "seed_0 is a run of --nested; choose another --run_dir"),
        ([*command, "--over", "model.optimizer.lr=1.0e-9,0.1"], "seed_0 was trained with another config: model"),
        ([*command[:-1], "4", *over], "was trained with another config: data.inner_folds was 3 and is now 4"),
        (["predict", "runs/small", "image=a.png"], "name one of them, runs/small/fold_0_setting_0_inner_0_seed_0"),
    ]:
        assert main(argv) == 2
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1
    assert (run / "metrics.json").read_bytes() == before


def test_all_metrics_of_validation_are_those_of_the_best_step(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(
        "step,epoch,train/loss,val/accuracy,val/loss\n4,0,1.0,0.5,2.0\n8,1,0.5,0.75,nan\n9,1,,,\n12,2,0.2,0.6,3.0\n"
    )
    assert at_the_best(tmp_path, {"best/step": 8}) == {"best/val/accuracy": 0.75, "best/val/loss": None}
    assert at_the_best(tmp_path, {"best/step": 12}) == {"best/val/accuracy": 0.6, "best/val/loss": 3.0}
    assert at_the_best(tmp_path, {"val/loss": 1.0}) == {}


def test_options_of_nested_folds_that_cannot_be_say_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(CONFIG)
    nested = ["--folds", "2", "--nested"]
    for options, message in [
        (["--nested"], "--nested needs the number of outer folds; give --folds 5, say"),
        (
            ["--folds", "2", "--inner", "3"],
            "--inner is for folds that nothing is chosen by; give --folds K --nested too",
        ),
        (["--folds", "2", "--over", "model.optimizer.lr=1,2"], "--over is for folds that nothing is chosen by"),
        (["--seeds", "2", "--inner_runs", "2"], "--inner_runs is for folds that nothing is chosen by"),
        ([*nested, "--inner", "1"], "--inner must be at least 2, got 1"),
        ([*nested, "--inner", "0"], "--inner must be at least 2, got 0"),
        (
            [*nested, "--inner_runs", "6"],
            "--inner_runs must be 1 to 5, as many as there are inner folds (--inner), got 6",
        ),
        ([*nested, "--inner_runs", "0"], "--inner_runs must be 1 to 5"),
        ([*nested, "--over", "model.optimizer.lr=1"], "give an option of the config and two values or more"),
        ([*nested, "--over", "model.optimizer.lr=1,,2"], "give an option of the config and two values or more"),
        ([*nested, "--over", "depth"], "--over depth: give an option of the config"),
        ([*nested, "--over", "model.transformer.widht=1,2"], "there is no option --model.transformer.widht"),
        ([*nested, "--over", "model.transformer.depth=1,x"], "model.transformer.depth"),
        (
            [*nested, "--over", "model.choose=accuracy,loss"],
            "--over: settings that choose by different metrics, val/ac",
        ),
        (["--resume", ".", "--nested"], "--resume goes on with one run"),
    ]:
        config = [] if "--resume" in options else ["--config", "small.yaml"]
        assert main(["fit", *config, *options]) == 2
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1
    assert not Path("runs/small/metrics.json").exists()


def test_settings_are_all_combinations_of_the_values() -> None:
    assert read_settings([]) == []
    assert read_settings(["model.a=[1,2],[3, [4,5]]", "data.b={x: 1, y: 2},'p,q'"]) == [
        ["model.a=[1,2]", "data.b={x: 1, y: 2}"],
        ["model.a=[1,2]", "data.b='p,q'"],
        ["model.a=[3, [4,5]]", "data.b={x: 1, y: 2}"],
        ["model.a=[3, [4,5]]", "data.b='p,q'"],
    ]
    for over, options, message in [
        (["model.a=1,2", "model.a=3,4"], [], "model.a is given twice"),
        (["model.a=1,1"], [], "a value is given twice"),
        (["model.a=1,2"], ["--model.a", "3"], "model.a is given as an option too; leave out one of the two"),
        (["model.a=1,2"], ["--model.a=3"], "model.a is given as an option too; leave out one of the two"),
        (["data.split_seed=1,2"], [], "data.split_seed must be the same in all runs, or they cannot be compared"),
        (["data.train.init_args.path=a.csv,b.csv"], [], "data.train.init_args.path must be the same in all runs"),
    ]:
        with pytest.raises(InputError, match=message):
            read_settings(over, options)
