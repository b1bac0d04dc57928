"""Passages of Python's own documentation: each of one package, in one part."""

from __future__ import annotations

import ast
import inspect
import logging
from collections import Counter

import pytest

from anyformer.errors import InputError
from anyformer.tokenizers.text.docstrings import PACKAGES, Docstrings


def test_every_passage_is_of_one_package_and_one_part() -> None:
    train, validation = (Docstrings(part) for part in ("train", "validation"))
    texts = [source[i]["text"] for source in (train, validation) for i in range(len(source))]
    assert len(texts) == len({*texts}) and all(40 <= len(text) <= 600 for text in texts)
    n = Counter(train[i]["package"] for i in range(len(train)))
    assert {*n} == {*PACKAGES} and min(n.values()) >= 128
    assert 0.55 < len(train) / len(texts) < 0.65
    assert Counter(validation[i]["package"] for i in range(len(validation))).keys() == n.keys()
    assert train.name(0).startswith("passage 0 of the train part, of ")


def test_a_passage_is_a_paragraph_of_a_docstring() -> None:
    texts = {each[i]["text"] for each in map(Docstrings, ("train", "validation")) for i in range(len(each))}
    paragraph = " ".join(inspect.getdoc(logging.Logger.setLevel).split())
    first = " ".join(ast.get_docstring(ast.parse(inspect.getsource(logging))).split("\n\n")[0].split())
    assert len(paragraph) < 40 or paragraph in texts
    assert first in texts


def test_packages_can_be_chosen_and_must_be_there() -> None:
    source = Docstrings(packages=["json", "logging"])
    assert {source[i]["package"] for i in range(len(source))} == {"json", "logging"}
    for packages, message in (
        ((), r"^packages must name at least one, none twice, got none$"),
        (("json", "json"), r"^packages must name at least one, none twice, got json, json$"),
    ):
        with pytest.raises(InputError, match=message):
            Docstrings(packages=packages)
    for name in ("jsn", "../json"):
        with pytest.raises(InputError, match=r"^packages: there is no '.*' in the standard library; "):
            len(Docstrings(packages=(name,)))
