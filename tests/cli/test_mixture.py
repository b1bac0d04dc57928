"""A mixture at the command line: trained whole, its tasks used one by one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from anyformer.__main__ import main
from anyformer.runs.metrics_file import read_metrics
from tests.helpers.small_cli import refused

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
    metrics = read_metrics(Path("runs/mixture"))
    assert Path("runs/mixture/digits/confusion.png").exists()
    config = yaml.safe_load(Path("runs/mixture/config.yaml").read_text())["model"]["init_args"]
    assert config["transformer"]["d_model"] == 8 and "transformer" not in config["tasks"]["digits"]["init_args"]

    assert main(["predict", "runs/mixture:digits", "image=seven.png", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["label"] in "0123456789"
    assert main(["test", "runs/mixture:digits"]) == 0
    assert f"test/accuracy  {metrics['test/digits/accuracy']:.4f}" in capsys.readouterr().out
    assert read_metrics(Path("runs/mixture")) == metrics
    for task in ("digits", "masked"):
        shutil.rmtree(f"runs/mixture/{task}", ignore_errors=True)
        assert main(["validate", f"runs/mixture:{task}", "--data.batch_size=7"]) == 0
        assert not Path("runs/mixture", task).exists(), "a folder where nothing is written"
    assert main(["test", "runs/mixture:digits"]) == 0
    assert Path("runs/mixture/digits/confusion.png").exists()
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
