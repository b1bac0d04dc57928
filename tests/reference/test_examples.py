"""The YAML that stands below the help of a class."""

from __future__ import annotations

import pytest
import yaml

from anyformer.parsing.misfits import misfit
from anyformer.reference.examples import config_classes, config_files, example, usual_arguments
from anyformer.reference.schema import config_types
from anyformer.reference.source import find

NAMED = [
    cls.name for cls in config_classes() if not cls.is_abstract and cls.name not in ("Trainer", "Ensemble", "Joined")
]


@pytest.mark.parametrize("name", NAMED)
def test_an_example_is_short_has_the_class_and_fits_its_types(name: str) -> None:
    text = example(find(name))
    assert len(text.splitlines()) <= 14
    content = yaml.safe_load(text)
    if name not in ("Records", "Part", "Saving") and not find(name).is_values:
        assert f"class_path: {name}" in text
    for key, value in content.items():
        if key == "model" and "class_path" not in value:
            # Of whichever task: what it does not show must be given, and is not.
            continue
        if key == "data" and "train" not in value and "class_path" not in value:
            continue
        assert misfit(value, config_types()[key], key) is None


def test_values_come_from_a_config_where_one_has_the_class() -> None:
    assert usual_arguments(find("RotaryConfig"))["axes"] == ["step"]
    assert "Digits" in {path.stem.title() for path in config_files()}


def test_an_option_of_the_command_line_has_no_place_in_a_config() -> None:
    assert example(find("GenerationConfig")) is None
