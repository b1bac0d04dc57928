"""The command line, called in the process; two true subprocesses at the end."""

from __future__ import annotations

import csv
import json
import os
import re
import select
import shlex
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file

import anyformer
from anyformer.__main__ import main
from anyformer.runs.metrics_file import read_figures, read_rows
from anyformer.tokenizers.episode.files import Episodes
from anyformer.tokenizers.image.sources import Digits

DATA = Path(os.environ.get("ANYFORMER_DATA", "data"))

CONFIG = """\
# A small experiment.
trainer:
  max_epochs: 1
  accelerator: cpu
  enable_progress_bar: false
model:
  class_path: Classify
  init_args:
    tokenizers:
      image:
        class_path: ImagePatches
        init_args: {size: [8, 8], patch: 4, channels: 1}
    transformer: {d_model: 8, depth: 1, n_heads: 2}
data:
  train: Digits
  validation: 0.1
  test: 0.1
  stratify: label
  batch_size: 500
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config and the run of it."""
    home = tmp_path_factory.mktemp("home")
    (home / "small.yaml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.delenv("PL_GLOBAL_SEED", raising=False)
        assert main(["fit", "--config", "small.yaml"]) == 0
    Image.fromarray(np.asarray(Digits()[7]["image"])).save(home / "seven.png")
    (home / "empty").mkdir()
    return home


@pytest.fixture(autouse=True)
def at_home(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test works in a copy."""
    shutil.copytree(home, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line with which a command is refused."""
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("anyformer: ")
    assert err.count("\n") == 1
    return err.removeprefix("anyformer: ").rstrip("\n")


# The light front


def test_help_version_and_a_misspelt_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for command in ("fit --config", "fit --resume", "test RUN", "predict RUN", "collect --env", "also called run"):
        assert command in out
    assert main([]) == 2
    assert "usage: anyformer" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"anyformer {anyformer.__version__}\n"
    assert refused(capsys, "fitt") == "there is no command 'fitt'; did you mean 'fit'?"
    assert refused(capsys, "xyz") == (
        "there is no command 'xyz'; there are fit, validate, test, predict, collect, plan, params, import, export"
    )


def test_run_is_another_name_of_predict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--help"]) == 0
    help = capsys.readouterr().out
    assert main(["predict", "--help"]) == 0
    assert capsys.readouterr().out == help
    assert help.startswith("usage: anyformer predict")


def test_every_name_the_package_offers_is_there() -> None:
    assert [name for name in anyformer.__all__ if getattr(anyformer, name, None) is None] == []
    assert set(anyformer.__all__) <= set(dir(anyformer))
    with pytest.raises(AttributeError, match=r"module 'anyformer' has no attribute 'absent'"):
        _ = anyformer.absent


# fit


def test_fit_leaves_a_resolved_config_and_figures(at_home: Path) -> None:
    run = Path("runs/small")
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["data"]["split_seed"] == 0
    assert config["model"]["init_args"]["optimizer"]["name"] == "adamw"
    assert config["seed_everything"] == 0
    assert config["checkpoints"] == {"every_n_minutes": 10.0, "every_n_steps": None}
    assert 0 <= read_figures(run)["test/accuracy"] <= 1
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
    assert err == ""
    config = yaml.safe_load(Path("runs/b/config.yaml").read_text())
    assert (config["trainer"]["limit_train_batches"], config["seed_everything"]) == (1, 3)


def test_a_run_that_ends_before_it_is_validated_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--run_dir=runs/unseen", "--trainer.limit_train_batches=1", "--trainer.check_val_every_n_epoch=99"]
    assert main(["fit", "--config", "small.yaml", *options]) == 0
    assert "The run ended before its first validation, so the model that is kept is the last" in capsys.readouterr().out
    assert not [name for name in read_figures(Path("runs/unseen")) if name.startswith("val/")]


def test_the_same_seed_gives_the_same_run_and_another_another() -> None:
    for name, seed in (("same", 0), ("other", 1)):
        assert main(["fit", "--config", "small.yaml", "--run_dir", name, "--seed_everything", str(seed)]) == 0
    figures = read_figures(Path("runs/small"))
    assert read_figures(Path("same")) == figures
    assert read_figures(Path("other")) != figures


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
    figures = read_figures(Path("runs/early"))
    assert main(["fit", "--resume", "runs/early"]) == 0
    assert read_rows(Path("runs/early/metrics.csv")) == rows
    assert read_figures(Path("runs/early")) == figures


@pytest.mark.parametrize(
    ("logger", "folder"),
    [
        ("{class_path: TensorBoardLogger}", "runs/board"),
        ("{class_path: TensorBoardLogger, init_args: {save_dir: logs}}", "logs"),
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
    assert read_figures(Path("runs/more"))["epoch"] == 0
    assert any(name.startswith("lr-") for name in read_figures(Path("runs/more")))
    assert list(Path("logs").rglob("metrics.csv"))


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
    main(["fit", "--config", "small.yaml", "--run_dir", "waits", f"--trainer.callbacks=[{callback}]"])
    lines = capsys.readouterr().err.splitlines()
    assert re.search(r"^anyformer: trainer.callbacks: Early stopping .* `val/acc` which is not available", lines[-1])


# test, validate, run


def test_test_and_validate_give_the_best_models_figures(capsys: pytest.CaptureFixture[str]) -> None:
    before = read_figures(Path("runs/small"))
    assert main(["test", "runs/small"]) == 0
    assert f"test/accuracy  {before['test/accuracy']:.4f}" in capsys.readouterr().out
    assert main(["validate", "runs/small", "--data.n_workers=1"]) == 0
    assert f"val/accuracy  {before['best/val/accuracy']:.4f}" in capsys.readouterr().out
    assert read_figures(Path("runs/small")) == before


def test_other_records_are_tested_without_changing_the_runs_figures(capsys: pytest.CaptureFixture[str]) -> None:
    before = read_figures(Path("runs/small"))
    for override in (["--data.test=0.5"], ["--data.test", "0.5"], ["--trainer.limit_test_batches=1"]):
        assert main(["test", "runs/small", *override]) == 0
        assert "test/accuracy" in capsys.readouterr().out
        assert read_figures(Path("runs/small")) == before


def test_run_says_what_the_model_makes_of_a_picture(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "runs/small", "image=seven.png", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["label"] in result["probabilities"]
    assert sum(result["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert result == anyformer.load("runs/small").predict([{"image": "seven.png"}])[0]
    assert main(["predict", "runs/small", "image=seven.png"]) == 0
    assert f"{result['label']} " in capsys.readouterr().out.splitlines()[0]


def pictures(folder: Path, *numbers: int) -> Path:
    """A folder with digits of these numbers as files, in folders of their labels."""
    for i in numbers:
        record = Digits()[i]
        (folder / record["label"]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(record["image"]).resize((19, 11)).save(folder / record["label"] / f"{i}.png")
    return folder


LANGUAGE = """\
model:
  class_path: LanguageModel
  init_args:
    tokenizers: {text: {class_path: Text, init_args: {kind: characters}}}
    transformer: {d_model: 16, depth: 1, n_heads: 2}
    context: 16
    example: be
data:
  train: {class_path: Corpus, init_args: {path: play.txt, part: [0.0, 0.9]}}
  validation: {class_path: Corpus, init_args: {path: play.txt, part: [0.9, 1.0]}}
  batch_size: 4
trainer: {max_epochs: 1, accelerator: cpu, enable_progress_bar: false}
"""


def test_a_language_model_is_trained_goes_on_with_a_text_and_is_told_how(
    at_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("play.yaml").write_text(LANGUAGE)
    Path("play.txt").write_text("to be or not to be, that is the question\n" * 20)
    assert main(["fit", "--config", "play.yaml"]) == 0
    assert "\nA sample:\nbe" in capsys.readouterr().out
    drawn = ["--max_new_tokens", "12", "--temperature", "0.9", "--seed", "3"]
    assert main(["predict", "runs/play", "text=to be", *drawn]) == 0
    streamed = capsys.readouterr().out
    assert streamed.startswith("to be") and len(streamed) > len("to be\n")
    assert main(["predict", "runs/play", "text=to be", "--json", *drawn]) == 0
    result = json.loads(capsys.readouterr().out)
    assert f"to be{result['continuations'][0]}\n" == streamed
    assert main(["predict", "runs/play", "--n_samples", "2", *drawn, "--output", "out.csv", "text=to be"]) == 0
    (row,) = csv.DictReader(Path("out.csv").read_text().splitlines(keepends=True))
    assert row["continuation 1"] == result["continuations"][0] and row["continuation 2"]
    capsys.readouterr()
    assert refused(capsys, "predict", "runs/play", "text=a", "--stop", "") == (
        "stop must not hold an empty string, which every text contains"
    )
    assert "invalid int value: 'many'" in refused(capsys, "predict", "runs/play", "text=a", "--max_new_tokens", "many")
    assert "the prompt has 17 tokens, more than the 16" in refused(
        capsys, "predict", "runs/play", "text=" + "to be or not to b"
    )
    message = refused(capsys, "predict", "runs/play", "text=a", "--temprature", "1")
    assert "there is no option --temprature; did you mean" in message
    assert refused(capsys, "predict", "text=a").startswith("there is no run folder text=a")
    assert main(["predict", "runs/play", "--help"]) == 0
    help = capsys.readouterr().out
    assert "--top_p TOP_P" in help and "text: the record" in help


def test_run_streams_a_table_of_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    pictures(Path("some"), 3, 10, 11)
    Path("some/notes.txt").write_text("not a picture, and not asked for")
    assert main(["predict", "runs/small", "image=some"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    rows = list(csv.DictReader(out.splitlines()))
    assert [row["image"] for row in rows] == ["some/0/10.png", "some/1/11.png", "some/3/3.png"]
    assert list(rows[0]) == ["image", "label", "probability", *(f"p({i})" for i in range(10)), "error"]
    expected = anyformer.load("runs/small").predict([{"image": row["image"]} for row in rows])
    for row, result in zip(rows, expected, strict=True):
        assert (row["label"], row["error"]) == (result["label"], "")
        assert float(row["probability"]) == result["probabilities"][result["label"]]
        assert {name: float(row[f"p({name})"]) for name in result["probabilities"]} == result["probabilities"]
    assert main(["predict", "runs/small", "image=some/**/1*.png", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        {"image": path, **result} for path, result in zip(["some/0/10.png", "some/1/11.png"], expected, strict=False)
    ]


def test_run_writes_a_table_whole(capsys: pytest.CaptureFixture[str]) -> None:
    pictures(Path("some"), 3, 10)
    for kind in ("csv", "jsonl", "json"):
        assert main(["predict", "runs/small", "image=some", "--output", f"out.{kind}"]) == 0
    assert capsys.readouterr() == ("", "")
    lines = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert json.loads(Path("out.json").read_text()) == lines
    assert [line["image"] for line in lines] == ["some/0/10.png", "some/3/3.png"]
    rows = read_csv(Path("out.csv"))
    assert [(row["image"], row["label"]) for row in rows] == [(line["image"], line["label"]) for line in lines]
    assert main(["predict", "runs/small", "image=seven.png", "--output", "out.csv"]) == 0
    assert [row["image"] for row in read_csv(Path("out.csv"))] == ["seven.png"]
    assert not list(Path().glob("*.part"))


def read_csv(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_run_names_the_files_that_cannot_be_used_and_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    pictures(Path("some"), 3, 10)
    Path("some/bad.png").write_text("text")
    whole = Path("some/3/3.png").read_bytes()
    Path("some/0/cut.png").write_bytes(whole[: len(whole) // 2])
    assert main(["predict", "runs/small", "image=some", "--output", "out.csv"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    cut, bad, last = err.splitlines()
    assert re.fullmatch(r"field 'image': some/0/cut.png: damaged or truncated: .+", cut)
    assert re.fullmatch(r"field 'image': some/bad.png: not a picture that can be read \(.*\)", bad)
    assert last == "anyformer: 2 of 4 could not be used"
    rows = read_csv(Path("out.csv"))
    assert [(row["image"], row["error"]) for row in rows] == [
        ("some/0/10.png", ""),
        ("some/0/cut.png", cut),
        ("some/3/3.png", ""),
        ("some/bad.png", bad),
    ]
    assert [bool(row["label"]) for row in rows] == [True, False, True, False]
    assert main(["predict", "runs/small", "image=some/*.png"]) == 2
    assert capsys.readouterr().out.splitlines()[0] == "image,error"


def test_run_shows_a_bar_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    termios, fcntl = pytest.importorskip("termios"), pytest.importorskip("fcntl")
    pictures(Path("some"), 3, 10)
    screen, line = os.openpty()
    fcntl.ioctl(line, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 90, 0, 0))
    with open(line, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        assert main(["predict", "runs/small", "image=some"]) == 0
        terminal.flush()
        shown = ""
        # What is written comes piece by piece.
        while "| 2/2 [" not in shown and select.select([screen], [], [], 10)[0]:
            shown += os.read(screen, 10_000).decode()
        assert "| 2/2 [" in shown
    os.close(screen)


def test_run_ends_quietly_when_nobody_reads_on(at_home: Path) -> None:
    pictures(Path("some"), *range(300))
    argv = [sys.executable, "-m", "anyformer", "predict", "runs/small", "image=some"]
    done = subprocess.run(f"{shlex.join(argv)} | head -n 1", shell=True, capture_output=True, text=True)
    assert done.stdout.startswith("image,label,probability")
    assert done.stderr == ""


# params


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
    assert read_figures(Path("a")) == read_figures(Path("b"))
    capsys.readouterr()
    assert main(["validate", "a", "--data.validation", "prose.txt"]) == 0
    assert "val/loss" in capsys.readouterr().out
    assert main(["params", "text.yaml", "--data.train", "prose.txt"]) == 0


def test_params_counts_a_config_a_run_and_a_config_without_its_data(capsys: pytest.CaptureFixture[str]) -> None:
    def table(*argv: str) -> str:
        assert main(["params", *argv]) == 0
        return capsys.readouterr().out

    of_run = table("runs/small")
    n = sum(parameter.numel() for parameter in anyformer.load("runs/small").parameters())
    assert re.search(rf"^total +{n:,} ", of_run, re.MULTILINE)
    assert "FLOPs of one sample of 5 tokens (image 4, class 1)" in of_run
    # The data of the config tells the classes.
    assert table("small.yaml") == of_run
    edit("train: Digits", "train: absent.csv")
    assert table("wrong.yaml", "--classes=10") == of_run
    wider = table("wrong.yaml", "--classes=10", "--model.transformer.d_model=16", "--tokens=7")
    assert "(image 7, class 1)" in wider and wider.splitlines()[-4] != of_run.splitlines()[-4]


def test_params_says_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    edit("train: Digits", "train: absent.csv")
    message = refused(capsys, "params", "wrong.yaml")
    assert message.startswith("the classes are not known yet: give classes, or fit to data; and the training data ")
    assert "absent.csv" in message
    for value in ("0", "few", "image="):
        assert "--tokens must be a number from 1, or FIELD=N" in refused(
            capsys, "params", "small.yaml", "--classes=2", f"--tokens={value}"
        )
    assert "no field 'word'; there are image" in refused(capsys, "params", "runs/small", "--tokens=word=3")
    assert "the config stands first, got --classes=2" in refused(capsys, "params", "--classes=2", "small.yaml")
    assert "runs/small" not in refused(capsys, "params", "runs/small", "--model.transformer.depth=2")
    assert refused(capsys, "params", "none.yaml") == "there is no config none.yaml"


# import and export


def test_weights_of_transformers_become_a_run_and_go_out_again(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    from tests.helpers.transformers_folders import gpt2

    gpt2(Path("hub"))
    capsys.readouterr()
    assert main(["import", "hub", "runs/gpt"]) == 0
    assert capsys.readouterr().out == (
        "weights from hub/model.safetensors: 36 tensors taken\n"
        "The model is in runs/gpt. Next:\n  anyformer predict runs/gpt text=...\n"
    )
    assert main(["predict", "runs/gpt", "text=to be", "--max_new_tokens=5", "--temperature=0"]) == 0
    assert capsys.readouterr().out.startswith("to be")
    assert main(["export", "runs/gpt", "out"]) == 0
    assert capsys.readouterr().out == "The model is in out.\n"
    before, after = (Path(name, "model.safetensors") for name in ("hub", "out"))
    assert sorted(load_file(before)) == sorted(load_file(after))
    assert refused(capsys, "import", "hub", "runs/gpt") == "runs/gpt is there already; choose another folder"
    assert refused(capsys, "export", "runs/gpt", "out") == "out is there already; choose another folder"
    before.write_bytes(before.read_bytes()[:-9])
    assert re.search(r"hub/model\.safetensors is damaged .*; copy or convert", refused(capsys, "import", "hub", "b"))
    assert not Path("b").exists()


def test_a_run_of_pictures_goes_out_as_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    message = "vit: a model of pictures is written as a file for timm; give FILE.safetensors"
    assert refused(capsys, "export", "runs/small", "vit") == message
    assert main(["export", "runs/small", "vit.safetensors"]) == 0
    assert "patch_embed.proj.weight" in load_file("vit.safetensors")


# What is refused


def edit(old: str, new: str) -> None:
    assert old in CONFIG
    Path("wrong.yaml").write_text(CONFIG.replace(old, new))


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
        ("patch: 4", "patch: four", "wrong.yaml line 12: model.tokenizers.patch must be int, got four"),
        (
            "d_model: 8",
            "d_model: 9",
            "wrong.yaml line 13: model.transformer.n_heads must divide d_model",
        ),
        ("train: Digits", "train: digits.csv", "digits.csv: no such file"),
        ("class_path: Classify", "class_path: os.system", "wrong.yaml line 7: os.system is refused"),
        ("train: Digits", "train: {class_path: os.system}", "wrong.yaml line 15: os.system is refused"),
        (
            "trainer:\n",
            "trainer:\n  callbacks: [{class_path: LambdaCallback, init_args: {on_fit_start: os.system}}]\n",
            "on_fit_start: os.system is refused",
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
        ("fit --resume runs/absent", "runs/absent/config.yaml does not exist"),
        ("collect --env CartPol-v1 --output new", "there is no environment CartPol-v1; did you mean 'CartPole-v1'"),
        ("collect --env CartPole-v1 --output runs/small", "runs/small is there already; choose another folder"),
        (
            "collect --env CartPole-v1 --output new --policy runs/absent",
            "there is no run folder runs/absent; a policy is",
        ),
        (
            "collect --env CartPole-v1 --output new --policy runs/small",
            "policy runs/small: a run of Classify, which does",
        ),
        ("collect --env CartPole-v1 --output new --episodes 0", "episodes must be at least 1, got 0"),
        ("collect --env CartPole-v1", "the following arguments are required: --output; see anyformer collect --help"),
        ("collect --env absent:Car-v0 --output new", "the package absent is not opened; --unsafe_imports absent does"),
        ("import empty runs/new", "empty holds no config.json; give a folder as save_pretrained"),
        ("import absent runs/new", "absent: no such file; looked for absent and"),
        ("import https://host/gpt2 runs/new", "nothing is loaded from the network"),
        ("import empty runs/small", "runs/small is there already; choose another folder"),
        ("import empty", "the following arguments are required: RUN; see anyformer import --help"),
        ("export absent out", "there is no run folder absent"),
        ("export empty out", "empty holds no model"),
        ("fit --resume runs/small --config small.yaml", "--resume takes the config and the folder of the run"),
        (
            "fit --resume runs/small --model.transformer.d_model=16 --trainer.max_epochs=2",
            "is of another model: size mismatch",
        ),
        ("fit --config small.yaml --unsafe_imports absent", "--unsafe_imports absent cannot be imported"),
        ("test", "the following arguments are required: RUN; see anyformer test --help"),
        ("test --data.test 0.5 runs/small", "the run's folder stands first, got --data.test: anyformer test RUN"),
        ("test runs/absent", "there is no run folder runs/absent; a run is a local folder that fit has written"),
        (
            "test runs/small --data.test=null",
            "there are no test records: give data.test a source, a path or a fraction",
        ),
        ("test runs/small --data.test=absent.csv", "absent.csv: no such file"),
        ("predict runs/small seven.png", "a field is given as FIELD=VALUE, got 'seven.png'"),
        ("predict runs/small img=seven.png", r"has no field 'img'; (did you mean 'image'|there are image)"),
        ("predict runs/small image=absent.png", "absent.png: no such file"),
        ("predict runs/small image=small.yaml", "small.yaml"),
        ("predict runs/small image=seven.png image=seven.png", "the field 'image' is given twice; for many files give"),
        ("predict runs/small image=no*.png", r"field 'image': no file matches no\*.png$"),
        ("predict runs/small image=empty", "field 'image': empty is empty$"),
        ("predict runs/small image=runs/small/model", "none of the 3 files in runs/small/model ends in .png, .jpg"),
        ("predict runs/small image=seven.png --output x.txt", "--output must end in .csv, .jsonl, .json, got x.txt"),
        ("predict runs/small image=seven.png --output no/x.csv", "--output no/x.csv: there is no folder no$"),
        ("predict runs/small image=seven.png --output x.csv --json", "--json prints, and --output writes a file"),
        ("predict runs/absent image=seven.png", "there is no run folder runs/absent"),
    ],
)
def test_a_wrong_command_is_told_so_in_one_line(argv: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert re.search(message, refused(capsys, *argv.split()))


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


def test_episodes_are_collected(
    at_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["collect", "--env", "CartPole-v1", "--policy", "random", "--policy", "scripted", "--episodes", "4"]
    assert main([*argv, "--seed", "1", "--output", "carts"]) == 0
    random, scripted, last = capsys.readouterr().out.splitlines()
    assert re.match(r"random +2 episodes, \d+ steps, return", random)
    assert re.match(r"scripted +2 episodes, 1000 steps, return 500.00", scripted)
    assert "`class_path: Episodes` with `path: carts`" in last
    assert len(Episodes("carts")) == 4
    # A package of the user's, which registers an environment of its own.
    Path("mine_too.py").write_text(
        "import gymnasium\ngymnasium.register('Mine-v0', 'gymnasium.envs.classic_control:CartPoleEnv')\n"
    )
    monkeypatch.syspath_prepend(at_home)
    argv = ["collect", "--env", "mine_too:Mine-v0", "--episodes", "1", "--output", "mine"]
    assert main(argv) == 2
    assert main([*argv, "--unsafe_imports", "mine_too"]) == 0
    assert Episodes("mine").played_in.id == "mine_too:Mine-v0"


MIXTURE = """\
trainer: {max_epochs: 1, accelerator: cpu, enable_progress_bar: false}
model:
  class_path: Mixture
  init_args:
    tasks:
      digits:
        class_path: Classify
        init_args:
          tokenizers:
            image: {class_path: ImagePatches, init_args: {size: [8, 8], patch: 4, channels: 1}}
      masked:
        class_path: LanguageModel
        init_args:
          tokenizers:
            text: {class_path: Text, init_args: {kind: bytes}}
          context: 16
          masking: {}
    transformer: {d_model: 8, depth: 1, n_heads: 2}
data:
  class_path: Mixed
  init_args:
    n_batches: 4
    parts:
      digits: {train: Digits, validation: 0.1, test: 0.1, batch_size: 100}
      masked: {train: {class_path: Corpus, init_args: {path: poem.txt}}, validation: 0.5}
"""


def test_a_mixture_is_trained_and_each_of_its_tasks_used_by_itself(
    at_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mixture.yaml").write_text(MIXTURE)
    Path("poem.txt").write_text("a rose is a rose is a rose. " * 40)
    assert main(["fit", "--config", "mixture.yaml"]) == 0
    out = capsys.readouterr().out
    assert "anyformer predict runs/mixture:digits image=...\n  anyformer predict runs/mixture:masked text=..." in out
    figures = read_figures(Path("runs/mixture"))
    assert Path("runs/mixture/digits/confusion.png").exists()
    config = yaml.safe_load(Path("runs/mixture/config.yaml").read_text())["model"]["init_args"]
    assert config["transformer"]["d_model"] == 8 and "transformer" not in config["tasks"]["digits"]["init_args"]

    assert main(["predict", "runs/mixture:digits", "image=seven.png", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["label"] in "0123456789"
    assert main(["test", "runs/mixture:digits"]) == 0
    assert f"test/accuracy  {figures['test/digits/accuracy']:.4f}" in capsys.readouterr().out
    assert read_figures(Path("runs/mixture")) == figures
    assert main(["validate", "runs/mixture:digits", "--data.batch_size=7"]) == 0
    assert main(["test", "runs/mixture"]) == 0
    assert "test/digits/accuracy" in capsys.readouterr().out
    assert main(["fit", "--resume", "runs/mixture", "--trainer.max_epochs=2", "--data.n_batches=4"]) == 0
    for of in ("mixture.yaml", "runs/mixture", "runs/mixture:masked"):
        capsys.readouterr()
        assert main(["params", of, *(["--tokens=masked:text=16"] if "masked" not in of else [])]) == 0
    assert "masked: head" not in capsys.readouterr().out

    assert refused(capsys, "predict", "runs/mixture", "image=seven.png") == (
        "runs/mixture is a mixture; name one of its tasks: runs/mixture:digits or runs/mixture:masked"
    )
    assert "there are digits, masked; did you mean 'digits'?" in refused(capsys, "test", "runs/mixture:digit")
    Path("wrong.yaml").write_text(MIXTURE.replace("n_batches: 4", "n_batches: 4\n    seed: 3"))
    assert refused(capsys, "fit", "--config", "wrong.yaml") == (
        "wrong.yaml line 23: data.init_args.seed is what seed_everything says; give that"
    )
    Path("wrong.yaml").write_text(MIXTURE.replace("batch_size: 100", "batch_sizes: 100"))
    message = refused(capsys, "fit", "--config", "wrong.yaml")
    assert message.startswith(
        "wrong.yaml line 24: data.parts.digits has no key 'batch_sizes'; did you mean 'batch_size'?"
    )
    Path("wrong.yaml").write_text(MIXTURE.partition("data:")[0] + "data:\n  parts: {}\n")
    assert refused(capsys, "fit", "--config", "wrong.yaml") == (
        "wrong.yaml line 20: data that has parts is a mixture's; give class_path: Mixed and put them under init_args"
    )
    Path("wrong.yaml").write_text(MIXTURE.replace("      masked: {train", "      maskd: {train"))
    assert refused(capsys, "fit", "--config", "wrong.yaml") == (
        "data.parts: there is no task 'maskd'; did you mean 'masked'?; give it under tasks"
    )


# The configs that come with it


def data_paths(value: Any) -> list[str]:
    """The files that a config reads of $ANYFORMER_DATA, whatever they end in."""
    if isinstance(value, str):
        return [value] if re.fullmatch(r"\w+/[\w./-]+", value) else []
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return sorted({path for inner in values for path in data_paths(inner)})


@pytest.mark.parametrize("config", sorted((Path(__file__).parents[1] / "configs").glob("*.yaml")), ids=lambda c: c.stem)
def test_every_config_trains_two_steps_and_tests(tmp_path: Path, config: Path) -> None:
    if missing := [
        path for path in data_paths(yaml.safe_load(config.read_text())["data"]) if not (DATA / path).exists()
    ]:
        pytest.skip(f"needs {' and '.join(missing)} in ANYFORMER_DATA")
    limits = [f"--trainer.limit_{part}_batches=1" for part in ("val", "test")]
    limits += [
        "--trainer.limit_train_batches=2",
        "--trainer.check_val_every_n_epoch=1",
        "--trainer.val_check_interval=1.0",
    ]
    options = ["--trainer.max_steps=2", "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", *limits]
    if config.stem == "image_folder":
        options.append(f"--data.train={pictures(tmp_path / 'pictures', *range(100))}")
    if "class_path: Mixture" in config.read_text():
        options += ["--model.tasks.cartpole.init_args.play.episodes=2"]
        options += ["--data.parts.cartpole.train.init_args.episodes=20"]
    elif "SequenceToSequence" in config.read_text():
        # Untrained, it would write as long as it may.
        options.append("--model.decoding.max_new_tokens=4")
    elif "class_path: Decide" in config.read_text():
        options.append("--model.play.episodes=2")
    if "class_path: Collected" in config.read_text() and "class_path: Mixture" not in config.read_text():
        options.append("--data.train.init_args.episodes=20")
    if begun := re.search(r"^    init_from: runs/(\w+)", config.read_text(), re.MULTILINE):
        # From a run of its own, and with the frozen blocks of its head where there are some.
        first = ["--config", str(config.with_name(f"{begun[1]}.yaml")), "--run_dir", str(tmp_path / "first")]
        assert main(["fit", *first, *options]) == 0
        options.append(f"--model.init_from={tmp_path / 'first'}")
        if frozen := re.search(r"--model.freeze '(.+)'", config.read_text()):
            options.append(f"--model.freeze={frozen[1]}")
    assert main(["fit", "--config", str(config), "--run_dir", str(tmp_path / "run"), *options]) == 0
    assert {"val/loss", "test/loss", "val/score"} & read_figures(tmp_path / "run").keys()


# True subprocesses

LIGHT = """\
import sys
from anyformer.__main__ import main
import anyformer
codes = [main([word]) for word in ("--help", "--version", "fitt")]
assert codes == [0, 0, 2], codes
heavy = {"torch", "lightning", "numpy", "jsonargparse"} & sys.modules.keys()
assert not heavy, heavy
"""


def test_the_front_imports_nothing_heavy() -> None:
    subprocess.run([sys.executable, "-c", LIGHT], check=True, capture_output=True)


def test_real_processes_train_together_test_nothing_and_say_so(at_home: Path) -> None:
    options = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.limit_train_batches=1", "--run_dir", "two"]
    argv = [sys.executable, "-m", "anyformer", "fit", "--config", "small.yaml", *options]
    done = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    said = r"not tested, because 2 processes trained; test with: (python -m |uv run )?anyformer test two\n"
    assert len(re.findall(said, done.stderr)) == 1
    assert "val/accuracy" in done.stdout
    figures = read_figures(Path("two"))
    assert not any(name.startswith("test/") for name in figures)
    assert main(["test", "two"]) == 0
    assert "test/accuracy" in read_figures(Path("two"))
