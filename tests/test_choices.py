"""A misspelt choice is refused by every class that has one, whether a config or Python gives it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal

import pytest

from anyformer.choices import Checked, check_choices, choices, literal_arguments
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
    # What is not a choice is not looked at before: None does for it.
    required = [p.name for p in inspect.signature(cls).parameters.values() if p.default is p.empty]
    others: dict[str, Any] = {key: choices(hints[key])[0] if key in hints else None for key in required}
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
        literal_arguments.cache_clear()
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
    assert refuses(Literal[1, "one"], 2) == "Both.one must be 1 or one, got 2"


def test_the_choices_of_a_constructor_are_checked_before_it_runs() -> None:
    class Made(Checked):
        def __init__(self, first: int, side: Literal["left", "right"] = "left", **rest: int) -> None:
            raise AssertionError("it ran")

    literal_arguments.cache_clear()
    for call in (lambda: Made(1, "lift"), lambda: Made(1, side="lift")):
        with pytest.raises(InputError, match=r"^Made.side must be left or right, got 'lift'; did you mean 'left'\?$"):
            call()
    with pytest.raises(AssertionError, match="it ran"):
        Made(1, "right")


def test_a_config_is_checked_without_a_base() -> None:
    with pytest.raises(InputError, match=r"TransformerConfig.qk_norm must be layernorm, rmsnorm or null, got 'rms'"):
        TransformerConfig(qk_norm="rms")
    check_choices(TransformerConfig())
