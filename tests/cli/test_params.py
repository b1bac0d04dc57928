"""`anyformer params`, called in the process."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import anyformer
from anyformer.__main__ import main
from tests.helpers.small_cli import edit, refused

pytestmark = pytest.mark.usefixtures("at_home")


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
    assert message.startswith("target 'label': the classes are not known yet: give classes, or fit to data; and the tr")
    assert "absent.csv" in message
    for value in ("0", "few", "image="):
        assert "--tokens must be a number from 1, or FIELD=N" in refused(
            capsys, "params", "small.yaml", "--classes=2", f"--tokens={value}"
        )
    assert "no field 'word'; there are image" in refused(capsys, "params", "runs/small", "--tokens=word=3")
    assert "the config stands first, got --classes=2" in refused(capsys, "params", "--classes=2", "small.yaml")
    assert "runs/small" not in refused(capsys, "params", "runs/small", "--model.transformer.depth=2")
    assert refused(capsys, "params", "none.yaml") == "there is no config none.yaml; did you mean 'wrong.yaml'?"


def test_classes_are_for_a_task_that_has_some(capsys: pytest.CaptureFixture[str]) -> None:
    text = "{class_path: Text, init_args: {kind: bytes}}"
    model = f"model: {{class_path: LanguageModel, init_args: {{tokenizers: {{text: {text}}}}}}}\n"
    Path("text.yaml").write_text(model + "data: {train: absent.txt}\n")
    assert refused(capsys, "params", "text.yaml", "--classes=3").startswith("--classes: LanguageModel")
