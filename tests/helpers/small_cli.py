"""A config of a second, and what the tests of every command need."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from anyformer.__main__ import main
from anyformer.tokenizers.image.sources import Digits

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


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line with which a command is refused."""
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("anyformer: ")
    assert err.count("\n") == 1
    return err.removeprefix("anyformer: ").rstrip("\n")


def pictures(folder: Path, *numbers: int) -> Path:
    """A folder with digits of these numbers as files, in folders of their labels."""
    for i in numbers:
        record = Digits()[i]
        (folder / record["label"]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(record["image"]).resize((19, 11)).save(folder / record["label"] / f"{i}.png")
    return folder


def edit(old: str, new: str) -> None:
    assert old in CONFIG
    Path("wrong.yaml").write_text(CONFIG.replace(old, new))
