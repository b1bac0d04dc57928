"""The help of classes, blocks and keys, and the lists."""

from __future__ import annotations

import re

import pytest

from anyformer.errors import InputError
from anyformer.reference.pages import KINDS, _class, _classes, argument_lines, class_page, listing, page
from anyformer.reference.source import find, public_names


def test_a_page_says_what_a_class_is_its_arguments_and_shows_it() -> None:
    shown = page("ImagePatches")
    assert shown.startswith("ImagePatches, a tokenizer\n\nCuts a picture into squares")
    assert "  size: [int, int] or null, default [32, 32]\n      Rows and columns that every picture" in shown
    assert "  resize: crop or stretch, default crop\n" in shown
    assert "In a config:\n  model:\n    init_args:\n      tokenizers:\n" in shown


def test_every_public_class_has_one_with_a_meaning_for_each_argument() -> None:
    for name in public_names():
        if name[0].isupper():
            assert class_page(find(name)).startswith(name)
    for name in (
        "Classify",
        "Predict",
        "LanguageModel",
        "Decide",
        "SequenceToSequence",
        "Mixture",
        "Table",
        "Text",
        "Row",
    ):
        assert [each.name for each in find(name).arguments if not each.text] == []


def test_no_default_is_an_expression_of_python() -> None:
    for name in _classes():
        told = " ".join(line for each in _class(name).arguments for line in argument_lines(each)[:1])
        found = re.findall(r", default [^\n]*?(?:lambda\b|\w+\(|\*\()", told)
        assert found == [], name
    assert "  columns: {name: str}, default {image: file, label: folder}" in page("Folders")
    assert "  play: PlayConfig or null, default PlayConfig with the defaults of its own" in page("Decide")


def test_a_name_may_be_a_key_a_path_of_keys_or_written_otherwise() -> None:
    assert page("imagepatches") == page("ImagePatches")
    assert page("model.optimizer") == page("optimizer") == page("OptimizerConfig")
    assert page("rotary") == page("RotaryConfig")
    assert page("data") == page("Records")
    assert page("trainer").startswith("Trainer")
    assert page("model") == listing("tasks")
    assert "In Classify:" in page("label_smoothing")
    assert "ImagePatches" in page("Tokenizer")


def test_a_callback_that_cannot_work_is_said_to() -> None:
    assert page("LearningRateFinder") == (
        "LearningRateFinder takes steps of its own before the run; give model.optimizer.lr"
    )
    assert page("EarlyStopping").startswith("EarlyStopping, a callback of Lightning")


@pytest.mark.parametrize(
    ("name", "near"),
    [("ImagePaches", "ImagePatches"), ("optimzer", "optimizer"), ("lable_smoothing", "label_smoothing")],
)
def test_a_misspelt_name_is_told_the_nearest(name: str, near: str) -> None:
    with pytest.raises(InputError, match=rf"^there is no '{name}'; did you mean '{near}'\?$"):
        page(name)
    with pytest.raises(InputError, match=r"^there is no 'fitt'; did you mean 'fit'\?$"):
        page("fitt", ["fit"])
    with pytest.raises(InputError, match=r"see anyformer list tokenizers"):
        page("qqqqq")


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_listed_a_name_a_line(kind: str) -> None:
    assert len(listing(kind).splitlines()) > 3


def test_lines_are_as_wide_as_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    assert max(map(len, page("Classify").split("In a config")[0].splitlines())) <= 70
