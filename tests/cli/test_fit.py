"""`anyformer fit`, called in the process, and once in two."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from anyformer.__main__ import main
from anyformer.baselines import models
from anyformer.cli import fit as fit_module
from anyformer.runs.metrics_file import has_rows, read_metrics, read_rows
from tests.helpers.small_cli import CONFIG, edit, pictures, refused

pytestmark = pytest.mark.usefixtures("at_home")


def test_fit_leaves_a_resolved_config_and_figures(at_home: Path) -> None:
    run = Path("runs/small")
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["data"]["split_seed"] == 0
    assert config["model"]["init_args"]["optimizer"]["name"] == "adamw"
    assert config["seed_everything"] == 0
    assert config["checkpoints"] == {"every_n_minutes": 10.0, "every_n_steps": None, "keep": 2}
    assert 0 <= read_metrics(run)["test/accuracy"] <= 1
    for name in ("metrics.csv", "curves.png", "confusion.png", "checkpoints", "model"):
        assert (run / name).exists()


def test_fit_prints_the_figures_and_what_to_type_next(capsys: pytest.CaptureFixture[str]) -> None:
    argv = [
        "fit",
        "--config",
        "small.yaml",
        "--run_dir",
        "runs/b",
        "--trainer.limit_train_batches=1",
        "--seed_everything=3",
    ]
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert re.search(r"^test/accuracy +0\.\d{4}$", out, re.MULTILINE)
    assert "anyformer predict runs/b image=..." in out
    assert "anyformer test runs/b" in out
    # So short a run is not kept waiting.
    assert "\nSimple models on the same records: anyformer baseline runs/b\n" in out
    assert err == ""
    config = yaml.safe_load(Path("runs/b/config.yaml").read_text())
    assert (config["trainer"]["limit_train_batches"], config["seed_everything"]) == (1, 3)


def test_behind_a_longer_run_the_best_simple_model_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_module, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(models, "N_TREES", 40)
    assert main(["fit", "--config", "small.yaml", "--run_dir", "runs/c", "--trainer.limit_train_batches=1"]) == 0
    out = capsys.readouterr().out
    (told,) = re.findall(r"^The best simple model on the same records: (.*)$", out, re.MULTILINE)
    figures = r"val/accuracy 0\.9\d+, test/accuracy 0\.9\d+"
    assert re.fullmatch(rf"[\w ]+ on image, {figures} \(anyformer baseline runs/c\)", told)


def test_a_run_that_ends_before_it_is_validated_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--run_dir=runs/unseen", "--trainer.limit_train_batches=1", "--trainer.check_val_every_n_epoch=99"]
    assert main(["fit", "--config", "small.yaml", *options]) == 0
    assert "The run ended before its first validation, so the model that is kept is the last" in capsys.readouterr().out
    assert not [name for name in read_metrics(Path("runs/unseen")) if name.startswith("val/")]


def test_the_same_seed_gives_the_same_run_and_another_another() -> None:
    for name, seed in (("same", 0), ("other", 1)):
        assert main(["fit", "--config", "small.yaml", "--run_dir", name, "--seed_everything", str(seed)]) == 0
    metrics = read_metrics(Path("runs/small"))
    assert read_metrics(Path("same")) == metrics
    assert read_metrics(Path("other")) != metrics


def test_a_run_is_gone_on_with(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["fit", "--resume", "runs/small", "--trainer.max_epochs=2", "--data.n_workers", "1"]
    assert main(argv) == 0
    assert [row["epoch"] for row in read_rows(Path("runs/small/metrics.csv")) if row["val/loss"]] == ["0", "1"]
    config = yaml.safe_load(Path("runs/small/config.yaml").read_text())
    assert config["trainer"]["max_epochs"] == 2
    assert "test/accuracy" in capsys.readouterr().out


def test_a_refused_resume_leaves_the_run_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    run = Path("runs/small")
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for wrong in ("--model.transformer.d_model=16", "--model.classes=[cat,dog]", "--data.train=absent.csv"):
        refused(capsys, "fit", "--resume", "runs/small", "--trainer.max_epochs=2", wrong)
        assert files == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert main(["fit", "--resume", "runs/small"]) == 0
    assert files[run / "metrics.csv"] == (run / "metrics.csv").read_bytes()


def test_a_run_that_stopped_early_is_resumed_without_training() -> None:
    stop = "{class_path: EarlyStopping, init_args: {monitor: val/accuracy, mode: max, stopping_threshold: 0.0}}"
    Path("early.yaml").write_text(CONFIG.replace("max_epochs: 1\n", f"max_epochs: 4\n  callbacks: [{stop}]\n"))
    assert main(["fit", "--config", "early.yaml"]) == 0
    rows = read_rows(Path("runs/early/metrics.csv"))
    assert rows[-1]["epoch"] == "0"
    metrics = read_metrics(Path("runs/early"))
    assert main(["fit", "--resume", "runs/early"]) == 0
    assert read_rows(Path("runs/early/metrics.csv")) == rows
    assert read_metrics(Path("runs/early")) == metrics


def test_a_config_that_was_edited_is_compared_with_the_checkpoint(
    at_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree("runs/small", tmp_path / "run"))
    path = run / "config.yaml"
    text = path.read_text()
    path.write_text(text.replace("n_heads: 2", "n_heads: 4"))
    assert "another task: transformer.n_heads was 2 and is now 4" in refused(capsys, "fit", "--resume", str(run))
    path.write_text(text.replace(" lr: 0.001", " lr: 0.002"))
    assert main(["fit", "--resume", str(run), "--trainer.max_epochs=2"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        f"{path} is not what it was at the checkpoint; what differs is said, and the rest is as before",
        f"{run} goes on with other options: model.optimizer.lr was 0.001 and is now 0.002, trainer.max_epochs was 1 "
        "and is now 2",
    ]


def test_fast_dev_run_keeps_nothing_and_offers_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--config", "small.yaml", "--trainer.fast_dev_run=true"]
    assert main(["fit", *options, "--run_dir", "runs/fast"]) == 0
    out = capsys.readouterr().out
    assert "val/accuracy" in out and "fast_dev_run: a few batches went through, and nothing is kept" in out
    assert "best/" not in out and "Next" not in out and not Path("runs/fast").exists()
    assert "give it without folds" in refused(capsys, "fit", *options, "--run_dir", "runs/fast", "--seeds=2")
    assert "resume without it" in refused(capsys, "fit", "--resume", "runs/small", options[-1])


def test_what_is_offered_next_can_be_done(capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        "--data.validation=null",
        "--data.test=null",
        "--run_dir",
        "runs/alone",
        "--trainer.limit_train_batches=1",
    ]
    assert main(["fit", "--config", "small.yaml", *options]) == 0
    out = capsys.readouterr().out
    assert "predict runs/alone image=..." in out
    assert "validate" not in out and "anyformer test" not in out


def test_a_timer_is_written_into_the_config_and_works() -> None:
    timer = '{class_path: Timer, init_args: {duration: "00:00:05:00"}}'
    options = ["--run_dir", "runs/timer", "--trainer.limit_train_batches=1", "--trainer.callbacks", timer]
    assert main(["fit", "--config", "small.yaml", *options]) == 0
    config = yaml.safe_load(Path("runs/timer/config.yaml").read_text())
    assert config["trainer"]["callbacks"]["init_args"]["interval"] == "step"


def test_processes_that_the_trainer_forks_train_and_say_what_is_wrong(capfd: pytest.CaptureFixture[str]) -> None:
    options = ["--trainer.devices=2", "--trainer.strategy=ddp_fork", "--data.batch_size=300", "--run_dir", "runs/fork"]
    assert main(["fit", "--config", "small.yaml", *options, "--data.train=nowhere"]) == 2
    assert "anyformer: nowhere: no such file" in capfd.readouterr().err
    assert main(["fit", "--config", "small.yaml", *options]) == 0
    out, err = capfd.readouterr()
    assert "best/val/accuracy" in out and "anyformer test runs/fork" in out
    assert "not tested, because 2 processes trained" in err
    assert main(["test", "runs/fork"]) == 0


@pytest.mark.parametrize(
    ("logger", "folder"),
    [
        ("{class_path: TensorBoardLogger}", "runs/board"),
        ("{class_path: TensorBoardLogger, init_args: {save_dir: logs}}", "runs/board"),
        ("[{class_path: CSVLogger, init_args: {save_dir: other}}, {class_path: TensorBoardLogger}]", "runs/board"),
    ],
)
def test_tensorboard_takes_one_line_of_the_config(logger: str, folder: str) -> None:
    pytest.importorskip("tensorboard")
    text = CONFIG.replace("trainer:\n", f"trainer:\n  limit_train_batches: 1\n  logger: {logger}\n")
    Path("board.yaml").write_text(text)
    assert main(["fit", "--config", "board.yaml"]) == 0
    assert list(Path(folder).rglob("events.out.tfevents.*"))
    assert read_rows(Path("runs/board/metrics.csv"))


def test_callbacks_and_loggers_come_from_the_config() -> None:
    text = CONFIG.replace("  max_epochs: 1\n", "  max_epochs: 3\n").replace("batch_size: 500", "batch_size: 800")
    Path("more.yaml").write_text(
        text.replace(
            "trainer:\n",
            "trainer:\n"
            "  log_every_n_steps: 1\n"
            "  logger: {class_path: CSVLogger, init_args: {save_dir: logs}}\n"
            "  callbacks:\n"
            "    - {class_path: EarlyStopping, init_args: {monitor: val/loss, divergence_threshold: 0.0}}\n"
            "    - {class_path: LearningRateMonitor}\n",
        )
    )
    assert main(["fit", "--config", "more.yaml"]) == 0
    assert read_metrics(Path("runs/more"))["epoch"] == 0
    assert any(name.startswith("lr-") for name in read_metrics(Path("runs/more")))
    assert list(Path("runs/more/lightning_logs").rglob("metrics.csv")) and not Path("logs").exists()


def test_help_and_print_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--help"]) == 0
    out = capsys.readouterr().out
    for option in (
        "--run_dir",
        "--resume",
        "--unsafe_imports",
        "--trainer.max_epochs",
        "--checkpoints.every_n_minutes",
    ):
        assert option in out
    assert main(["fit", "--config", "small.yaml", "--trainer.max_epochs=7", "--print_config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["trainer"]["max_epochs"] == 7
    for command in ("test", "validate", "predict"):
        assert main([command, "--help"]) == 0
        assert "RUN" in capsys.readouterr().out


def test_a_few_records_of_each_class_are_picked_in_the_config() -> None:
    source = "{class_path: Digits}"
    pick = f"{{class_path: Pick, init_args: {{source: {source}, by: label, values: [3, '8'], each: 20, seed: 1}}}}"
    Path("few.yaml").write_text(CONFIG.replace("train: Digits", f"train: {pick}"))
    assert main(["fit", "--config", "few.yaml"]) == 0
    assert json.loads(Path("runs/few/model/config.json").read_text())["init_args"]["classes"] == ["3", "8"]
    assert main(["test", "runs/few"]) == 0


def test_class_folders_train_with_one_override(capsys: pytest.CaptureFixture[str]) -> None:
    pictures(Path("mine"), *range(60))
    assert main(["fit", "--config", "small.yaml", "--run_dir", "mine_run", "--data.train", "mine"]) == 0
    assert main(["test", "mine_run", "--data.test", "mine"]) == 0
    assert "test/accuracy" in capsys.readouterr().out
    assert Path("mine_run/samples.png").exists()
    Path("mine/3/3.png").write_bytes(b"none")
    message = refused(capsys, "fit", "--config", "small.yaml", "--run_dir", "other", "--data.train", "mine")
    assert message.startswith("mine/3/3.png: field 'image': mine/3/3.png: not a picture that can be read")


def test_a_callback_that_waits_for_a_figure_that_never_comes_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    callback = "{class_path: lightning.pytorch.callbacks.EarlyStopping, init_args: {monitor: val/acc}}"
    assert main(["fit", "--config", "small.yaml", "--run_dir", "waits", f"--trainer.callbacks=[{callback}]"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "anyformer: trainer.callbacks: EarlyStopping monitors 'val/acc', which is no metric of this run; did you mean "
        "'val/accuracy'?; there are train/loss, val/accuracy, val/ece, val/f1, val/loss, val/top5"
    ]
    # No step has been taken.
    assert not has_rows(Path("waits/metrics.csv"))
    unchecked = ["--run_dir", "unchecked", "--trainer.num_sanity_val_steps=0", f"--trainer.callbacks=[{callback}]"]
    assert "there are train/loss, train/lr, val/accuracy" in refused(
        capsys, "fit", "--config", "small.yaml", *unchecked
    )


TEXT = """\
model:
  class_path: LanguageModel
  init_args:
    tokenizers: {text: {class_path: Text, init_args: {kind: characters}}}
    transformer: {d_model: 8, depth: 1, n_heads: 2}
    context: 8
    example: null
