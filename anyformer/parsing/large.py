"""Large values (a vocabulary, classes by the thousand), which are kept beside a config and not in it.

jsonargparse reads every text as YAML, for each type that an argument may have and each level that it stands below.
"""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, NamedTuple

import jsonargparse._typehints
from jsonargparse import Namespace

from anyformer.choices import Checked
from anyformer.parsing.classes import find_class, is_plain, members, parameters

LARGE = 2000
"""Characters of JSON above which a value is large."""


class Large(NamedTuple):
    """A value that was taken out of a config."""

    at: tuple[str | int, ...]
    """The keys that lead to it."""
    value: Any
    hint: Any = Any
    """The type that its class declares."""


def take_out(config: Mapping[str, Any]) -> tuple[dict[str, Any], list[Large]]:
    """A config, `{"class_path": ..., "init_args": ...}`, without its large values, and these.

    Taken are the arguments that may be left out and hold no object: what is in between stays as it is.
    """
    found: list[Large] = []
    return _small(config, Checked, (), found), found


def put_back(config: Any, found: Sequence[Large]) -> None:
    """Put large values back where they stood, in place. config: plain values, or what jsonargparse made of them."""
    for at, value, hint in found:
        owner = config
        for key in at[:-1]:
            owner = vars(owner)[key] if isinstance(owner, Namespace) else owner[key]
        own = _typed(value, hint)
        if isinstance(owner, Namespace):
            setattr(owner, at[-1], own)
        else:
            owner[at[-1]] = own


@contextmanager
def shared_lists() -> Iterator[None]:
    """While it lasts, jsonargparse does not copy a long list of plain values for each of its entries.

    For what a user's own config says: read in jsonargparse 4.53, where 5,000 classes take minutes otherwise.
    """

    def long_lists(value: Any) -> Iterator[list]:
        if isinstance(value, dict):
            for each in value.values():
                yield from long_lists(each)
        elif isinstance(value, list) and len(value) > 50 and isinstance(value[0], str | int | float):
            yield value

    def copied(value: Any) -> Any:
        return deepcopy(value, {id(each): each for each in long_lists(value)})

    held = jsonargparse._typehints.deepcopy
    jsonargparse._typehints.deepcopy = copied
    try:
        yield
    finally:
        jsonargparse._typehints.deepcopy = held


def _small(value: Any, hint: Any, at: tuple[str | int, ...], found: list[Large]) -> Any:
    """A value that holds objects, without what is large in them."""
    if isinstance(value, list):
        inner = tuple(arg for each in members(hint) for arg in typing.get_args(each))
        return [_small(each, inner, (*at, i), found) for i, each in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    classes = [each for each in members(hint) if _is_object(each)]
    if "class_path" in value:
        cls, given = find_class(value["class_path"], classes), value.get("init_args") or {}
        if cls is None:  # Of a function's own, which only Python knows.
            return value
        return {**value, "init_args": _small_arguments(given, cls, (*at, "init_args"), found)}
    if len(classes) == 1:
        return _small_arguments(value, classes[0], at, found)
    inner = tuple(typing.get_args(each)[-1] for each in members(hint) if typing.get_args(each))
    return {name: _small(each, inner, (*at, name), found) for name, each in value.items()}


def _small_arguments(
    given: Mapping[str, Any], cls: Any, at: tuple[str | int, ...], found: list[Large]
) -> dict[str, Any]:
    hints, signature, kept = parameters(cls) or {}, inspect.signature(cls).parameters, {}
    for name, value in given.items():
        hint = hints.get(name, Any)
        if _holds_objects(hint):
            kept[name] = _small(value, hint, (*at, name), found)
        elif name in hints and signature[name].default is not inspect.Parameter.empty and is_large(value):
            found.append(Large((*at, name), value, hint))
        else:
            kept[name] = value
    return kept


def is_large(value: Any) -> bool:
    return isinstance(value, str | Mapping | Sequence) and len(json.dumps(value)) > LARGE


def _is_object(hint: Any) -> bool:
    return inspect.isclass(hint) and not is_plain(hint) and not typing.is_typeddict(hint)


def _holds_objects(hint: Any) -> bool:
    return any(_is_object(each) or any(map(_holds_objects, typing.get_args(each))) for each in members(hint))


def _typed(value: Any, hint: Any) -> Any:
    """Plain values as their type has them: lists as tuples where it says so."""
    if isinstance(value, list):
        kinds = [each for each in members(hint) if typing.get_origin(each) in (tuple, list, Sequence)]
        inner = typing.get_args(kinds[0])[0] if kinds and typing.get_args(kinds[0]) else Any
        made = [_typed(each, inner) for each in value]
        return tuple(made) if any(typing.get_origin(kind) is tuple for kind in kinds) else made
    if isinstance(value, Mapping):
        inner = next((typing.get_args(each)[-1] for each in members(hint) if typing.get_args(each)), Any)
        return {name: _typed(each, inner) for name, each in value.items()}
    return value
