"""Keys and classes of a config, checked before they are parsed."""

from __future__ import annotations

import inspect
import math
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse._common import denying_import_path_entry

from anyformer.errors import InputError, suggest
from anyformer.local_files import read_bytes, special_kind
from anyformer.parsing.bounds import MAX_BYTES, compose
from anyformer.parsing.classes import find_class, is_plain, is_sequence, members, parameters, refusal, subclasses
from anyformer.parsing.scalars import AsWritten, load_yaml
from anyformer.reference.callbacks import refusal as unfit

SCALARS = (int, float, str, bool)


def read_yaml(path: str | Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The mapping in a YAML file, and the line of every key by its dotted path.

    Raises InputError for what is no such file, and for a key that a mapping has twice.
    """
    try:
        text = read_bytes(path, MAX_BYTES).decode()
    except FileNotFoundError:
        raise InputError(f"there is no config {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"config {path} cannot be read: {error}") from None
    try:
        node, content = compose(text), load_yaml(text)
    except InputError as error:
        raise InputError(f"config {path}: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise InputError(f"{path}{where} is not YAML: {problem}") from None
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
            kinds = members(known[key])
            if value[key] is None and kinds and all(kind in SCALARS for kind in kinds):
                named = " or ".join(kind.__name__ for kind in kinds)
                fail(inner, f"{inner} must be {named}, got null; leave it out for what it is by default")
            visit(value[key], known[key], inner)

    def visit(value: Any, hint: Any, path: str) -> None:
        if isinstance(value, list):
            inner = tuple(arg for member in members(hint) if is_sequence(member) for arg in typing.get_args(member))
            for i, item in enumerate(value):
                visit(item, inner, f"{path}.{i}")
                if not inner:
                    fail_unclear(item, f"{path}.{i}")
        elif isinstance(value, str) and (kind := special_kind(value)):
            fail(path, f"{path}: {value} is {kind} and no file")
        elif isinstance(value, dict):
            classes = [member for member in members(hint) if inspect.isclass(member) and not is_plain(member)]
            mapping = next((m for m in members(hint) if typing.get_origin(m) in (dict, Mapping)), None)
            if "class_path" in value:
                visit_class(value, classes, path)
            elif len(classes) == 1 and "init_args" not in value and (known := parameters(classes[0])) is not None:
                keys(value, known, path)
            elif mapping is not None and typing.get_args(mapping):
                for key, item in value.items():
                    visit(item, typing.get_args(mapping)[1], f"{path}.{key}")
            else:
                for key, item in value.items():
                    visit(item, (), f"{path}.{key}")
                    fail_unclear(item, f"{path}.{key}")

    def fail_unclear(value: Any, path: str) -> None:
        # Where a type says what a value is, it becomes that; here none does.
        if isinstance(value, AsWritten):
            fail(path, f"{path}: write {value} in quotes where it is a text, else as a plain number, true or false")

    def visit_class(value: Mapping[str, Any], bases: Sequence[type], path: str) -> None:
        name = value["class_path"]
        at = f"{path}.class_path"
        if not isinstance(name, str):
            fail(at, f"class_path must be the name of a class, got {name!r}")
        if "." in name and denying_import_path_entry(name):
            fail(at, refusal(name))
        try:
            cls = find_class(name, bases)
        except InputError as error:
            fail(at, str(error))
        if cls is None:
            known = {sub.__name__: sub for base in bases for sub in subclasses(base)}
            fail(at, f"there is no class {name!r}{suggest(name.rpartition('.')[2], known)}")
        if bases and inspect.isclass(cls) and not any(issubclass(cls, base) for base in bases):
            fail(at, f"{name} is no {' or '.join(base.__name__ for base in bases)}")
        if inspect.isclass(cls) and cls.__module__.startswith("lightning.") and (why := unfit([cls.__name__], True)):
            fail(at, f"{path}: {cls.__name__} {why}")
        for key in value:
            if key not in ("class_path", "init_args", "dict_kwargs"):
                fail(f"{path}.{key}", f"{key!r} stands beside class_path; arguments of {name} go under init_args")
        known = parameters(cls)
        if known is not None and isinstance(value.get("init_args"), dict):
            keys(value["init_args"], known, f"{path}.init_args")

    keys(content, hints, "")


LEAST = {
    "seed_everything": 0,
    "trainer.accumulate_grad_batches": 1,
    "trainer.check_val_every_n_epoch": 1,
    "trainer.log_every_n_steps": 0,
}
"""The least values of what Lightning takes as it is, and fails at later or not at all."""
LARGEST_SEED = 2**32 - 1


def check_numbers(config: Mapping[str, Any]) -> None:
    """Raise InputError for a number that is not finite, wherever it stands, and for one that Lightning cannot use.

    config: parsed. The message begins with the key.
    """

    def visit(value: Any, path: str) -> None:
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{path} must be a finite number, got {value}")
        if isinstance(value, int | float) and value < LEAST.get(path, value):
            raise InputError(f"{path} must be at least {LEAST[path]}, got {value}")
        if path == "trainer.val_check_interval" and value == 0:
            raise InputError(f"{path} must be above 0, got {value}")
        if path == "seed_everything" and isinstance(value, int) and value > LARGEST_SEED:
            raise InputError(f"{path} must be at most {LARGEST_SEED}, got {value}")
        if isinstance(value, dict | list):
            for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
                visit(inner, f"{path}.{key}" if path else str(key))

    visit(config, "")
