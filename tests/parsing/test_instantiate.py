"""Objects are made of configs, or it is said where one cannot be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

from anyformer.choices import Checked
from anyformer.errors import InputError
from anyformer.parsing.instantiate import instantiate, make_objects
from anyformer.tasks.classify.classify import Classify

TOKENIZERS = {"image": {"class_path": "ImagePatches", "init_args": {"size": [8, 8], "channels": 1}}}


def test_a_task_is_made_from_plain_values() -> None:
    task = instantiate({"class_path": "Classify", "init_args": {"tokenizers": TOKENIZERS}})
    again = instantiate(task.config())
    assert type(again) is Classify
    assert again.config() == task.config()


def test_patterns_are_mappings_in_a_config_as_in_python() -> None:
    patterns = [
        {"window": {"row": 1, "column": 1.5}, "global": {"class": None}},
        {"random": [[1], [0]], "block": 2},
        {},
    ]
    given = {"tokenizers": TOKENIZERS, "transformer": {"depth": 3, "patterns": patterns}}
    task = instantiate({"class_path": "Classify", "init_args": given})
    assert task.transformer.patterns == tuple(patterns)
    assert instantiate(task.config()).config() == task.config()
    given["transformer"]["patterns"] = [{"windows": {"row": 1}}]
    with pytest.raises(InputError, match=r"transformer\.patterns\.0 has no key 'windows'; did you mean 'window'\?"):
        instantiate({"class_path": "Classify", "init_args": given})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"class_path": "os.system", "init_args": {"command": "touch bad"}}, "os.system is refused"),
        (
            {"class_path": "Classify", "init_args": {"tokenizers": {}}},
            "config.json: model.tokenizers must name at",
        ),
        (
            {"class_path": "Classify", "init_args": {"tokenizers": TOKENIZERS, "transformer": {"d_model": 7}}},
            "^config.json: model.transformer.n_heads must divide d_model unless d_head is given, got d_model=7",
        ),
        (
            {"class_path": "Classify", "init_args": {"tokenizers": TOKENIZERS, "transformer": {"d_model": "wide"}}},
            "model.transformer.d_model must be int, got wide",
        ),
        ({"class_path": "Classify", "init_args": {}}, "model.tokenizers is missing: Classify needs it"),
    ],
)
def test_a_task_that_cannot_be_made_is_told_so_in_one_line(
    config: dict, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        instantiate(config)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_package_is_opened_by_name_and_closed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "opened.py").write_text(
        "from anyformer.tasks.classify import Classify\nclass Mine(Classify):\n    '''Mine.'''\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = {"class_path": "opened.Mine", "init_args": {"tokenizers": TOKENIZERS}}
    with pytest.raises(InputError, match=r"opened.Mine is refused: .* unsafe_imports=\['opened'\] opens opened"):
        instantiate(config)
    assert type(instantiate(config, ["opened"])).__name__ == "Mine"
    with pytest.raises(InputError, match=r"opened.Mine is refused"):
        instantiate(config)
    with pytest.raises(InputError, match=r"unsafe_imports=\['absent'\] cannot be imported: No module named 'absent'"):
        instantiate(config, ["absent"])


@dataclass(frozen=True)
class Grid:
    """A part of a toy."""

    side: int = 1

    def __post_init__(self) -> None:
        if self.side < 1:
            raise InputError(f"side must be at least 1, got {self.side}")


class Toy(Checked):
    """What is made in the tests below."""

    def __init__(self, grid: Grid = Grid(), more: list[Grid] | None = None, by: dict[str, Grid] | None = None) -> None:
        if more and not by:
            raise TypeError("there are more,\n  and by is empty")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"grid": {"side": 0}}, "toy.grid.side must be at least 1, got 0"),
        ({"more": [{"side": 1}, {"side": -1}]}, "toy.more.1.side must be at least 1, got -1"),
        ({"by": {"one": {"side": 1}, "two": {"side": 0}}}, "toy.by.two.side must be at least 1, got 0"),
        ({"more": [{"side": 1}]}, "toy: there are more, and by is empty"),
    ],
)
def test_what_a_constructor_refuses_begins_with_its_key(given: dict, message: str) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Toy, "toy")
    with pytest.raises(InputError) as caught:
        make_objects(parser, parser.parse_object({"toy": given}))
    assert str(caught.value) == message


def test_a_saved_config_is_of_one_of_our_classes() -> None:
    with pytest.raises(InputError, match=r"config.json: there is no class 'Clasify'; did you mean 'Classify'\?"):
        instantiate({"class_path": "Clasify"})
