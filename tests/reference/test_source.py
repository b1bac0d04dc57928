"""Classes and their arguments as the source has them, held against what Python makes of it."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from pathlib import Path

import pytest

import anyformer
from anyformer.generation.config import GenerationConfig
from anyformer.reference import source
from anyformer.reference.source import Module, class_like, find, homes, public_names, subclasses, without_bodies
from anyformer.tokens import Tokenizer

CLASSES = sorted(name for name in public_names() if isinstance(getattr(anyformer, name), type))


@pytest.mark.parametrize("name", CLASSES)
def test_the_arguments_are_those_of_the_class(name: str) -> None:
    cls = getattr(anyformer, name)
    assert find(name).module.name == cls.__module__
    own = inspect.signature(cls).parameters if cls.__init__ is not object.__init__ else {}
    found = {each.name: each.default is None for each in find(name).arguments}
    known = {
        key: of.default is of.empty for key, of in own.items() if of.kind not in (of.VAR_POSITIONAL, of.VAR_KEYWORD)
    }
    if name not in ("InputError", "Generator"):
        assert found == known


def test_the_public_names_are_those_that_the_package_offers() -> None:
    assert set(public_names()) == set(anyformer.__all__) - {"__version__"}
    assert homes()["ImagePatches"] == "anyformer.tokenizers.image.patches"


def test_what_a_field_means_stands_below_it_or_under_args() -> None:
    patch = next(each for each in find("ImagePatches").arguments if each.name == "patch")
    assert patch.text.startswith("Side of the square that a token stands for. With a stem a power of 2")
    smoothing = next(each for each in find("Classify").arguments if each.name == "label_smoothing")
    assert smoothing.text == "mass taken from the right class and spread over all."
    assert "Args" not in find("Records").text and find("Records").text.startswith(
        "Training, validation and test records"
    )


def test_subclasses_are_those_that_are_offered() -> None:
    assert {cls.name for cls in subclasses("Tokenizer")} == {
        name for name in CLASSES if issubclass(getattr(anyformer, name), Tokenizer) and name != "Tokenizer"
    }


def test_what_functions_do_is_left_out_and_nothing_else() -> None:
    text = '''\
class A:
    """Doc."""

    x: int = 1
    """Of x."""

    def __init__(self, y: int) -> None:
        self.y = y

    @property
    def f(
        self,
    ) -> int:
        """Text."""

        return 3

    def g(self): ...


async def h(
    a: int,
    b: int = 2,
) -> None:
    def inner():
        return 1

    await a


Z = 3
'''
    kept = without_bodies(text)
    assert "return" not in kept and "await" not in kept
    before, after = (ast.parse(each).body for each in (text, kept))
    assert [type(node) for node in before] == [type(node) for node in after]
    assert ast.dump(before[0].body[3]) == ast.dump(after[0].body[3])
    assert [getattr(node, "name", "") for node in after[0].body] == ["", "", "", "__init__", "f", "g"]


def test_a_class_of_another_package_is_read_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_options.py").write_text(
        "from dataclasses import dataclass\n\nfrom anyformer.generation.config import GenerationConfig\n\n\n"
        '@dataclass(frozen=True)\nclass Theirs(GenerationConfig):\n    beat: float = 1.0\n    """Of the drum."""\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    from their_options import Theirs

    found = class_like(Theirs)
    assert {each.name for each in found.arguments} == {each.name for each in dataclasses.fields(Theirs)}
    assert [each.text for each in found.arguments if each.name == "beat"] == ["Of the drum."]
    assert class_like(GenerationConfig) is find("GenerationConfig")


def test_a_module_of_another_package_has_no_source_here() -> None:
    assert source.module("torch.nn") is None
    assert source.module("anyformer.none") is None
    assert Module("x", Path(__file__)).find("Path") is None
