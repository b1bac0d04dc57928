"""Options of the commands: those of the command line itself, and one for each field of a dataclass of a task's.

Knows argparse; knows no trainer and no task.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import typing
from collections.abc import Sequence
from typing import Any

import docstring_parser

from anyformer.errors import InputError, suggest
from anyformer.parsing.classes import members


class Options(argparse.ArgumentParser):
    """The few options that are ours and not of the experiment."""

    def __init__(self, prog: str, description: str = "", add_help: bool = True) -> None:
        super().__init__(f"anyformer {prog}", description=description, add_help=add_help, allow_abbrev=False)
        self.add_argument("--unsafe_imports", metavar="PACKAGE", action="append", default=[])

    def error(self, message: str) -> typing.NoReturn:
        if unknown := re.match(r"unrecognized arguments: -+([\w.]+)", message):
            names = [option.lstrip("-") for option in self._option_string_actions]
            raise InputError(f"there is no option --{unknown[1]}{suggest(unknown[1], names)}")
        raise InputError(f"{message}; see {self.prog} --help")


def add_base(parser: argparse.ArgumentParser) -> None:
    """Give a parser the option of all commands that load a model which may be an adapter."""
    parser.add_argument(
        "--base",
        metavar="FOLDER",
        help="of a run with adapters (lora): where the model that it was trained on is now, if it has moved",
    )


def add_options(parser: argparse.ArgumentParser, of: Any) -> None:
    """Give a parser an option for each field of a dataclass, `tuple[...]` taking several values.

    of: the dataclass, or one of it whose values are the defaults; None for no options.
    """
    if of is None:
        return
    cls = of if isinstance(of, type) else type(of)
    group, hints = parser.add_argument_group("options of this model"), typing.get_type_hints(cls)
    said = {
        param.arg_name: param.description
        for base in reversed(cls.__mro__[:-1])
        for param in docstring_parser.parse_from_object(base).params
    }
    for each in dataclasses.fields(cls):
        (kind,) = [member for member in members(hints[each.name]) if member is not type(None)]
        several, options = typing.get_origin(kind) is tuple, {}
        if kind is bool:
            options = {"action": argparse.BooleanOptionalAction}
        elif typing.get_origin(kind) is typing.Literal:
            options = {"choices": typing.get_args(kind)}
        else:
            metavar = each.name.rstrip("_").upper()
            options = {"type": typing.get_args(kind)[0] if several else kind, "metavar": metavar}
        if several:
            options["nargs"] = "+"
        text = " ".join((said.get(each.name) or "").replace("%", "%%").split())
        # A word that Python keeps for itself stands with a _ behind it.
        name = each.name.rstrip("_")
        group.add_argument(f"--{name}", dest=each.name, default=getattr(of, each.name), help=text, **options)


def read_options(given: argparse.Namespace, of: Any) -> Any:
    """The dataclass of what was given for its options."""
    cls = of if isinstance(of, type) else type(of)
    values = {each.name: getattr(given, each.name) for each in dataclasses.fields(cls)}
    return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def require_first(what: str, command: str, args: Sequence[str]) -> None:
    """Raise InputError where an option stands in the place of what must stand first."""
    if args and args[0].startswith("-") and args[0] not in ("-h", "--help"):
        raise InputError(f"the {what} stands first, got {args[0]}: anyformer {command} {args[0]} ...")


def read_tokens(given: Sequence[str]) -> dict[str, int] | int | None:
    """What --tokens says: one number, or one for each field named."""
    by_field = {}
    for value in given:
        name, equals, number = value.rpartition("=")
        if not number.isdecimal() or int(number) < 1 or (len(given) > 1 and not equals):
            raise InputError(f"--tokens must be a number from 1, or FIELD=N, got {value!r}")
        by_field[name] = int(number)
    return by_field.get("", by_field or None)
