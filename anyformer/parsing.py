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
import re
import reprlib
import sys
import types
import typing
from abc import ABCMeta
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, set_parsing_settings
from jsonargparse._common import denying_import_path_entry, parsing_settings

from anyformer.errors import InputError, suggest

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
            for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
                importlib.import_module(f"{package}.{module.name}")
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


def instantiate(config: Mapping[str, Any], unsafe: Sequence[str] = ()) -> Any:
    """The task of a config, `{"class_path": ..., "init_args": {...}}`. Raises InputError if it cannot be made."""
    with allowed_imports(unsafe):
        base = importlib.import_module("anyformer.tasks.task").Task
        parser = ArgumentParser(exit_on_error=False)
        parser.add_subclass_arguments(base, "model", fail_untyped=False, required=True)
        check({"model": config}, {"model": base}, "config.json")
        with one_line():
            return parser.instantiate(parser.parse_object({"model": config})).model


# Keys, checked before jsonargparse sees them.


def read_yaml(path: str | Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The mapping in a YAML file, and the line of every key by its dotted path.

    Raises InputError for what is no such file, and for a key that a mapping has twice.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"there is no config {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"config {path} cannot be read: {error}") from None
    try:
        node, content = yaml.compose(text, yaml.SafeLoader), yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise InputError(f"{path}{where} is not YAML: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold keys and values, as in `trainer:`, got {type(content).__name__}")
    lines: dict[str, int] = {}

    def visit(node: yaml.Node, above: str) -> None:
        if isinstance(node, yaml.MappingNode):
            own: dict[str, int] = {}
            for key, value in node.value:
                line = key.start_mark.line + 1
                if key.value in own:
                    # YAML would take the last of them without a word.
                    first = f"first in line {own[key.value]}"
                    raise InputError(f"{path} line {line}: the key {key.value!r} stands here twice, {first}; rename it")
                inner = f"{above}.{key.value}" if above else key.value
                own[key.value] = lines[inner] = line
                visit(value, inner)
        elif isinstance(node, yaml.SequenceNode):
            for i, value in enumerate(node.value):
                visit(value, f"{above}.{i}")

    visit(node, "")
    return content, lines


def check(
    content: Mapping[str, Any],
    hints: Mapping[str, Any],
    file: str,
    lines: Mapping[str, int] = types.MappingProxyType({}),
) -> None:
    """Raise InputError for a key that is not one, naming the nearest right one; and for a class that may not be named.

    hints: the type of each key at the top.
    """

    def fail(path: str, what: str) -> typing.NoReturn:
        line = f" line {lines[path]}" if path in lines else ""
        raise InputError(f"{file}{line}: {what}")

    def keys(value: Mapping[str, Any], known: Mapping[str, Any], path: str) -> None:
        for key in value:
            inner = f"{path}.{key}" if path else str(key)
            if key not in known:
                owner = path.replace("init_args.", "").replace(".init_args", "")
                fail(inner, f"{owner + ' has' if owner else 'there is'} no key {key!r}{suggest(str(key), known)}")
            visit(value[key], known[key], inner)

    def visit(value: Any, hint: Any, path: str) -> None:
        if isinstance(value, list):
            inner = tuple(arg for member in members(hint) if _is_sequence(member) for arg in typing.get_args(member))
            for i, item in enumerate(value):
                visit(item, inner, f"{path}.{i}")
        elif isinstance(value, dict):
            classes = [member for member in members(hint) if inspect.isclass(member) and not _is_plain(member)]
            mapping = next((m for m in members(hint) if typing.get_origin(m) in (dict, Mapping)), None)
            if "class_path" in value:
                visit_class(value, classes, path)
            elif len(classes) == 1 and "init_args" not in value and (known := parameters(classes[0])) is not None:
                keys(value, known, path)
            elif mapping is not None and typing.get_args(mapping):
                for key, item in value.items():
                    visit(item, typing.get_args(mapping)[1], f"{path}.{key}")

    def visit_class(value: Mapping[str, Any], bases: Sequence[type], path: str) -> None:
        name = value["class_path"]
        at = f"{path}.class_path"
        if not isinstance(name, str):
            fail(at, f"class_path must be the name of a class, got {name!r}")
        if "." in name and denying_import_path_entry(name):
            fail(at, refusal(name))
        cls = find_class(name, bases)
        if cls is None:
            known = {sub.__name__: sub for base in bases for sub in subclasses(base)}
            fail(at, f"there is no class {name!r}{suggest(name.rpartition('.')[2], known)}")
        if bases and inspect.isclass(cls) and not any(issubclass(cls, base) for base in bases):
            fail(at, f"{name} is no {' or '.join(base.__name__ for base in bases)}")
        for key in value:
            if key not in ("class_path", "init_args", "dict_kwargs"):
                fail(f"{path}.{key}", f"{key!r} stands beside class_path; arguments of {name} go under init_args")
        known = parameters(cls)
        if known is not None and isinstance(value.get("init_args"), dict):
            keys(value["init_args"], known, f"{path}.init_args")

    keys(content, hints, "")


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


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _is_plain(cls: Any) -> bool:
    return typing.get_origin(cls) is not None or cls.__module__ in ("builtins", "typing", "collections.abc")


def _is_sequence(hint: Any) -> bool:
    origin = typing.get_origin(hint)
    return inspect.isclass(origin) and issubclass(origin, Iterable) and not issubclass(origin, Mapping)


def parameters(cls: type) -> dict[str, Any] | None:
    """The arguments of a class with their types; None where it takes any."""
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
    """The class of a full or a short name; None if there is none."""
    module, _, short = name.rpartition(".")
    if not module:
        return next((sub for base in bases for sub in subclasses(base) if sub.__name__ == short), None)
    try:
        return getattr(importlib.import_module(module), short, None)
    except ImportError:
        return None


# What jsonargparse says, in one line.


@contextmanager
def one_line(prefix: str = "") -> Iterator[None]:
    """Turn the errors of jsonargparse, and of the constructors it calls, into an InputError of one line."""
    from argparse import ArgumentError

    try:
        yield
    except InputError as error:
        raise InputError(f"{prefix}{condense(str(error))}") from None
    except (ArgumentError, ImportError, TypeError, ValueError) as error:
        raise InputError(f"{prefix}{condense(str(error))}") from error


FORM = (
    r"Does not validate against|Subtypes:|Errors:|Given value type:|Not a valid subclass of|Subclass types expect|"
    r"(- )?(a class path \(str\)|a dict with|a dict without)|(- )?Problem with given class_path .*:$|"
    r"- Expected a <class 'NoneType'>"
)
"""How its lines begin that say nothing by themselves."""


def condense(message: str) -> str:
    """The many nested lines of jsonargparse as one: the key, what was needed, what arrived.

    >>> message = "Parser key \\"trainer.max_epochs\\":\\n  - Expected a <class 'int'>\\n  Given value: many"
    >>> condense(message)
    'trainer.max_epochs must be int, got many'
    """
    if "\n" not in message and not message.startswith("Parser key"):
        return message
    path, needed, causes, value = [], [], [], None
    for line in message.splitlines():
        text = line.strip()
        if key := re.match(r'-? ?Parser key "(.+?)":(.*)', text):
            path.append(key[1])
            text = key[2].strip()
        if found := re.match(r"-? ?Expected an? (.+?)(?:\. Got value: (.*))?$", text):
            if found[2] is not None:
                value = found[2]
            needed.append(re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", found[1]))
        elif found := re.match(r"Given value: (.*)", text):
            value = found[1] if value is None else value
        elif text and not re.match(FORM, text):
            causes.append(text.removeprefix("- "))
    where = ".".join(path)
    if causes:
        if denied := re.search(r"Importing '(.+?)' is not allowed", causes[0]):
            causes = [refusal(denied[1])]
        return f"{where}: {causes[0]}" if where else causes[0]
    needed = [name for name in dict.fromkeys(needed) if name != "NoneType"]
    return f"{where} must be {' or '.join(needed)}, got {value}"


def plain(value: Any) -> Any:
    """Dataclasses, tuples and paths as plain values that a YAML or JSON file holds.

    One of several classes that a config chooses from (a tokenizer, a target: what has an abstract base) keeps its name.
    """
    if is_dataclass(value):
        init_args = {f.name: plain(getattr(value, f.name)) for f in fields(value) if f.init}
        is_named = isinstance(type(value), ABCMeta)
        return {"class_path": import_path(type(value)), "init_args": init_args} if is_named else init_args
    if isinstance(value, Mapping):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, tuple | list):
        return [plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def import_path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
