"""`anyformer plan`, called in the process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anyformer.__main__ import main

CONFIG = """\
trainer: {max_epochs: 1, accelerator: cpu}
model:
  class_path: Classify
  init_args:
    tokenizers: {image: {class_path: ImagePatches, init_args: {size: [8, 8], patch: 2, channels: 1}}}
    transformer: {d_model: 8, depth: 1, n_heads: 2}
data: {train: Digits, validation: 0.1, batch_size: 100}
"""


def test_the_command_says_it_in_words_and_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(CONFIG)
    assert main(["plan", "small.yaml", "--data.batch_size=200"]) == 0
    said = capsys.readouterr().out
    assert "\nThe best simple model on the same records: " in said
    assert said.endswith("(anyformer baseline small.yaml --data.batch_size=200)\n")
    assert (
        "an epoch   9 batches\n  attention  plain\n" in said
        and "What the model sees is in runs/small/plan.png." in said
    )
    assert sorted(path.name for path in Path("runs/small").iterdir()) == ["plan.png"]
    assert main(["plan", "small.yaml", "--json", "--output", "here.png"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["parts"][""]["n_batches"] == 17 and values["n_steps"] == 17 and Path("here.png").exists()
    for wrong, message in (
        (["--output", "here.jpg"], "--output is a picture, FILE.png, got here.jpg"),
        (["--trainer.max_epoch=3"], "there is no option --trainer.max_epoch; did you mean 'trainer.max_epochs'?"),
    ):
        assert main(["plan", "small.yaml", *wrong]) == 2
        assert capsys.readouterr().err == f"anyformer: {message}\n"
    # The config of a run is complete: nothing is added to it from what it started from.
    Path("runs/small/config.yaml").write_text(CONFIG)
    with monkeypatch.context() as patched:
        patched.setattr("anyformer.runs.experiment.find_start", None)
        assert main(["plan", "runs/small", "--json"]) == 0
    capsys.readouterr()
    assert main(["plan", "--json", "small.yaml"]) == 2
    assert "the config stands first, got --json" in capsys.readouterr().err
