"""Before training a run says what it is trained on, and in the folder of what run."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest
from lightning.pytorch.loggers import CSVLogger

from anyformer.model.config import RotaryConfig, TransformerConfig
from anyformer.runs.fit import fit
from anyformer.runs.reports import beginning
from anyformer.runs.reports.beginning import MOST_RECORDS, count_classes, lacking
from anyformer.tasks.base.records import Records
from anyformer.tasks.predict.predict import Predict
from anyformer.tasks.targets.category import Category
from anyformer.tasks.targets.labels import Labels
from anyformer.tokenizers.row import Row
from anyformer.tokenizers.text.text import Text
from tests.helpers.given_rows import Rows


def test_the_examples_hold() -> None:
    assert not doctest.testmod(beginning).failed


def test_of_many_classes_the_most_and_the_least_frequent_are_named() -> None:
    text = count_classes({f"class {i}": i for i in range(1, 31)})
    assert text == "30 classes, from class 30 30, class 29 29, class 28 28 to class 3 3, class 2 2, class 1 1"


def test_what_is_missing_is_counted_by_field_and_by_column_of_a_row() -> None:
    rows = [{"size": {"a": i, "b": None if i % 4 else i}, "text": " " if i == 0 else "x"} for i in range(8)]
    source, tokenizers = Rows([*rows, {"size": None, "text": "x", "label": "y"}]), {"size": Row(), "text": Text()}
    told = lacking(source, ["size", "text", "made of others"], ["label"], tokenizers)
    assert told == "label 88.9%, size 11.1%, size.a 11.1%, size.b 77.8%, text 11.1%"
    assert lacking(Rows([{"text": "x"}]), ["text"], [], tokenizers) == ""
    many = Rows([{"text": "x" if i % 3 else None} for i in range(3 * MOST_RECORDS)])
    assert lacking(many, ["text"], [], tokenizers) == "text 100.0% (of 2,000 records looked at)"
    assert sum(many.n_read) == MOST_RECORDS


def test_a_run_says_what_it_is_before_its_first_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = [{"text": "ab" if i else None, "size": {"n": i}, "kind": "ab"[i % 2], "tags": ["x"]} for i in range(10)]
    task = Predict(
        {"text": Text("characters"), "size": Row()},
        {"kind": Category(), "tags": Labels()},
        TransformerConfig(d_model=8, depth=1, n_heads=2, rotary=RotaryConfig(("word",))),
        freeze=["model.*"],
    )
    run, logger = tmp_path / "run", CSVLogger(tmp_path / "logs")
    options = {"max_epochs": 1, "enable_progress_bar": None, "accelerator": "cpu", "logger": logger}
    fit(task, Records(records, records[:4]), run, **options)
    told = capsys.readouterr().out.split("epoch 1/1")[0].splitlines()
    n, trained = (sum(p.numel() for p in task.parameters() if p.requires_grad or whole) for whole in (True, False))
    assert told == [
        "records     train 10  validation 4",
        "kind        2 classes: a 5, b 5",
        "tags        1 classes: x 10",
        "missing     text 10.0%",
        f"parameters  {n:,}, of which {trained:,} are trained",
        "device      cpu, 32-true",
        f"run         {run}",
        f"logger      CSVLogger in {tmp_path / 'logs/lightning_logs/version_0'}",
    ]
    assert 0 < trained < n
    fit(task, Records(records, records[:4]), run, resume=True, **options)
    assert "records " not in capsys.readouterr().out, "nothing was trained"
