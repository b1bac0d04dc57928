"""Objects as plain values, and the first difference of two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lightning.pytorch.callbacks import EarlyStopping

from anyformer.model.config import TransformerConfig
from anyformer.parsing.plain import config_name, describe, difference, differences, plain
from anyformer.tokenizers.text.text import Text


@pytest.mark.parametrize(
    ("before", "now", "found"),
    [
        ({"a": {"b": [1, 2]}, "c": None}, {"a": {"b": [1, 2]}, "c": None}, None),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}, "a.b.1 was 2 and is now 3"),
        ({"a": [1, 2, 3]}, {"a": [1, 2]}, "a had 3 entries and has now 2"),
        ({"a": 1}, {"b": 1}, "a is gone"),
        ({}, {"b": 1}, "b is new"),
        ({"a": {}}, {"a": {"b": None}}, None),
        ({"a": {"b": None}}, {"a": {}}, "a.b is gone"),
        ({"a": float("nan")}, {"a": float("nan")}, None),
        ({"a": [1]}, {"a": None}, "a was [1] and is now None"),
    ],
)
def test_the_first_difference_of_two_configs_is_named(before: dict, now: dict, found: str | None) -> None:
    assert difference(before, now) == found


def test_what_a_config_holds_is_plain_and_what_it_chooses_has_a_name() -> None:
    field = Text(kind="characters")
    made = plain({"sizes": TransformerConfig(d_model=8), "text": field, "files": (Path("a"), 1.5, None)})
    assert made["files"] == ["a", 1.5, None]
    assert made["sizes"]["d_model"] == 8 and "class_path" not in made["sizes"]
    assert made["text"]["class_path"] == "Text"
    assert made["text"]["init_args"]["kind"] == "characters"


def test_a_class_of_others_is_named_by_its_path() -> None:
    assert config_name(Path) == "pathlib.Path"
    assert config_name(Text) == "Text"


def test_all_differences_are_found_and_another_class_is_one() -> None:
    before = {"stop": {"class_path": "a.Stop", "init_args": {"n": 1}}, "lr": 1.0}
    now = {"stop": {"class_path": "a.Other", "init_args": {"m": 1}}, "lr": 2.0}
    assert list(differences(before, now)) == [("stop", "was Stop and is now Other"), ("lr", "was 1.0 and is now 2.0")]


def test_what_is_described_is_plain_and_tells_values_apart() -> None:
    stop = describe(EarlyStopping("val/loss", patience=4))
    assert stop["class_path"].endswith("EarlyStopping") and stop["init_args"]["patience"] == 4
    assert describe([1, (2.0, None), {"path": Path("a")}]) == [1, [2.0, None], {"path": "a"}]
    assert describe(np.float32(0.5)) == 0.5 and type(describe(np.float32(0.5))) is float
    for one, other in ((np.arange(3), np.arange(3) + 1), (np.arange(3), np.arange(3.0)), (range(200), range(1, 201))):
        one, other = (list(each) if isinstance(each, range) else each for each in (one, other))
        assert isinstance(describe(one), str) and describe(one) == describe(one) != describe(other)
