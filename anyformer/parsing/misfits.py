"""Why a config does not fit its types: one line that names the key, what may stand there, and the nearest of it.

jsonargparse decides whether it fits; where it does not, its reason is lost as soon as a type is a union. The types are
those of the source, so that nothing needs to be imported for it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from anyformer.errors import suggest
from anyformer.parsing.scalars import load_yaml
from anyformer.reference.examples import dump_flow, usual_arguments
from anyformer.reference.schema import CLASS_KEYS, choices, config_types, is_named, lightning_trainer, needed
from anyformer.reference.source import Class, find
from anyformer.reference.types import Type, type_of

NUMBERS = {"int": int, "float": float}
BOOLEANS = ("true", "false", "yes", "no", "on", "off")
MOST_KEYS = 4
"""Keys of a block that are named, where something else stands in its place."""


def explain(content: Mapping[str, Any]) -> str | None:
    """What in a config does not fit first; None where nothing is seen to. The message begins with the key."""
    for key, kind in config_types().items():
        if content.get(key) is not None and (message := misfit(content[key], kind, key)):
            return message
    return None


def swallowed(content: Mapping[str, Any], options: Iterator[tuple[str, str]]) -> str | None:
    """Why a source that an option writes out does not fit: where a path may stand too, jsonargparse would take what is
    wrong as a whole for one.

    content: with the options in it.
    """
    written = any(name.startswith("data.") and value.startswith(("{", "[")) for name, value in options)
    return explain({"data": content.get("data")}) if written else None


def merged(contents: Sequence[Mapping[str, Any]], options: Iterator[tuple[str, str]]) -> dict[str, Any]:
    """The content of config files with the values of options in it."""
    whole: dict[str, Any] = {}
    for content in contents:
        whole = _joined(whole, content)
    for name, text in options:
        try:
            value = load_yaml(text)
        except yaml.YAMLError:
            value = text
        _put(whole, name.split("."), value)
    return whole


def _joined(before: Any, now: Any) -> Any:
    if not isinstance(before, Mapping) or not isinstance(now, Mapping) or "class_path" in now:
        return now
    return {key: _joined(before.get(key), now[key]) if key in now else before[key] for key in {**before, **now}}


def _put(whole: dict[str, Any], keys: list[str], value: Any) -> None:
    here = whole
    for i, key in enumerate(keys):
        if "class_path" in here and key not in CLASS_KEYS:
            here["init_args"] = here = dict(here.get("init_args") or {})
        if i == len(keys) - 1:
            here[key] = value
            return
        inner = here.get(key)
        if isinstance(inner, list) and inner and isinstance(inner[-1], dict):
            # The keys of the last of a list.
            here[key] = [*inner[:-1], inner := dict(inner[-1])]
        elif isinstance(inner, str):
            here[key] = inner = {"class_path": inner}
        elif not isinstance(inner, dict):
            here[key] = inner = {}
        else:
            here[key] = inner = dict(inner)
        here = inner


def misfit(value: Any, kind: Type, path: str) -> str | None:
    """Why a value is not of a type; None where it is, or where that is not known here."""
    reasons = {each: _misfit(value, each, path) for each in kind.members}
    if None in reasons.values():
        return None
    # A value of the form of one of them has the reason within.
    inside = [reason for reason in reasons.values() if reason]
    return inside[0] if inside else _other(value, kind, path)


def _misfit(value: Any, kind: Type, path: str) -> str | None:
    """As `misfit`; "" where the value has another form altogether."""
    if kind.kind == "null":
        return None if value is None else ""
    if kind.kind == "scalar":
        return None if _is_scalar(value, kind.name) else ""
    if kind.kind == "choice":
        return None if any(value == each and type(value) is type(each) for each in kind.values) else ""
    if kind.kind == "mapping":
        return (
            _first(misfit(each, kind.parts[0], f"{path}.{key}") for key, each in value.items())
            if isinstance(value, Mapping)
            else ""
        )
    if kind.kind in ("list", "items"):
        return _list_misfit(value, kind, path)
    return None if kind.cls is None else _class_misfit(value, kind.cls, path)


def _first(reasons: Iterator[str | None]) -> str | None:
    return next((reason for reason in reasons if reason is not None), None)


def _is_scalar(value: Any, name: str) -> bool:
    if name == "str":
        return isinstance(value, str)
    if name == "bool":
        return isinstance(value, bool) or str(value).lower() in BOOLEANS
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return False
    if isinstance(value, float):
        return name == "float"
    try:
        return NUMBERS[name](value) is not None
    except ValueError:
        return False


def _list_misfit(value: Any, kind: Type, path: str) -> str | None:
    if not isinstance(value, list | tuple):
        return ""
    if kind.kind == "list":
        return _first(misfit(each, kind.parts[0], f"{path}.{i}") for i, each in enumerate(value))
    if len(value) != len(kind.parts):
        return _other(value, kind, path)
    return _first(
        misfit(each, part, f"{path}.{i}") for i, (each, part) in enumerate(zip(value, kind.parts, strict=True))
    )


def _class_misfit(value: Any, cls: Class, path: str) -> str | None:
    if not cls.is_ours and cls is not lightning_trainer() and not choices(cls):
        return None
    if isinstance(value, str):
        # A file may hold what stands here, and a class of another package has a path.
        if is_named(cls) and value in _names(cls):
            return _arguments_misfit({}, find(value), path)
        return None if os.path.exists(value) or "." in value else ""
    if not isinstance(value, Mapping):
        return ""
    if "class_path" in value:
        name = re.sub(r"^anyformer\..*\.", "", str(value["class_path"]))
        if "." in name:
            return None
        if name not in _names(cls):
            return f"{path}.class_path: there is no class {name!r}{suggest(name, _names(cls))}"
        return _arguments_misfit(value.get("init_args") or {}, find(name), path)
    if is_named(cls):
        return f"{path} needs the name of a class under class_path, and its arguments under init_args"
    return _arguments_misfit(value, cls, path)


def _names(cls: Class) -> list[str]:
    return [each.name for each in choices(cls) or [cls]]


def _arguments_misfit(values: Any, cls: Class, path: str) -> str | None:
    if not isinstance(values, Mapping):
        return f"{path}.init_args holds the arguments of {cls.name} by name, got {_shown(values)}"
    kinds = {each.name: type_of(each) for each in cls.arguments}
    started = values.get("init_from") is not None
    for key, value in values.items():
        if key not in kinds:
            return f"{path} has no key {key!r}{suggest(str(key), kinds)}"
        if started and key == "tokenizers" and isinstance(value, Mapping):
            # What has no class changes the arguments of a field of the model that is started from.
            value = {name: each for name, each in value.items() if isinstance(each, Mapping) and "class_path" in each}
        if reason := misfit(value, kinds[key], f"{path}.{key}"):
            return reason
    missing = [key for key in needed(cls) if key not in values and not started]
    return f"{path}.{missing[0]} is missing: {cls.name} needs it; see anyformer help {cls.name}" if missing else None


def _other(value: Any, kind: Type, path: str) -> str:
    """That something else must stand here: what, and what is nearest to what was given."""
    # That it may be left out helps nobody who gave something.
    needs = [text for each in kind.members if each.kind != "null" for text in _needs(each)]
    needed_text = ", ".join(needs[:-1]) + (" or " if needs[:-1] else "") + needs[-1]
    quotes = "; write in quotes what is a text" if "str" in needs and not isinstance(value, str) else ""
    return f"{path} must be {needed_text}, got {_shown(value)}{_nearest(value, kind, path) or quotes}"


def _needs(kind: Type) -> list[str]:
    if kind.kind == "choice":
        return [str(value) for value in kind.values]
    block = _block(kind)
    if block is None:
        return [
            "a class by its name"
            if kind.cls is not None and not choices(kind.cls)
            else f"a {kind}"
            if kind.cls
            else str(kind)
        ]
    usual = usual_arguments(block)
    form = (
        f"as in {dump_flow([usual] if kind.kind in ('list', 'items') else usual)}"
        if usual
        else f"see anyformer help {block.name}"
    )
    many = "a list of " if kind.kind in ("list", "items") else ""
    keys = [each.name for each in block.arguments]
    some = ", ".join(keys[:MOST_KEYS]) + (", ..." if len(keys) > MOST_KEYS else "")
    return [f"{many}the keys and values of {block.name} ({some}), {form}"]


def _block(kind: Type) -> Class | None:
    """The block of values that a type is, or is a list of."""
    inner = kind.parts[0] if kind.kind in ("list", "items") and len(kind.parts) == 1 else kind
    return inner.cls if inner.cls is not None and not is_named(inner.cls) and inner.cls.is_ours else None


def _nearest(value: Any, kind: Type, path: str) -> str:
    if not isinstance(value, str):
        return ""
    for each in kind.members:
        block = _block(each)
        for argument in block.arguments if block is not None else ():
            if any(value in one.values for one in type_of(argument).members):
                return f"; did you mean {argument.name}: {value}?"
    known = [
        str(name)
        for each in kind.members
        for name in (*each.values, *(_names(each.cls) if each.cls and is_named(each.cls) else ()))
    ]
    return suggest(value, known, "").removesuffix("; ")


def _chosen(kind: Type) -> list[Class]:
    """The bases of which a type is a class by its name, or a list of such."""
    inner = [*kind.classes, *(cls for each in kind.members for part in each.parts for cls in part.classes)]
    return [cls for cls in inner if is_named(cls)]


def _shown(value: Any) -> str:
    return dump_flow(value)