data:
  train: prose.txt
  validation: part.txt
trainer: {max_steps: 1, accelerator: cpu, enable_progress_bar: false}
"""


def test_a_file_of_data_is_read_as_data_and_not_as_the_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Path("text.yaml").write_text(TEXT)
    Path("prose.txt").write_text("to be or not to be, that is the question")
    Path("part.txt").write_text("0.1")
    assert main(["fit", "--config", "text.yaml", "--run_dir", "a"]) == 0
    options = ["--data.train", "./prose.txt", "--data.validation", str(tmp_path / "part.txt")]
    assert main(["fit", "--config", "text.yaml", "--run_dir", "b", *options]) == 0
    assert read_metrics(Path("a")) == read_metrics(Path("b"))
    capsys.readouterr()
    assert main(["validate", "a", "--data.validation", "prose.txt"]) == 0
    assert "val/loss" in capsys.readouterr().out
    assert main(["params", "text.yaml", "--data.train", "prose.txt"]) == 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("max_epochs", "max_epoch", r"wrong.yaml line 3: trainer has no key 'max_epoch'; did you mean 'max_epochs'\?"),
        (
            "d_model",
            "d_modell",
            r"wrong.yaml line 13: model.transformer has no key 'd_modell'; did you mean 'd_model'\?",
        ),
        ("max_epochs: 1", "max_epochs: many", "wrong.yaml line 3: trainer.max_epochs must be int, got many"),
        ("d_model: 8", "d_model: wide", "wrong.yaml line 13: model.transformer.d_model must be int, got wide"),
        ("batch_size: 500", "batch_size: big", "wrong.yaml line 19: data.batch_size must be int, got big"),
        ("patch: 4", "patch: four", "wrong.yaml line 12: model.tokenizers.image.patch must be int, got four"),
        (
            "d_model: 8",
            "d_model: 9",
            "wrong.yaml line 13: model.transformer.n_heads must divide d_model",
        ),
        ("train: Digits", "train: digits.csv", "digits.csv: no such file"),
        (
            "n_heads: 2}",
            "n_heads: 2, rotary: true}",
            r"^wrong.yaml line \d+: model.transformer.rotary must be the keys and values of RotaryConfig",
        ),
        ("batch_size: 500", "batch_size: many", r"^wrong.yaml line \d+: data.batch_size must be int, got many$"),
        ("class_path: Classify", "class_path: os.system", "wrong.yaml line 7: os.system is refused"),
        ("train: Digits", "train: {class_path: os.system}", "wrong.yaml line 15: os.system is refused"),
        (
            "trainer:\n",
            "trainer:\n  callbacks: [{class_path: LambdaCallback, init_args: {on_fit_start: os.system}}]\n",
            "trainer.callbacks.0: LambdaCallback takes functions, which no config can hold",
        ),
        ("validation: 0.1", "seed: 3", "wrong.yaml line 16: data.seed .*seed_everything"),
        ("stratify: label", "stratify: lable", "lable"),
        (" image:", " imgae:", r"^no record has anything in 'imgae'; there are image, label; did you mean 'image'\?$"),
    ],
)
def test_a_wrong_config_is_told_so_in_one_line(
    old: str, new: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(old, new)
    assert re.search(message, refused(capsys, "fit", "--config", "wrong.yaml"))


def test_a_config_cannot_run_code(at_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit("class_path: Classify\n  init_args:\n", "class_path: os.system\n  init_args:\n    command: touch bad\n")
    refused(capsys, "fit", "--config", "wrong.yaml")
    assert not Path("bad").exists()


def test_a_package_is_opened_for_the_users_own_classes(at_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mine.py").write_text("from anyformer.tasks.classify import Classify\nclass Mine(Classify): '''Mine.'''\n")
    monkeypatch.syspath_prepend(at_home)
    edit("class_path: Classify", "class_path: mine.Mine")
    assert main(["fit", "--config", "wrong.yaml"]) == 2
    assert main(["fit", "--config", "wrong.yaml", "--unsafe_imports", "mine"]) == 0
    assert main(["predict", "runs/wrong", "image=seven.png", "--unsafe_imports", "mine"]) == 0
    assert main(["predict", "runs/wrong", "image=seven.png"]) == 2


def test_real_processes_train_together_test_nothing_and_say_so(at_home: Path) -> None:
    options = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.limit_train_batches=1", "--run_dir", "two"]
    # Beside a run of any length the first process alone compares simple models.
    lines = "import sys", "from anyformer.cli import fit, main", "fit.LEAST_SECONDS = 0", "main.main(sys.argv[1:])"
    Path("quick.py").write_text("\n".join(lines))
    argv = [sys.executable, "quick.py", "fit", "--config", "small.yaml", *options]
    done = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert "The best simple model on the same records" in done.stdout
    said = r"not tested, because 2 processes trained; test with: (python -m |uv run )?anyformer test two\n"
    assert len(re.findall(said, done.stderr)) == 1
    assert "val/accuracy" in done.stdout
    metrics = read_metrics(Path("two"))
    assert not any(name.startswith("test/") for name in metrics)
    assert main(["test", "two"]) == 0
    assert "test/accuracy" in read_metrics(Path("two"))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("fit", r"fit needs a config: anyformer fit --config FILE, or --resume FOLDER"),
        ("fit --config absent.yaml", "there is no config absent.yaml"),
        (
            "fit --config small.yaml --run_dir never --trainer.val_check_interval 1000",
            "trainer.val_check_interval is more than the batches of an epoch; lower it, or give",
        ),
        ("fit --config http://host/x.yaml", "there is no config http://host/x.yaml"),
        (
            "fit --config small.yaml",
            "runs/small already holds a run; go on with fit --resume runs/small, or .*--run_dir",
        ),
        ("fit --config small.yaml --run_dir s3://x", "a run is a local folder"),
        (
            "fit --config small.yaml --trainr.max_epochs=3",
            r"no option --trainr.max_epochs; did you mean 'trainer.max_epochs'",
        ),
        (
            "fit --config small.yaml --trainer.max_epoch=3",
            r"no option --trainer.max_epoch; did you mean 'trainer.max_epochs'",
        ),
        ("fit --config small.yaml --model.transformer.d_modl=3", "did you mean 'model.transformer.d_model'"),
        ("fit --config small.yaml --data.batch_size=big", "^--data.batch_size: data.batch_size must be int, got big"),
        (
            "fit --config small.yaml --checkpoints.every_n_steps=0 --run_dir x",
            "checkpoints.every_n_steps must be above 0",
        ),
        (
            "fit --config small.yaml --model.tokenizers.image.init_args.augment.policy trivail",
            "augment.policy: model.tokenizers.image.augment.policy must be trivial, or one of timm",
        ),
        (
            "fit --config small.yaml --model.transformer.rotary true",
            r"model.transformer.rotary must be the keys and values of RotaryConfig \(axes, base\), as in .*, got true",
        ),
        (
            "fit --config small.yaml --model.embedding.positions sinusoidal",
            r"must be a list of the keys and values of PositionConfig .*; did you mean scheme: sinusoidal\?",
        ),
        (
            "fit --config small.yaml --model.optimizer.name adamww",
            r"model.optimizer.name: there is no optimiser 'adamww'; did you mean 'adamw'\?",
        ),
        ("fit --config small.yaml --model.optimizer.name zz", "no optimiser 'zz'; there are .*adamw, .*muon"),
        (
            "fit --config small.yaml --model.optimizer.schedule cosin",
            r"model.optimizer.schedule must be cosine, linear or constant, got cosin; did you mean 'cosine'\?",
        ),
        (
            "fit --config small.yaml --model.optimizer cosine",
            r"model.optimizer must be the keys and values of OptimizerConfig .*; did you mean schedule: cosine\?",
        ),
        *(
            (f"fit --config {config} --run_dir never", f"trainer.callbacks(.0)?: {callback}")
            for config, callback in (
                ("small.yaml --trainer.callbacks LearningRateFinder", "LearningRateFinder takes steps of its own"),
                ("small.yaml --trainer.callbacks EMAWeightAveraging", "EMAWeightAveraging averages weights that"),
                ("finder.yaml", "LearningRateFinder takes steps of its own"),
            )
        ),
        ("fit --resume runs/absent", "there is no run folder runs/absent"),
        ("fit --resume runs/small --config small.yaml", "--resume takes the config and the folder of the run"),
        (
            "fit --resume runs/small --model.transformer.d_model=16 --trainer.max_epochs=2",
            "is of another task: transformer.d_model was 8 and is now 16",
        ),
        ("fit --config small.yaml --unsafe_imports absent", "--unsafe_imports absent cannot be imported"),
    ],
)
def test_a_wrong_command_is_refused_in_one_line(argv: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    edit("  max_epochs: 1", "  max_epochs: 1\n  callbacks: [{class_path: LearningRateFinder}]")
    Path("wrong.yaml").rename("finder.yaml")
    assert re.search(message, refused(capsys, *argv.split()))
