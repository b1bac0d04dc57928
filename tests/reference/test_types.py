"""Types as annotations give them."""

from __future__ import annotations

from pathlib import Path

import pytest

from anyformer.reference.source import Module
from anyformer.reference.types import constant, default_of, type_of

SOURCE = """\
from dataclasses import dataclass, field
from collections.abc import Sequence
from typing import Any, Literal, Optional, Union
import numpy as np

Name = Literal["a", "b"]
ENDINGS = (".x",)
SIDES = {"left": lambda x: x, "right": print}

@dataclass
class Inner:
    k: int = 1

@dataclass
class Outer:
    whole: int
    some: tuple[int, int] | None = (8, 8)
    many: tuple[float, ...] = ()
    named: Name = "a"
    either: Optional[Union[int, str]] = None
    nullable: Literal["x"] | None = None
    inside: list[Inner] = field(default_factory=list)
    by_name: dict[str, Inner] = field(default_factory=dict)
    block: Inner = Inner()
    text: str = ""
    flag: bool = True
    array: np.ndarray | None = None
    anything: Any = None
    seq: Sequence[str] = ENDINGS + (".y",)
    quoted: "int | None" = 3
    columns: dict[str, str] = field(default_factory=lambda: {"image": "file"})
    starred: tuple[str, ...] = (*ENDINGS, ".z")
    keys: tuple[str, ...] = tuple(SIDES)
    mapped: dict[str, str] = MappingProxyType({})
    pattern: Pattern | None = None

Pattern = TypedDict("Pattern", {"window": dict[str, float], "global": list[str]}, total=False)
"""


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> dict:
    path = tmp_path_factory.mktemp("source") / "outer.py"
    path.write_text(SOURCE)
    return {each.name: each for each in Module("outer", path).find("Outer").arguments}


@pytest.mark.parametrize(
    ("name", "kind", "default"),
    [
        ("whole", "int", None),
        ("some", "[int, int] or null", "[8, 8]"),
        ("many", "[float, ...]", "[]"),
        ("named", "a or b", "a"),
        ("either", "int or str or null", "null"),
        ("nullable", "x or null", "null"),
        ("inside", "[Inner, ...]", "[]"),
        ("by_name", "{name: Inner}", "{}"),
        ("block", "Inner", "Inner()"),
        ("text", "str", "''"),
        ("flag", "bool", "true"),
        ("array", "any or null", "null"),
        ("anything", "any", "null"),
        ("seq", "[str, ...]", "[.x, .y]"),
        ("quoted", "int or null", "3"),
        ("columns", "{name: str}", "{image: file}"),
        ("starred", "[str, ...]", "[.x, .z]"),
        ("keys", "[str, ...]", "[left, right]"),
        ("mapped", "{name: str}", "{}"),
        ("pattern", "{window: {name: float}, global: [str, ...]} or null", "null"),
    ],
)
def test_a_type_and_a_default_are_told_as_a_yaml_has_them(
    name: str, kind: str, default: str | None, arguments: dict
) -> None:
    assert str(type_of(arguments[name])) == kind
    assert default_of(arguments[name]) == default


def test_the_classes_of_a_type_are_found(arguments: dict) -> None:
    assert [cls.name for cls in type_of(arguments["block"]).classes] == ["Inner"]
    assert [cls.name for cls in type_of(arguments["by_name"]).parts[0].classes] == ["Inner"]


def test_a_constant_is_read_from_its_module(tmp_path: Path) -> None:
    assert constant("anyformer.baselines.examples", "MOST_RECORDS") == 3000
