"""Configs: which classes they may name, and what is wrong with one, in one line.

jsonargparse does the parsing. Here its doors are closed to all but our own classes, keys are checked against the
signatures beforehand (it says nothing about some misspelt keys, and twelve lines about others), and what it still has
to say becomes one line: which key, where, what was needed, what arrived.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass
from typing import Any

from jsonargparse import set_parsing_settings
from jsonargparse._common import parsing_settings

from anyformer.errors import InputError

ALLOWED = (
    "anyformer",
    "lightning.pytorch.callbacks",
    "lightning.pytorch.loggers",
    "lightning.pytorch.plugins",
    "lightning.pytorch.profilers",
    "lightning.pytorch.strategies",
    "torch.optim",
)
"""Import paths that a config may name classes of."""


@contextmanager
def allowed_imports(unsafe: Sequence[str] = ()) -> Iterator[None]:
    """While it lasts, a config may name classes of anyformer, Lightning's callbacks and the like, and nothing else.

    unsafe: further packages that the user opened, installed or in the current folder; they are imported, so that their
        classes have short names too.
    """
    held = dict(parsing_settings)
    set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=[*ALLOWED, *unsafe])
    try:
        for package in ("anyformer.tokenizers", "anyformer.tasks"):
            for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
                importlib.import_module(module.name)
        if unsafe and (here := os.getcwd()) not in sys.path:
            # As with `python -m`, but behind all others, so that it hides none.
            sys.path.append(here)
        for package in unsafe:
            try:
                importlib.import_module(package)
            except ImportError as error:
                raise InputError(f"--unsafe_imports {package} cannot be imported: {error}") from None
        yield
    finally:
        parsing_settings.clear()
        parsing_settings.update(held)


def refusal(name: str) -> str:
    package = name.partition(".")[0]
    return (
        f"{name} is refused: a config may name classes of anyformer, of Lightning's callbacks, loggers, plugins, "
        f"profilers and strategies, and torch's optimisers; --unsafe_imports {package} opens {package} if you trust it"
    )


def members(hint: Any) -> tuple[Any, ...]:
    """The types of a union, or of several; the type itself if it is none."""
    parts = hint if isinstance(hint, tuple) else typing.get_args(hint) if _is_union(hint) else None
    return (hint,) if parts is None else tuple(inner for part in parts for inner in members(part))


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def is_plain(cls: Any) -> bool:
    return typing.get_origin(cls) is not None or cls.__module__ in ("builtins", "typing", "collections.abc")


def is_sequence(hint: Any) -> bool:
    origin = typing.get_origin(hint)
    return inspect.isclass(origin) and issubclass(origin, Iterable) and not issubclass(origin, Mapping)


def parameters(cls: type) -> dict[str, Any] | None:
    """The arguments of a class with their types; None where it takes any."""
    if typing.is_typeddict(cls):
        return typing.get_type_hints(cls)
    try:
        signature = inspect.signature(cls)
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
        return None
    try:
        hints = typing.get_type_hints(cls.__init__)
    except Exception:  # Annotations of other packages may name what is not installed.
        hints = {}
    return {name: hints.get(name, Any) for name in signature.parameters}


def dotted(cls: type) -> list[str]:
    """The arguments of a class, and those of the dataclasses among them by their dotted path."""
    names = []
    for name, hint in (parameters(cls) or {}).items():
        inner = [member for member in members(hint) if is_dataclass(member)]
        names += [name, *(f"{name}.{rest}" for member in inner for rest in dotted(member))]
    return names


def subclasses(base: type) -> Iterator[type]:
    yield base
    for sub in base.__subclasses__():
        yield from subclasses(sub)


def find_class(name: str, bases: Sequence[type]) -> Any:
    """The class of a full or a short name; None if there is none. Raises InputError for a short name of several."""
    module, _, short = name.rpartition(".")
    if not module:
        found = {sub for base in bases for sub in subclasses(base) if sub.__name__ == short}
        if len(found) > 1:
            paths = sorted(f"{cls.__module__}.{cls.__qualname__}" for cls in found)
            raise InputError(f"{name} is the name of {' and of '.join(paths)}; give the whole path of one")
        return found.pop() if found else None
    try:
        return getattr(importlib.import_module(module), short, None)
    except ImportError:
        return None
