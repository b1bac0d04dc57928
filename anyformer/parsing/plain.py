"""Objects as plain values, which a config can hold, and the difference between two configs."""

from __future__ import annotations

import hashlib
import inspect
import json
import reprlib
from abc import ABCMeta
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

MANY = 100
"""Values of a list that are compared by their hash."""


def difference(before: Any, now: Any, path: str = "") -> str | None:
    """The first place where two configs of plain values differ, and how; None if they are the same.

    >>> difference({"classes": ["cat", "dog"]}, {"classes": ["cat", "cow"]})
    "classes.1 was 'dog' and is now 'cow'"
    """
    return next((f"{place} {how}" for place, how in differences(before, now, path)), None)


def differences(before: Any, now: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every place where two configs of plain values differ, and how. Where one has null what the older lacks, they do
    not."""
    if isinstance(before, dict) and isinstance(now, dict):
        names = [each["class_path"].rpartition(".")[2] for each in (before, now) if "class_path" in each]
        if len({*names}) == 2:
            # The arguments of another class are others.
            yield path, f"was {names[0]} and is now {names[1]}"
            return
        for key in [*before, *(key for key in now if key not in before)]:
            inner = f"{path}.{key}" if path else str(key)
            if key not in before and now[key] is None:
                continue  # An option that there was none of at that time, and that is not given.
            if key not in now or key not in before:
                yield inner, f"is {'new' if key in now else 'gone'}"
            else:
                yield from differences(before[key], now[key], inner)
    elif isinstance(before, list) and isinstance(now, list):
        for i, (one, other) in enumerate(zip(before, now, strict=False)):
            yield from differences(one, other, f"{path}.{i}")
        if len(before) != len(now):
            yield path, f"had {len(before)} entries and has now {len(now)}"
    elif before != now and (before == before or now == now):
        # NaN is no other value than NaN.
        yield path, f"was {reprlib.repr(before)} and is now {reprlib.repr(now)}"


def plain(value: Any) -> Any:
    """Dataclasses, tuples and paths as plain values that a YAML or JSON file holds.

    One of several classes that a config chooses from (a tokenizer, a target: what has an abstract base) keeps its name.
    """
    if is_dataclass(value):
        init_args = {f.name: plain(getattr(value, f.name)) for f in fields(value) if f.init}
        is_named = isinstance(type(value), ABCMeta)
        return {"class_path": config_name(type(value)), "init_args": init_args} if is_named else init_args
    if isinstance(value, Mapping):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, tuple | list):
        return [plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def describe(value: Any) -> Any:
    """Plain values to compare another run's with, which nothing can be made of again.

    Objects are their class and the arguments that they keep; arrays, and lists of many values, their SHA-256.
    """
    value = plain(value)
    if value is None or isinstance(value, bool | int | float | str):
        # Not one of its subclasses, which a checkpoint could not hold.
        kinds = (bool, int, float, str)
        return value if value is None else next(kind(value) for kind in kinds if isinstance(value, kind))
    if isinstance(value, np.generic):
        return describe(value.item())
    if isinstance(value, Mapping):
        return {str(name): describe(part) for name, part in value.items()}
    if isinstance(value, list):
        parts = [describe(part) for part in value]
        if len(parts) <= MANY:
            return parts
        return f"{len(parts)} values of SHA-256 {hashlib.sha256(json.dumps(parts).encode()).hexdigest()}"
    if isinstance(value, np.ndarray) and value.dtype != object:
        digest = hashlib.sha256(np.ascontiguousarray(value)).hexdigest()
        return f"{value.dtype}{list(value.shape)} of SHA-256 {digest}"
    arguments = {name: describe(part) for name, (_, part) in kept_arguments(value).items()}
    return {"class_path": config_name(type(value)), "init_args": arguments}


def kept_arguments(value: Any) -> dict[str, tuple[str, Any]]:
    """The arguments of an object's constructor that it keeps as plain values: by name, the attribute and its value."""
    try:
        names = inspect.signature(type(value)).parameters
    except (TypeError, ValueError):
        return {}
    held = getattr(value, "__dict__", {})
    found = {name: next((a for a in (name, f"_{name}") if a in held), None) for name in names}
    return {
        name: (attribute, held[attribute])
        for name, attribute in found.items()
        if attribute is not None and isinstance(held[attribute], bool | int | float | str | list | tuple | None)
    }


def config_name(cls: type) -> str:
    """What a saved config calls a class: ours by their short names, so that a file may move; others by their path."""
    return cls.__name__ if cls.__module__.startswith("anyformer.") else f"{cls.__module__}.{cls.__qualname__}"
