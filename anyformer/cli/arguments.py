"""What the options of the commands say: of a task's dataclass, and of numbers by field."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

from anyformer.errors import InputError
from anyformer.reference.source import Class, class_like


def described(of: Any) -> tuple[Class, dict[str, Any]]:
    """A dataclass as `add_options` takes it, and the values of its fields that are the defaults.

    of: the dataclass, or one of it whose values are the defaults.
    """
    if isinstance(of, type):
        return class_like(of), {}
    return class_like(type(of)), {each.name: getattr(of, each.name) for each in dataclasses.fields(of)}


def read_options(given: argparse.Namespace, of: Any) -> Any:
    """The dataclass of what was given for its options."""
    cls = of if isinstance(of, type) else type(of)
    values = {each.name: getattr(given, each.name) for each in dataclasses.fields(cls)}
    return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def read_tokens(given: Sequence[str]) -> dict[str, int] | int | None:
    """What --tokens says: one number, or one for each field named."""
    by_field = {}
    for value in given:
        name, equals, number = value.rpartition("=")
        if not number.isdecimal() or int(number) < 1 or (len(given) > 1 and not equals):
            raise InputError(f"--tokens must be a number from 1, or FIELD=N, got {value!r}")
        by_field[name] = int(number)
    return by_field.get("", by_field or None)
