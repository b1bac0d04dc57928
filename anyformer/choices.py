"""Arguments that are one of a few choices, declared as a `Literal`, and refused where they are none of them."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields, is_dataclass
from functools import cache, wraps
from itertools import repeat
from typing import Any, Literal, Union

from anyformer.errors import InputError, nearest


class Checked:
    """A class whose Literals are checked before its own `__post_init__` or `__init__` runs.

    The base of what a config chooses from. A config dataclass, which jsonargparse takes as such only if all of its
    bases are dataclasses, calls `check_choices` instead.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # The @dataclass of a subclass is yet to come: what is here was written there.
        for name in {"__post_init__", "__init__"} & vars(cls).keys():
            setattr(cls, name, _checking(cls, vars(cls)[name]))

    def __post_init__(self) -> None:
        check_choices(self)


def _checking(cls: type, method: Callable[..., None]) -> Callable[..., None]:
    names = list(inspect.signature(method).parameters)[1:]

    @wraps(method)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        if method.__name__ == "__init__":
            check_choices(cls, dict(zip(names, args, strict=False)) | kwargs)
        else:
            check_choices(self)
        method(self, *args, **kwargs)

    return checked


def check_choices(owner: Any, given: Mapping[str, Any] | None = None) -> None:
    """Raise InputError for a value that is none of the choices of its Literal.

    owner: a dataclass made, whose fields are checked; or a class, and `given` the arguments of its constructor.
    """
    cls = owner if given is not None else type(owner)
    for name, hint in literal_arguments(cls).items():
        if given is None or name in given:
            value = getattr(owner, name) if given is None else given[name]
            for wrong in _refused(value, hint):
                known = choices(hint)
                *most, last = map(str, known if _refused(None, hint) else [*known, "null"])
                needed = f"{', '.join(most)} or {last}" if most else last
                near = nearest(wrong, known, 1) if isinstance(wrong, str) else ""
                raise InputError(f"{cls.__name__}.{name} must be {needed}, got {wrong!r}{near}")


@cache
def literal_arguments(cls: type) -> dict[str, Any]:
    """The arguments of a class with a Literal in their type, by name."""
    try:
        hints = typing.get_type_hints(cls if is_dataclass(cls) else cls.__init__)
    except NameError:  # Of a class whose types are not to be had where it runs.
        return {}
    names = (
        [field.name for field in fields(cls) if field.init]
        if is_dataclass(cls)
        else [name for name in hints if name != "return"]
    )
    return {name: hints[name] for name in names if choices(hints[name])}


def choices(hint: Any) -> list[Any]:
    """All that the Literals in a type name."""
    args = typing.get_args(hint)
    return list(args) if typing.get_origin(hint) is Literal else [one for arg in args for one in choices(arg)]


def _refused(value: Any, hint: Any) -> list[Any]:
    """The values, in a value, that a type with Literals does not name; what is neither a text nor None is only judged
    by the Literals."""
    args = typing.get_args(hint)
    kind = typing.get_origin(hint) or hint
    if kind is Literal:
        return [] if isinstance(value, tuple(map(type, args))) and value in args else [value]
    if kind in (Union, types.UnionType):
        # That which takes most of it, and of a list or mapping its entries rather than all of it.
        return min((_refused(value, arg) for arg in args), key=lambda wrong: (len(wrong), value in wrong))
    if not inspect.isclass(kind):
        return []
    if (kind is types.NoneType or isinstance(value, str | None)) and not isinstance(value, kind):
        return [value]
    if issubclass(kind, Mapping) and isinstance(value, Mapping):
        return [wrong for each in value.values() for wrong in _refused(each, args[-1])] if args else []
    if issubclass(kind, Collection) and isinstance(value, list | tuple) and args:
        each_hint = args if kind is tuple and args[-1] is not ... else repeat(args[0])
        return [wrong for each, hint in zip(value, each_hint, strict=False) for wrong in _refused(each, hint)]
    return []
