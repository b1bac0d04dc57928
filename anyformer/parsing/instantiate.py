"""Objects out of parsed configs; an error of a constructor says where in the config its arguments stand."""

from __future__ import annotations

import re
from argparse import ArgumentError
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from anyformer.choices import Checked
from anyformer.errors import InputError
from anyformer.parsing.check import check
from anyformer.parsing.classes import allowed_imports, find_class
from anyformer.parsing.large import put_back, take_out
from anyformer.parsing.messages import one_line
from anyformer.parsing.misfits import explain
from anyformer.parsing.plain import plain


def instantiate(config: Mapping[str, Any], unsafe: Sequence[str] = ()) -> Any:
    """The task of a config, `{"class_path": ..., "init_args": {...}}`. Raises InputError if it cannot be made."""
    if not isinstance(config.get("class_path"), str):
        raise InputError("config.json must name the class of its task under class_path")
    with allowed_imports(unsafe):
        check({"model": config}, {"model": Checked}, "config.json")
        base = find_class(config["class_path"], [Checked]) or Checked
        parser = ArgumentParser(exit_on_error=False)
        parser.add_subclass_arguments(base, "model", fail_untyped=False, required=True)
        with one_line("config.json: "):
            small, large = take_out(config)
            try:
                parsed = parser.parse_object({"model": small})
            except (ArgumentError, TypeError, ValueError) as error:
                # What it was given it has changed.
                reason = explain({"model": take_out(config)[0]})
                raise error if reason is None else InputError(reason) from error
            put_back(parsed.model, large)
            return make_objects(parser, parsed).model


def make_objects(parser: ArgumentParser, config: Namespace, refusals: tuple[type[Exception], ...] = ()) -> Namespace:
    """The objects of a parsed config.

    refusals: what constructors of others raise for a value, beside TypeError and ValueError.
    Raises InputError that begins with the key of the value that a constructor refused, or of the object.
    """
    refused: list[tuple[Exception, str]] = []

    def construct(cls: type, *args: Any, **kwargs: Any) -> Any:
        try:
            return cls(*args, **kwargs)
        except (TypeError, ValueError, *refusals) as error:
            key = next(_keys(config.as_dict(), cls, kwargs), "")
            refused.append((error, _placed(" ".join(str(error).split()), key, cls, kwargs)))
            raise

    try:
        return parser.instantiate(config, instantiators=[(construct, object, True)])
    except (TypeError, ValueError, *refusals) as error:
        # jsonargparse may wrap the reason, and try the other types of a union after it.
        reason = next((text for cause, text in reversed(refused) if str(cause) in str(error)), None)
        raise error if reason is None else InputError(reason) from error


def _keys(config: Any, cls: type, kwargs: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """The keys of what in a config may have become these arguments of a class."""
    if isinstance(config, list | tuple):
        for i, part in enumerate(config):
            yield from _keys(part, cls, kwargs, f"{path}.{i}")
    elif isinstance(config, Mapping):
        values = config.get("init_args", {}) if "class_path" in config else config
        is_named = config.get("class_path", cls.__name__).rpartition(".")[2] == cls.__name__
        if is_named and values.keys() == kwargs.keys() and all(_alike(values[name], kwargs[name]) for name in values):
            yield path
        for name, part in values.items():
            yield from _keys(part, cls, kwargs, f"{path}.{name}" if path else name)


def _alike(value: Any, made: Any) -> bool:
    return not isinstance(made, bool | int | float | str | list | tuple | None) or plain(value) == plain(made)


def _placed(message: str, key: str, cls: type, kwargs: Mapping[str, Any]) -> str:
    """What a constructor says, with the key of the object before it, or of the argument that it begins with."""
    message = re.sub(r"^`(\w+)`", r"\1", message.removeprefix(f"{cls.__name__}."))
    first, *rest = re.match(r"[\w.]*", message)[0].split(".")
    above, _, last = key.rpartition(".")
    if first == last and rest:
        return f"{above}.{message}" if above else message
    if not key or (first in kwargs and (not rest or hasattr(kwargs[first], rest[0]))):
        return f"{key}.{message}" if key else message
    return f"{key}: {message}"
