"""A misspelt choice is refused by every class that has one, whether a config or Python gives it."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import pkgutil
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal

import numpy as np
import pytest

import anyformer
from anyformer import Category, Classify, ImagePatches, Mixed, Records, Source, Target, Task, Tokenizer
from anyformer.choices import Checked, Values, _hints, choices, literal_arguments
from anyformer.errors import InputError
from anyformer.model.config import TransformerConfig


def modules() -> Iterator[Any]:
    for package in ("anyformer", "anyformer.tokenizers", "anyformer.tasks"):
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if not module.name.endswith("__main__"):
                yield importlib.import_module(module.name)


CLASSES = sorted(
    {
        cls
        for module in modules()
        for cls in vars(module).values()
        if inspect.isclass(cls) and cls.__module__ == module.__name__ and literal_arguments(cls)
    },
    key=lambda cls: cls.__qualname__,
)


def test_the_classes_with_choices_are_found_everywhere() -> None:
    names = {cls.__name__ for cls in CLASSES}
    # A config, a tokenizer, a target, a source, a task, a constructor of none of these.
    assert names >= {"TransformerConfig", "ImagePatches", "Category", "Corpus", "Classify", "Records"}
    written = [cls for module in modules() for cls in vars(module).values() if inspect.isclass(cls)]
    for cls in {cls for cls in written if cls.__module__.startswith("anyformer.") and is_dataclass(cls)}:
        if any("Literal[" in str(field.type) for field in fields(cls) if field.init):
            assert cls in CLASSES, f"the types of {cls.__name__} cannot be evaluated"


@pytest.mark.parametrize(
    ("cls", "name"),
    [pytest.param(cls, name, id=f"{cls.__name__}.{name}") for cls in CLASSES for name in literal_arguments(cls)],
)
def test_a_misspelt_choice_is_refused_with_the_nearest_and_all(cls: type, name: str) -> None:
    hints = literal_arguments(cls)
    known = choices(hints[name])
    nearest = max(known, key=len)
    wrong: Any = f"{nearest}x"
    if "dict[" in str(hints[name]) or "Mapping[" in str(hints[name]):
        wrong = {"key": wrong}
    # An object is not looked at: it does for what is no choice.
    required = [p.name for p in inspect.signature(cls).parameters.values() if p.default is p.empty]
    others: dict[str, Any] = {key: choices(hints[key])[0] if key in hints else object() for key in required}
    for key in others.keys() & hints.keys():
        if "dict[" in str(hints[key]) or "Mapping[" in str(hints[key]):
            others[key] = {"key": others[key]}
    with pytest.raises(InputError) as caught:
        cls(**{**others, name: wrong})
    message = str(caught.value)
    assert message.startswith(tuple(f"{base.__name__}.{name} must be " for base in cls.__mro__))
    assert message.endswith(f"got '{nearest}x'; did you mean {nearest!r}?")
    assert all(str(choice) in message for choice in known)


def test_choices_are_checked_through_unions_lists_tuples_and_mappings() -> None:
    side = Literal["left", "right"]

    @dataclass(frozen=True)
    class Both(Checked):
        one: Any = "left"

    def refuses(hint: Any, value: Any) -> str | None:
        Both.__annotations__["one"] = hint
        _hints.cache_clear()
        try:
            Both(value)
        except InputError as error:
            return str(error)
        return None

    assert refuses(side, "left") is None
    assert refuses(side, None) == "Both.one must be left or right, got None"
    assert refuses(side | None, None) is None
    assert refuses(side | None, "lefft") == "Both.one must be left, right or null, got 'lefft'; did you mean 'left'?"
    assert refuses(side | tuple[float, ...] | None, [1.0]) is None
    assert "got 'lef'" in refuses(side | tuple[float, ...], "lef")
    assert refuses(list[side], ["left", "right"]) is None
    assert "got 'wright'" in refuses(list[side], ["left", "wright"])
    assert "got 'x'" in refuses(tuple[int, side], (3, "x"))
    assert "got 'x'" in refuses(dict[str, side], {"a": "x"})
    assert refuses(Literal[1, "one"], 1) is None
    assert refuses(Literal[1, "one"], 2) == "Both.one must be 1 or 'one', got 2"


def test_the_choices_of_a_constructor_are_checked_before_it_runs() -> None:
    class Made(Checked):
        def __init__(self, first: int, side: Literal["left", "right"] = "left", **rest: int) -> None:
            raise AssertionError("it ran")

    _hints.cache_clear()
    for call in (lambda: Made(1, "lift"), lambda: Made(1, side="lift")):
        with pytest.raises(InputError, match=r"^Made.side must be left or right, got 'lift'; did you mean 'left'\?$"):
            call()
    with pytest.raises(AssertionError, match="it ran"):
        Made(1, "right")


def test_a_block_of_values_is_checked_as_what_has_a_name() -> None:
    with pytest.raises(InputError, match=r"TransformerConfig.qk_norm must be layernorm, rmsnorm or null, got 'rms'"):
        TransformerConfig(qk_norm="rms")
    TransformerConfig(qk_norm="rmsnorm")


IMAGE = {"image": ImagePatches()}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Classify(IMAGE, transformer={"d_model": 16, "depth": 2}),
            "Classify.transformer must be TransformerConfig, got {'d_model': 16, 'depth': 2}; "
            "write TransformerConfig(d_model=..., depth=...)",
        ),
        (
            lambda: Classify(IMAGE, mix={"mixup": 1.0}),
            "Classify.mix must be Mixing or None, got {'mixup': 1.0}; write ",
        ),
        (lambda: Classify(IMAGE, targt="kind"), "Classify has no argument 'targt'; did you mean 'target'?"),
        (lambda: Classify(target="kind"), "Classify: missing a required argument: 'tokenizers'"),
        (lambda: Classify(ImagePatches()), "Classify.tokenizers must be {str: Tokenizer}, got ImagePatches("),
        (lambda: Classify({"image": 3}), "Classify.tokenizers must be {str: Tokenizer}, got {'image': 3}"),
        (lambda: Classify(IMAGE, freeze="head"), "Classify.freeze must be [str, ...] or None, got 'head'"),
        (lambda: ImagePatches(size=16), "ImagePatches.size must be (int, int) or None, got 16"),
        (lambda: ImagePatches(size=[8, 8, 3]), "ImagePatches.size must be (int, int) or None, got [8, 8, 3]"),
        (lambda: ImagePatches(patch="4"), "ImagePatches.patch must be int, got '4'"),
        (lambda: ImagePatches(patch=4.0), "ImagePatches.patch must be int, got 4.0"),
        (lambda: ImagePatches(patch=True), "ImagePatches.patch must be int, got True"),
        (lambda: ImagePatches(patch=None), "ImagePatches.patch must be int, got None"),
        (lambda: TransformerConfig(d_modl=16), "TransformerConfig has no argument 'd_modl'; did you mean 'd_model'?"),
        (lambda: TransformerConfig(rotary=True), "TransformerConfig.rotary must be RotaryConfig or None, got True"),
        (lambda: Mixed({}, sed=1), "Mixed has no argument 'sed'; did you mean 'seed'?"),
    ],
)
def test_python_is_given_one_line_for_what_a_config_is(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value).startswith(message)


def test_what_means_the_same_is_taken_and_copies_are_made_as_ever() -> None:
    patches = ImagePatches(size=[8, 8], mean=[0], std=[np.float64(1)])
    assert patches.size == (8, 8)
    assert Category(classes=[1, "two"]) and Classify(IMAGE, temperature=2)
    assert pickle.loads(pickle.dumps(patches)) == copy.deepcopy(patches) == replace(patches, patch=4)


def test_every_block_that_an_argument_takes_is_checked_too() -> None:
    def named(hint: Any) -> Iterator[type]:
        yield from [hint] if inspect.isclass(hint) else []
        for arg in typing.get_args(hint):
            yield from named(arg)

    offered = [cls for cls in map(anyformer.__getattr__, anyformer._HOMES) if inspect.isclass(cls)]
    inner = {
        block
        for cls in offered
        if issubclass(cls, Task | Tokenizer | Target | Source | Records | Values)
        for hint in _hints(cls).values()
        for block in named(hint)
        if is_dataclass(block) and block.__module__.startswith("anyformer.")
    }
    assert len(inner) > 20
    assert [block for block in inner if not issubclass(block, Checked | Values)] == []
