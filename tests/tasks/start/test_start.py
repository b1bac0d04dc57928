"""A config of a few lines starts from a model of another library, and its run needs that no more."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from anyformer.__main__ import main
from anyformer.errors import InputError
from anyformer.saving.model_folder import load
from anyformer.tasks.start.start import find_start
from tests.helpers.small_cli import refused

pytest.importorskip("transformers")
from tests.helpers.transformers_folders import bert

CONFIG = """\
model:
  class_path: Classify
  init_args:
    init_from: bert
    optimizer: {lr: 1.0e-3, unfreeze: {after: 1}}
data:
  train: {class_path: Table, init_args: {path: train.csv, columns: {text: text, label: label}}}
  validation: train.csv
trainer: {max_epochs: 1, accelerator: cpu, enable_progress_bar: false}
"""
ROWS = [("to be or not", "yes"), ("that is the question", "no"), ("to be", "yes"), ("the mind", "perhaps")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    bert(folder / "bert", "classes")
    (folder / "tune.yaml").write_text(CONFIG)
    (folder / "train.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS))
    return folder


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    monkeypatch.setenv("ANYFORMER_DATA", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_config_of_a_few_lines_is_completed_and_its_run_goes_on_without_the_source(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--config", "tune.yaml"]) == 0
    said = capfd.readouterr().err
    assert re.search(r"options taken from bert: \d+ \(tokenizers.text, transformer, embedding, target, read, ", said)
    # Three classes there and here: what they are called differs, so the head is new.
    assert re.search(r"weights from bert: \d+ tensors taken, 2 fresh \(heads.class_head.output.weight, ", said)
    saved = yaml.safe_load((home / "runs/tune/config.yaml").read_text())["model"]["init_args"]
    assert saved["transformer"]["d_model"] == 12 and saved["read"] == "first" and saved["pool_dense"] is True
    assert "vocabulary.json" not in saved and (home / "runs/tune/config.yaml").stat().st_size < 20_000
    shutil.rmtree("bert")
    assert load("runs/tune").classes == ["no", "perhaps", "yes"]
    assert main(["fit", "--resume", "runs/tune", "--trainer.max_epochs=2"]) == 0
    assert main(["validate", "runs/tune"]) == 0
    assert main(["params", "runs/tune"]) == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "transformer: {d_model: 24, n_heads: 3}",
            r"^tune.yaml line 5: model.transformer.d_model is 24, and init_from bert has 12; give 12, or leave it out$",
        ),
        ("tokenizers: 3", r"^tune.yaml line 5: model.tokenizers must .*got 3"),
        ("transformer: {d_modl: 24}", r"^tune.yaml line 5: .*no key 'd_modl'; did you mean 'd_model'"),
        ("freeze: ['model.transfomer.*']", r"freeze: no parameter is named .*; did you mean .*model.transformer"),
        ("tokenizers: {txt: {init_args: {wrap: false}}}", r"^model.tokenizers.txt has no class_path, .*'text'"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    home: Path, given: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = CONFIG.replace("optimizer: {lr: 1.0e-3, unfreeze: {after: 1}}", given)
    (home / "tune.yaml").write_text(wrong)
    assert main(["fit", "--config", "tune.yaml"]) == 2
    assert re.search(message, capsys.readouterr().err.splitlines()[-1].removeprefix("anyformer: "))


def test_the_table_of_parameters_shows_rates_and_an_option_overrides_the_source(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["params", "tune.yaml", "--classes=2", "--model.optimizer.layer_decay=0.5"]) == 0
    table = capsys.readouterr().out
    assert re.search(r"^model.transformer.blocks.1 .* 0.0005 +2$", table, re.MULTILINE)
    assert refused(capsys, "params", "tune.yaml", "--model.init_from=other").startswith("other: no such file")


def test_a_field_that_the_source_added_is_said_to_be_its(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "tune.yaml").write_text(CONFIG.replace("{text: text, label", "{words: text, label"))
    assert main(["fit", "--config", "tune.yaml"]) == 2
    assert capsys.readouterr().err.endswith(
        "model.tokenizers.text comes from init_from bert (text: null leaves it out): no record has anything in 'text'; "
        "there are words, label\n"
    )


def test_an_option_that_names_the_class_decides_what_is_taken(home: Path) -> None:
    content = yaml.safe_load(CONFIG)
    content["model"]["init_args"]["target"] = "mood"
    for options in (["--model=Predict"], ["--model", "Predict"], ["--model.class_path=Predict"]):
        model = find_start([content], options, ()).model
        assert model["class_path"] == "Predict" and model["init_args"]["read"] == "first"
        assert model["init_args"]["optimizer"]["lr"] == 1e-3 and "target" not in model["init_args"]
    assert find_start([], ["--model=Predict", "--model.init_from=bert"], ()).model["class_path"] == "Predict"


def test_later_configs_and_options_name_another_source(home: Path) -> None:
    contents = [yaml.safe_load(CONFIG), {"model": {"init_args": {"init_from": "other"}}}]
    assert find_start(contents[:1], [], ()).name == "bert"
    assert find_start(contents, ["--model.init_from=bert"], ()).name == "bert"
    assert find_start(contents, ["--model.init_args.init_from", "bert"], ()).name == "bert"
    assert find_start(contents, ["--model.init_from=null"], ()) is None
    with pytest.raises(InputError, match=r"other: no such file"):
        find_start(contents, [], ())
    whole = {"class_path": "Classify", "init_args": {"init_from": "gone", "tokenizers": {"x": {"class_path": "Text"}}}}
    assert find_start([{"model": whole}], [], ()) is None
