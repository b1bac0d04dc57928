"""Arguments checked against the types that their class declares, whoever gives them: a config or Python.

A number, a text, a list, a mapping or None where something else is needed, a word that is none of the choices of a
`Literal`, and an argument that there is none of are refused in one line. Other objects are taken as they are.
"""

from __future__ import annotations

import inspect
import reprlib
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from functools import cache
from itertools import repeat
from typing import Any, Literal, Self, Union

from anyformer.errors import InputError, nearest, suggest

PLAIN = (str, int, float, list, tuple, dict, types.NoneType)
"""What a config holds. Of what is none of these, nor of the classes below, nothing is known here."""


class Checked:
    """A class whose arguments are checked before its `__init__` runs: the base of what a config chooses from."""

    # Without a type: jsonargparse looks up the names in those of a class where its subclasses stand.
    checks_itself = ()
    """Arguments of which Python may give more than a config can, and which the class checks by itself."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        return _checked(cls, args, kwargs)


@dataclass(frozen=True)
class Values:
    """The same, as the base of a block of values: jsonargparse takes a class as such if all of its bases are
    dataclasses."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        return _checked(cls, args, kwargs)


def _checked(cls: type, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    if args or kwargs:  # A copy is made without any, and filled afterwards.
        check_arguments(cls, args, kwargs)
    return object.__new__(cls)


def check_arguments(cls: type, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raise InputError for an argument of a constructor that there is none of, that lacks, or is of another type."""
    signature = _signature(cls)
    try:
        given = signature.bind(*args, **kwargs).arguments
    except TypeError as error:
        names = [name for name, each in signature.parameters.items() if each.kind is not each.VAR_POSITIONAL]
        for name in kwargs:
            if name not in names:
                raise InputError(f"{cls.__name__} has no argument {name!r}{suggest(name, names)}") from None
        raise InputError(f"{cls.__name__}: {error}") from None
    hints = _hints(cls)
    apart = getattr(cls, "checks_itself", ())
    for name, value in given.items():
        if name in hints and name not in apart and (wrong := _refused(value, hints[name])):
            raise InputError(f"{cls.__name__}.{name} must be {_unfit(value, wrong[0], hints[name])}")


@cache
def _signature(cls: type) -> inspect.Signature:
    whole = inspect.signature(cls.__init__)
    return whole.replace(parameters=list(whole.parameters.values())[1:])


@cache
def _hints(cls: type) -> dict[str, Any]:
    """The types of a class's arguments, by name."""
    try:
        hints = typing.get_type_hints(cls if is_dataclass(cls) else cls.__init__)
    except NameError:  # Of a class whose types are not to be had where it runs.
        return {}
    whole = _signature(cls).parameters.items()
    one = [name for name, each in whole if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    return {name: hints[name] for name in one if name in hints}


def literal_arguments(cls: type) -> dict[str, Any]:
    """The arguments of a class with a Literal in their type, by name."""
    return {name: hint for name, hint in _hints(cls).items() if choices(hint)}


def choices(hint: Any) -> list[Any]:
    """All that the Literals in a type name."""
    args = typing.get_args(hint)
    return list(args) if typing.get_origin(hint) is Literal else [one for arg in args for one in choices(arg)]


def _refused(value: Any, hint: Any) -> list[Any]:
    """The values, in a value, that a type does not allow."""
    args = typing.get_args(hint)
    kind = typing.get_origin(hint) or hint
    if typing.is_typeddict(kind):  # Whoever takes it says which keys there are.
        if not isinstance(value, Mapping):
            return [value]
        inner = typing.get_type_hints(kind)
        return [wrong for key, each in value.items() if key in inner for wrong in _refused(each, inner[key])]
    if kind is Literal:
        return [] if isinstance(value, tuple(map(type, args))) and value in args else [value]
    if _is_union(hint):
        # That which takes most of it, and of a list or mapping its entries rather than all of it.
        return min((_refused(value, arg) for arg in args), key=lambda wrong: (len(wrong), value in wrong))
    if not inspect.isclass(kind) or kind in (Any, object) or not isinstance(value, (*PLAIN, Checked, Values)):
        return []
    if not _is_of(value, kind):
        return [value]
    if isinstance(value, Mapping) and len(args) == 2:
        return [wrong for each in value.values() for wrong in _refused(each, args[-1])]
    if isinstance(value, list | tuple) and args:
        if kind is tuple and args[-1] is not ...:
            hints = args
            if len(value) != len(args):
                return [value]
        elif {*map(type, value)} <= {args[0], *(typing.get_args(args[0]) if _is_union(args[0]) else ())}:  # Quickly.
            return []
        else:
            hints = repeat(args[0])
        return [wrong for each, hint in zip(value, hints, strict=False) for wrong in _refused(each, hint)]
    return []


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (Union, types.UnionType)


def _is_of(value: Any, kind: type) -> bool:
    """Whether a plain value is of a class; lists and tuples are as good as each other, and whole numbers are floats."""
    if isinstance(value, bool):
        return kind is bool
    if isinstance(value, int) and kind is float:
        return True
    if isinstance(value, list | tuple) and kind in (list, tuple):
        return True
    return isinstance(value, kind) and not (isinstance(value, str) and kind is not str)


def _unfit(value: Any, wrong: Any, hint: Any) -> str:
    """What a value must be in place of what was given, and the nearest of it."""
    known = choices(hint)
    if known and isinstance(wrong, str | None):
        *most, last = map(str, known if _refused(None, hint) else [*known, "null"])
        near = nearest(wrong, known, 1) if isinstance(wrong, str) else ""
        return f"{', '.join(most)} or {last}, got {wrong!r}{near}" if most else f"{last}, got {wrong!r}{near}"
    instead = ""
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        blocks = [each for each in (hint, *typing.get_args(hint)) if inspect.isclass(each) and issubclass(each, Values)]
        instead = f"; write {blocks[0].__name__}({', '.join(f'{key}=...' for key in value)})" if blocks else ""
    return f"{_in_words(hint)}, got {reprlib.repr(value)}{instead}"


def _in_words(hint: Any) -> str:
    """A type in Python's terms, as short as can be: `(int, int) or None`."""
    kind, args = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind in (Union, types.UnionType):
        return " or ".join(map(_in_words, args))
    if kind is Literal:
        return " or ".join(map(repr, args))
    if kind is tuple and args:
        return f"({', '.join('...' if each is ... else _in_words(each) for each in args)})"
    if inspect.isclass(kind) and issubclass(kind, Mapping) and args:
        return f"{{{_in_words(args[0])}: {_in_words(args[1])}}}"
    if inspect.isclass(kind) and issubclass(kind, Collection) and args:
        return f"[{_in_words(args[0])}, ...]"
    return "None" if kind is types.NoneType else getattr(kind, "__name__", str(kind))
