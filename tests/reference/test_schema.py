"""The JSON Schema of configs."""

from __future__ import annotations

from pathlib import Path

import pytest

from anyformer.parsing.scalars import load_yaml
from anyformer.reference.schema import choices, schema
from anyformer.reference.source import find
from tests.helpers.json_schema import errors

CONFIGS = sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml"))


@pytest.fixture(scope="module")
def whole() -> dict:
    return schema()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_valid(path: Path, whole: dict) -> None:
    assert list(errors(load_yaml(path.read_text()), whole, whole)) == []


RIGHT = """\
model:
  class_path: Classify
  init_args:
    tokenizers: {image: {class_path: ImagePatches, init_args: {patch: 4}}}
    optimizer: {schedule: cosine}
    transformer: {patterns: [{window: {word: 4}}, {}]}
data: {train: Digits}
trainer: {max_epochs: 3, callbacks: {class_path: EarlyStopping, init_args: {monitor: val/loss}}}
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("patch: 4", "pach: 4", "tokenizers.image.init_args.pach is not known"),
        ("patch: 4", "patch: four", "patch is no integer"),
        ("cosine", "cosin", "'cosin' is none of ['cosine', 'linear', 'constant']"),
        ("window:", "windo:", "windo is not known"),
        ("max_epochs", "max_epoch", ".trainer.max_epoch is not known"),
        ("class_path: ImagePatches", "class_path: ImagePaches", "'ImagePaches'"),
        ("class_path: Classify", "class_path: Clasify", "'Clasify'"),
        ("monitor:", "monitr:", "monitr is not known"),
        ("EarlyStopping", "EMAWeightAveraging", "'EMAWeightAveraging'"),
        ("    tokenizers:", "    tokens:", "lacks tokenizers"),
        ("model:", "modle:", ".modle is not known"),
        ("data: {train: Digits}", "data: {validation: 0.1}", "lacks train"),
    ],
)
def test_what_is_misspelt_is_not(old: str, new: str, message: str, whole: dict) -> None:
    assert list(errors(load_yaml(RIGHT), whole, whole)) == []
    assert old in RIGHT
    found = list(errors(load_yaml(RIGHT.replace(old, new)), whole, whole))
    assert found and message in " ".join(found), found


def test_every_key_says_what_it_means(whole: dict) -> None:
    patches = whole["definitions"]["ImagePatches"]["properties"]
    assert patches["patch"]["description"].startswith("Side of the square that a token stands for.")
    assert patches["patch"]["description"].endswith("Default: 4.")
    for name in ("Classify", "Table", "OptimizerConfig", "Records", "TransformerConfig"):
        of = whole["definitions"][name]["properties"]
        assert [key for key, each in of.items() if not each["description"].strip()] == []


def test_a_class_of_another_package_is_valid(whole: dict) -> None:
    mine = RIGHT.replace(
        "class_path: ImagePatches, init_args: {patch: 4}", "class_path: mine.Radar, init_args: {beams: 4}"
    )
    assert list(errors(load_yaml(mine), whole, whole)) == []


def test_callbacks_that_cannot_work_are_no_choice() -> None:
    names = [cls.name for cls in choices(find("EarlyStopping").line[1])]
    assert "EarlyStopping" in names and "LearningRateFinder" not in names
