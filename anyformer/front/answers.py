"""What the command line answers without anything heavy: help, lists, the schema, and mistakes that can be seen so."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence

from anyformer.errors import Caller, InputError, say, suggest
from anyformer.front.overrides import check_overrides
from anyformer.front.parsers import PARSERS, Options, add_fields, add_options, require_first
from anyformer.front.runs import check_config, check_config_or_run, check_fields, check_run, usage_of
from anyformer.front.usage import fit_help
from anyformer.parsing.options import options_in
from anyformer.reference.pages import KINDS, listing, page
from anyformer.reference.schema import schema
from anyformer.reference.source import find

OVERRIDING = {"fit": "", "validate": "RUN", "test": "RUN", "plan": "CONFIG", "params": "CONFIG", "baseline": "CONFIG"}
"""The commands that take any value of the config as an option, and what stands first in each."""
OF_A_RUN = ("export", "embed", "explain", "merge")
"""The other commands, beside predict, of which a run stands first."""
ANSWERS = ("help", "list", "schema")
"""The commands that are answered here alone."""
HELP = ("-h", "--help")


def say_answer(command: str, args: Sequence[str], names: Sequence[str] = ()) -> int | None:
    """Print what can be answered here; returns the exit code, None where the command is to be carried out."""
    try:
        said = answer(command, args, names)
        if said is not None:
            print(said, flush=True)
    except InputError as error:
        say(f"anyformer: {' '.join(str(error).split())}")
        return InputError.exit_code
    except BrokenPipeError:
        # Who reads has seen enough, as in `| head`; nothing is left to flush at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return None if said is None else 0


@Caller.on_command_line()
def answer(command: str, args: Sequence[str], names: Sequence[str] = ()) -> str | None:
    """What is printed, where nothing heavy is needed for it; None where the command is to be carried out.

    names: of all commands. Raises InputError for a mistake that can be seen here.
    """
    if command in ANSWERS:
        return {"help": _help, "list": _list, "schema": _schema}[command](args, names)
    for name, value in options_in([each for each in args if each.startswith("--")]) if command in OVERRIDING else ():
        if name.rpartition(".")[2] == "help" and "." in name:
            return page(value or _after(args, name))
    if any(each in HELP for each in args):
        return _help_of(command, args)
    _check(command, args)
    return None


def _after(args: Sequence[str], name: str) -> str:
    """The value of an option that stands behind it, or what the option is of."""
    behind = list(args)[args.index(f"--{name}") + 1 :][:1]
    return behind[0] if behind and not behind[0].startswith("-") else name.rpartition(".")[0]


def _help(args: Sequence[str], names: Sequence[str]) -> str:
    if len(args) != 1 or args[0].startswith("-"):
        return (
            "usage: anyformer help NAME\n\nWhat a class, a block or key of a config, or a command is for and takes: "
            f"help ImagePatches, help optimizer, help fit.\nWhat there is: anyformer list {'|'.join(KINDS)}"
        )
    (name,) = args
    if name in ANSWERS:
        return answer(name, ["--help"])
    return _help_of(name, []) if name in PARSERS else page(name, names)


def _list(args: Sequence[str], names: Sequence[str]) -> str:
    if len(args) != 1 or args[0].startswith("-"):
        return f"usage: anyformer list {'|'.join(KINDS)}\n\nWhat there is of a kind, a line each."
    (kind,) = args
    if kind not in KINDS:
        raise InputError(f"{kind!r} cannot be listed{suggest(kind, KINDS)}")
    return listing(kind)


def _schema(args: Sequence[str], names: Sequence[str]) -> str:
    if args:
        return (
            "usage: anyformer schema > anyformer.schema.json\n\nThe JSON Schema of configs. An editor with a YAML "
            "language server completes and checks a config by it\nthat begins with\n\n"
            "# yaml-language-server: $schema=anyformer.schema.json"
        )
    return json.dumps(schema(), indent=1)


def _help_of(command: str, args: Sequence[str]) -> str:
    if command == "fit":
        return fit_help()
    parser = PARSERS[command]()
    if command == "predict":
        usage = usage_of(args[0]) if args and not args[0].startswith("-") else None
        _complete(parser, usage)
    return parser.format_help().rstrip("\n")


def _complete(parser: Options, usage: dict | None) -> None:
    """Give the parser of predict what the model of a run takes."""
    if usage is None:
        add_fields(parser)
        return
    add_fields(parser, list(usage["inputs"]))
    if usage["options"] is not None:
        add_options(parser, find(usage["options"]["name"]), usage["options"]["values"])


def _check(command: str, args: Sequence[str]) -> None:
    """Raise InputError for an option that there is not, and for a file or folder that is not there."""
    parser = PARSERS[command]()
    if command in OVERRIDING:
        if first := OVERRIDING[command]:
            require_first("run's folder" if first == "RUN" else "config", f"{command} {first}", args)
        own, rest = parser.parse_known_args(args)
        names = [option.lstrip("-") for option in parser._option_string_actions]
        check_overrides(rest, names, parser.prog, bool(own.unsafe_imports))
        if command == "fit":
            for path in own.config:
                check_config(path)
            if own.resume and not own.config:
                check_run(own.resume)
        elif first == "RUN":
            check_run(own.run)
        else:
            check_config_or_run(own.config)
    elif command == "predict":
        _check_predict(parser, args)
    else:
        # The fields of explain may stand between options.
        own = parser.parse_intermixed_args(args) if command == "explain" else parser.parse_args(args)
        runs = own.runs if command == "average" else [own.run] if command in OF_A_RUN else []
        for run in runs:
            check_run(run)


def _check_predict(parser: Options, args: Sequence[str]) -> None:
    require_first("run's folder", "predict RUN", args)
    if args:
        check_run(args[0])
    usage = usage_of(args[0]) if args else None
    if usage is None or "members" in usage or (usage["options"] and find(usage["options"]["name"]) is None):
        # What it takes is seen when the model is read.
        return
    _complete(parser, usage)
    # As predict reads them: fields may stand between options.
    own = parser.parse_intermixed_args(args)
    check_fields(own.fields, own.run, usage["inputs"])
