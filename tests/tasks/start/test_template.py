"""The config that an import writes starts from what was brought in, and a parser takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from anyformer.model.config import TransformerConfig
from anyformer.parsing.check import check
from anyformer.tasks.base.records import Records
from anyformer.tasks.base.task import Task
from anyformer.tasks.classify.classify import Classify
from anyformer.tasks.language.language import LanguageModel
from anyformer.tasks.sequence.sequence import SequenceToSequence
from anyformer.tasks.start.template import fine_tuning_config
from anyformer.tokenizers.audio.audio import Audio
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.text.text import Text

SIZES = TransformerConfig(d_model=12, depth=1, n_heads=3)
START = ["<|start|>", ["<|de|>", "<|en|>"]]
TEXT = Text(max_len=9, vocab_size=260, special_tokens=("<|start|>", "<|de|>", "<|en|>")).fit(["to be"])
WHISPER = SequenceToSequence({"audio": Audio(pad_to_seconds=1.0), "text": TEXT}, SIZES, start=START)


@pytest.mark.parametrize(
    ("task", "init_args", "columns"),
    [
        (
            WHISPER,
            {
                "tokenizers": {"audio": {"init_args": {"pad_to_seconds": None}}},
                "start": ["<|start|>", "<|en|>"],
                "optimizer": {"lr": 1e-4},
            },
            {"audio": "audio", "text": "text"},
        ),
        (
            Classify({"image": ImagePatches()}, SIZES, target="kind"),
            {"optimizer": {"lr": 5e-5, "layer_decay": 0.75}},
            {"image": "image", "kind": "kind"},
        ),
        (LanguageModel({"text": Text("bytes")}, SIZES), {"optimizer": {"lr": 5e-5}}, {"text": "text"}),
    ],
    ids=["speech", "pictures", "language"],
)
def test_it_names_the_model_and_the_columns(task: Task, init_args: dict[str, Any], columns: dict[str, str]) -> None:
    text = fine_tuning_config(task, "runs/a")
    content = yaml.safe_load(text)
    assert content["model"] == {"class_path": type(task).__name__, "init_args": {"init_from": "runs/a", **init_args}}
    assert content["data"]["train"]["init_args"]["columns"] == columns
    assert f"--config {Path('runs/a')}/config.yaml --run_dir runs/mine" in text
    check({name: content[name] for name in ("model", "data")}, {"model": Task, "data": Records}, "config.yaml")
