"""Objects again of the plain values that `plain` made of them: what a program wrote itself, and reads many times.

A config that a user wrote is parsed by `instantiate`, which says where in it something is wrong, and takes a hundred
times as long.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

from anyformer.errors import InputError
from anyformer.parsing.classes import members, parameters, subclasses
from anyformer.parsing.plain import config_name


def rebuild(value: Any, hint: Any) -> Any:
    """An object of a type, of its plain values.

    Classes are found among those of the type that are imported already: nothing is imported for a name. Raises
    InputError for a class that is not there, and what the classes refuse themselves.
    """
    kinds = members(hint)
    if isinstance(value, Mapping):
        if "class_path" in value:
            return _make(_find(value["class_path"], kinds), value.get("init_args") or {})
        for kind in kinds:
            if is_dataclass(kind):
                return _make(kind, value)
        inner = next((typing.get_args(kind)[1] for kind in kinds if len(typing.get_args(kind)) == 2), Any)
        return {name: rebuild(each, inner) for name, each in value.items()}
    if isinstance(value, list):
        for kind in kinds:
            origin, args = typing.get_origin(kind), typing.get_args(kind)
            if origin is tuple:
                each = args if len(args) == len(value) and Ellipsis not in args else args[:1] * len(value)
                return tuple(map(rebuild, value, each))
            if origin in (list, Sequence):
                return [rebuild(each, args[0]) for each in value]
    return value


def _find(name: str, kinds: Sequence[Any]) -> type:
    for kind in kinds:
        for cls in subclasses(kind) if isinstance(kind, type) else ():
            if config_name(cls) == name:
                return cls
    raise InputError(f"there is no class {name!r} here; if it is one of your own, open its package by --unsafe_imports")


def _make(cls: type, values: Mapping[str, Any]) -> Any:
    hints = parameters(cls) or {}
    return cls(**{name: rebuild(each, hints.get(name, Any)) for name, each in values.items()})
