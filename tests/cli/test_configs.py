"""The configs that come with it train and test."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from anyformer.__main__ import main
from anyformer.runs.metrics_file import read_metrics
from tests.helpers.small_cli import pictures

DATA = Path(os.environ.get("ANYFORMER_DATA", "data"))


def data_paths(value: Any) -> list[str]:
    """The files that a config reads of $ANYFORMER_DATA, whatever they end in."""
    if isinstance(value, str):
        return [value] if re.fullmatch(r"\w+/[\w./-]+", value) else []
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return sorted({path for inner in values for path in data_paths(inner)})


@pytest.mark.parametrize("config", sorted((Path(__file__).parents[2] / "configs").glob("*.yaml")), ids=lambda c: c.stem)
def test_every_config_trains_two_steps_and_tests(tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if missing := [
        path for path in data_paths(yaml.safe_load(config.read_text())["data"]) if not (DATA / path).exists()
    ]:
        pytest.skip(f"needs {' and '.join(missing)} in ANYFORMER_DATA")
    model = re.search(r"^    .*\b(?:init_from|source): (models/\w+)", config.read_text(), re.MULTILINE)
    if model is not None and not (DATA.absolute().parent / model[1]).exists():
        pytest.skip(f"needs {model[1]} beside ANYFORMER_DATA")
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
    if re.search("class_path: (ListOps|AssociativeRecall)", config.read_text()):
        # Each record is drawn, and with few of them all are at once.
        options += [f"--data.{part}.init_args.n=200" for part in ("train", "validation", "test")]
    if model is not None and "source: models/" not in config.read_text():
        options.append("--data.max_tokens=600")
    if "class_path: Collected" in config.read_text() and "class_path: Mixture" not in config.read_text():
        options.append("--data.train.init_args.episodes=20")
    if source := re.search(r"\bsource: (runs/(\w+))", config.read_text()):
        first = ["--config", str(config.with_name(f"{source[2]}.yaml")), "--run_dir", source[1]]
        assert main(["fit", *first, *options]) == 0
    if begun := re.search(r"^    init_from: runs/(\w+)", config.read_text(), re.MULTILINE):
        # From a run of its own, and with the frozen blocks of its head where there are some.
        first = ["--config", str(config.with_name(f"{begun[1]}.yaml")), "--run_dir", str(tmp_path / "first")]
        assert main(["fit", *first, *options]) == 0
        options.append(f"--model.init_from={tmp_path / 'first'}")
        if frozen := re.search(r"--model.freeze '(.+)'", config.read_text()):
            options.append(f"--model.freeze={frozen[1]}")
    assert main(["fit", "--config", str(config), "--run_dir", str(tmp_path / "run"), *options]) == 0
    assert {"val/loss", "test/loss", "val/score"} & read_metrics(tmp_path / "run").keys()
