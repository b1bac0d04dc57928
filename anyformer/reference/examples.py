"""A few lines of YAML that use a class, with values out of a config that ships with the package where one has them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from anyformer.reference.schema import choices, lightning_trainer, needed
from anyformer.reference.source import Argument, Class, find, folder_of, subclasses
from anyformer.reference.types import Type, literal_of, type_of

MOST_OPTIONS = 3
"""Arguments of an example beside those that must be given."""
LONGEST, LONGEST_NEEDED = 50, 160
"""Characters of the value of such an argument, and of one that must be given."""
WIDTH = 90
SECTIONS = {
    "Task": ("model",),
    "Source": ("data", "train"),
    "Callback": ("trainer", "callbacks"),
    "Logger": ("trainer", "logger"),
}
"""Where in a config the classes under a base stand."""
BY_NAME = {"Tokenizer": "tokenizers", "Target": "targets"}
"""The argument of a task that has classes under a base by the name of a field."""
ALONE = {"Records": ("data",), "Mixed": ("data",), "Saving": ("checkpoints",), "Trainer": ("trainer",)}
"""Where in a config a class stands that is the only one there."""


def config_files() -> list[Path]:
    """The configs that ship with the package."""
    return sorted((folder_of("anyformer") / "configs").rglob("*.yaml"))


def example(cls: Class) -> str | None:
    """YAML that uses a class, from the top of the config; None where no config has it."""
    name, values = _usual(cls)
    placed = _place(cls, values, name)
    return None if placed is None else dump(placed)


def usual_arguments(cls: Class) -> dict[str, Any]:
    """Some arguments of a class, with those that must be given."""
    return _usual(cls)[1]


def _usual(cls: Class) -> tuple[str, dict[str, Any]]:
    """Such arguments, and the name of the field that has them in a config, if one does."""
    name, values = _found(cls) or ("", {})
    required = needed(cls)
    if not all(_is_short(values.get(key), LONGEST_NEEDED) for key in required):
        # What must be given is then made up, and nothing is taken from a config that has other names.
        values = {each.name: _placeholder(type_of(each)) for each in cls.arguments if each.default is None}
    given = {key: values[key] for key in required}
    others = (values if values.keys() - given else _defaults(cls)).items()
    simple = [(key, value) for key, value in others if key not in required and _is_short(value, LONGEST)]
    return name, given | dict(simple[:MOST_OPTIONS])


def dump(content: Any, indent: int = 0) -> str:
    """YAML with a value on one line where it fits and says which class it is of."""
    lines = []
    for key, value in content.items():
        flow = dump_flow(value)
        fits = indent + len(key) + 2 + len(flow) <= WIDTH
        is_section = isinstance(value, Mapping) and value and not (fits and ("class_path" in value or indent >= 4))
        if is_section:
            lines += [f"{' ' * indent}{key}:", dump(value, indent + 2)]
        else:
            lines.append(f"{' ' * indent}{key}: {flow}")
    return "\n".join(lines)


def dump_flow(value: Any) -> str:
    """YAML of a value on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _is_short(value: Any, longest: int) -> bool:
    return value is not None and len(dump_flow(value)) <= longest


def _defaults(cls: Class) -> dict[str, Any]:
    return {
        each.name: value
        for each in cls.arguments
        if each.default is not None and isinstance(value := literal_of(each), bool | int | float | str) and value != ""
    }


def _placeholder(kind: Type) -> Any:
    """Something of a type."""
    first = kind.members[0]
    if first.cls is not None:
        options = choices(first.cls)
        picked = next((cls for cls in options if not needed(cls)), options[0]) if options else first.cls
        inner = {each.name: _placeholder(type_of(each)) for each in picked.arguments if each.default is None}
        if not options:
            return inner
        return {"class_path": picked.name} | ({"init_args": inner} if inner else {})
    if first.kind == "scalar":
        return {"int": 1, "float": 1.0, "bool": True}.get(first.name, "...")
    if first.kind == "choice":
        return first.values[0]
    if first.kind == "keys":
        return {first.values[0]: _placeholder(first.parts[0])}
    if first.kind in ("list", "items"):
        return [_placeholder(part) for part in first.parts]
    return {"name": _placeholder(first.parts[0])} if first.kind == "mapping" else "..."


