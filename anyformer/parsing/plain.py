"""Objects as plain values, which a config can hold, and the difference between two configs."""

from __future__ import annotations

import reprlib
from abc import ABCMeta
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any


def difference(before: Any, now: Any, path: str = "") -> str | None:
    """The first place where two configs of plain values differ, and how; None if they are the same.

    >>> difference({"classes": ["cat", "dog"]}, {"classes": ["cat", "cow"]})
    "classes.1 was 'dog' and is now 'cow'"
    """
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(key for key in now if key not in before)]:
            inner = f"{path}.{key}" if path else str(key)
            if key not in now or key not in before:
                return f"{inner} is {'new' if key in now else 'gone'}"
            if found := difference(before[key], now[key], inner):
                return found
    elif isinstance(before, list) and isinstance(now, list):
        pairs = enumerate(zip(before, now, strict=False))
        if found := next((found for i, (a, b) in pairs if (found := difference(a, b, f"{path}.{i}"))), None):
            return found
        if len(before) != len(now):
            return f"{path} had {len(before)} entries and has now {len(now)}"
    elif before != now:
        return f"{path} was {reprlib.repr(before)} and is now {reprlib.repr(now)}"
    return None


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


def config_name(cls: type) -> str:
    """What a saved config calls a class: ours by their short names, so that a file may move; others by their path."""
    return cls.__name__ if cls.__module__.startswith("anyformer.") else f"{cls.__module__}.{cls.__qualname__}"