def _found(cls: Class) -> tuple[str, dict[str, Any]] | None:
    """The name of the field, and the arguments, with which a class stands in a config: where they are the shortest."""
    keys = () if not cls.is_values else tuple(argument.name for _, argument in owners(cls.name))
    pattern = re.compile(rf"class_path: {cls.name}\b|\b({'|'.join(keys) or '(?!)'}):")
    found = []
    for path in config_files():
        text = path.read_text(encoding="utf-8")
        if pattern.search(text):
            content = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
            found += _uses(content, cls, keys, "")
    return min(found, key=lambda use: len(dump_flow(use[1])), default=None)


def _uses(content: Any, cls: Class, keys: tuple[str, ...], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(content, list):
        for each in content:
            yield from _uses(each, cls, keys, key)
    elif isinstance(content, dict):
        # What starts from another model leaves out what must be given else.
        whole = "init_from" not in (content.get("init_args") or {})
        if content.get("class_path") == cls.name and content.get("init_args") and whole:
            yield key, content["init_args"]
        elif content and key in keys and content.keys() <= {each.name for each in cls.arguments}:
            yield key, content
        for inner, value in content.items():
            yield from _uses(value, cls, keys, inner)


def _place(cls: Class, values: dict[str, Any], name: str = "") -> dict[str, Any] | None:
    """A config that has these arguments of a class where it has that class."""
    if cls.name in ALONE:
        mixed = {"class_path": cls.name, "init_args": values} if cls.name == "Mixed" else values
        return _nested(ALONE[cls.name], mixed)
    bases = [each.name for each in cls.line]
    named = {"class_path": cls.name} | ({"init_args": values} if values else {})
    for base, path in SECTIONS.items():
        if base in bases:
            return _nested(path, named)
    for base, argument in BY_NAME.items():
        if base in bases:
            return _nested(("model", "init_args", argument, name or cls.name.lower()), named)
    for owner, argument in owners(cls.name):
        placed = _place(owner, {argument.name: _wrapped(type_of(argument), cls, values)})
        if placed is not None:
            if "class_path" in placed.get("model", {}):
                # Whichever task it is.
                del placed["model"]["class_path"]
            return placed
    return None


def _nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    for key in reversed(path):
        value = {key: value}
    return value


def _wrapped(kind: Type, cls: Class, values: Any) -> Any:
    """The arguments of a class as a type has them that holds it."""
    for each in kind.members:
        if each.cls is cls:
            return values
        if each.parts and cls in _classes(each):
            inner = _wrapped(each.parts[0], cls, values)
            return {"name": inner} if each.kind == "mapping" else [inner]
    return values


def _classes(kind: Type) -> list[Class]:
    return [*kind.classes, *(cls for part in kind.parts for cls in _classes(part))]


def owners(name: str) -> list[tuple[Class, Argument]]:
    """The classes with an argument that is, or holds, a class of this name; those that a config chooses first."""
    return [(owner, argument) for owner, argument in _all_arguments() if name in map(str, _names(argument))]


def _names(argument: Argument) -> list[str]:
    return [cls.name for cls in _classes(type_of(argument))]


@cache
def config_classes() -> list[Class]:
    """Every class that a config may hold: those that it chooses, then the blocks of values in them."""
    found = [cls for base in ("Task", "Tokenizer", "Target", "Source") for cls in subclasses(base)]
    found += [find("Records"), find("Mixed"), find("Saving")]
    for cls in found:
        for argument in cls.arguments:
            found += [each for each in _classes(type_of(argument)) if each.is_values and each not in found]
    return [*found, lightning_trainer()]


@cache
def _all_arguments() -> list[tuple[Class, Argument]]:
    return [(cls, argument) for cls in config_classes() for argument in cls.arguments]
