"""`anyformer predict`: the best model's predictions of a record, of many files, or the episodes that a policy plays."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from anyformer.cli.arguments import Options, add_base, add_options, read_options, require_first
from anyformer.cli.outputs import (
    KINDS,
    Outcome,
    check_table,
    predict_each,
    say_failed,
    watched,
    write_files,
    write_outcomes,
    write_table,
)
from anyformer.cli.records import STANDARD_INPUT, Record, find_records
from anyformer.errors import InputError, suggest
from anyformer.saving.model_folder import load


def predict_command(args: list[str]) -> None:
    parser = Options("predict", "Predict with the best model of a run, for one record or many files.")
    parser.add_argument("run", metavar="RUN", help="the run's folder; RUN:TASK is one task of a mixture")
    add_base(parser)
    fields = {
        "metavar": "FIELD=VALUE",
        "help": "the record; a picture or a sound is given by the path of its file. A folder, a zip or a pattern "
        "('pets/**/*.jpg', quoted) stands for every file in it: one field may be many, the others are the same for "
        "all. - is standard input: a file, or one text a line. FIELD,FIELD=VALUE gives several fields one value. A "
        "policy takes no fields: it plays episodes",
    }
    parser.add_argument(
        "--json", action="store_true", help="print the whole result as JSON; for many records, one object a line"
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="write a table to FILE.csv, FILE.jsonl or FILE.json; subtitles to FILE.srt and the like, or for "
        "many records to a folder",
    )
    require_first("run's folder", "predict RUN", args)
    if hasattr(sys.stdout, "reconfigure"):
        # Names of files, and texts from the command line, may hold bytes that are no text.
        sys.stdout.reconfigure(errors="backslashreplace")
    if not args or args[0].startswith("-"):
        parser.add_argument("fields", nargs="+", **fields)
        parser.parse_args(args)  # Shows the help, or says what is missing.
    # The task may have options of its own, so it is asked before the rest is read.
    first = Options("predict", add_help=False)
    add_base(first)
    loading, _ = first.parse_known_args(args[1:])
    task = load(args[0], unsafe_imports=loading.unsafe_imports, base=loading.base)
    if task.members:
        names = " or ".join(f"{args[0]}:{name}" for name in task.members)
        raise InputError(f"{args[0]} is a mixture; name one of its tasks: {names}")
    if task.inputs:
        fields["help"] = f"{', '.join(task.inputs)}: {fields['help']}"
    parser.add_argument("fields", nargs="+" if task.inputs else "*", **fields)
    add_options(parser, task.options)
    own = parser.parse_args(args)
    options = [] if task.options is None else [read_options(own, task.options)]
    if not task.inputs:
        _rollout(task, own, options)
        return
    given: dict[str, str] = {}
    same: dict[str, str] = {}
    for field in own.fields:
        names, equals, value = field.partition("=")
        if not equals:
            raise InputError(f"a field is given as FIELD=VALUE, got {field!r}")
        first, *others = names.split(",")
        for name in (first, *others):
            if name in given.keys() | same.keys():
                raise InputError(f"the field {name!r} is given twice; for many files give a folder or a quoted pattern")
            if name == first:
                given[name] = value
            else:
                same[name] = first
    for name in (given.keys() | same.keys()) - set(task.inputs):
        raise InputError(f"the model of {own.run} has no field {name!r}{suggest(name, task.inputs)}")
    output = None if own.output is None else Path(own.output)
    ending = task.ending(*options)
    if output is not None:
        if ending and (output.suffix == ending or output.suffix.lower() not in KINDS):
            if own.json:
                raise InputError("--json prints, and --output writes a file; give one of the two")
            write_files(task, _records(given, same, task), options, output, ending)
            return
        check_table(output, own.json)
    records, field = _records(given, same, task)
    if field is None and output is None:
        if own.json:
            print(json.dumps(task.predict(records, *options)[0]))
            return
        for piece in task.stream(records[0], *options):
            print(piece, end="", flush=True)
        print()
        return
    if ending and output is None:
        raise InputError(f"of many records the {ending} files go into a folder: give --output FOLDER")
    failed: list[str] = []
    # Where the table goes to the terminal, a bar would stand in its middle.
    no_bar = True if output is None and sys.stdout.isatty() else None
    bar = tqdm(
        predict_each(lambda some: task.predict(some, *options), records),
        total=len(records),
        file=sys.stderr,
        disable=no_bar,
    )
    outcomes = watched(bar, field or next(iter(given)), failed)
    if output is None and not own.json and given[field] == STANDARD_INPUT:
        for outcome in outcomes:
            print("" if outcome.result is None else task.render(outcome.result), flush=True)
    elif output is None:
        write_outcomes(outcomes, sys.stdout, "jsonl" if own.json else "csv", task.row)
        sys.stdout.flush()
    else:
        write_table(output, outcomes, task.row)
    say_failed(failed, records)


def _records(given: dict[str, str], same: dict[str, str], task: Any) -> tuple[list[Record], str | None]:
    """As `find_records`, with the fields that have the value of another. same: by field that other one."""
    records, field = find_records(given, task.tokenizers)
    return [{**record, **{name: record[first] for name, first in same.items()}} for record in records], field


def _rollout(task: Any, own: argparse.Namespace, options: Sequence[Any]) -> None:
    """What a model does that is given no record: its results one by one, and what they come to."""
    if own.fields:
        raise InputError(f"the model of {own.run} is given no fields, got {own.fields[0]!r}")
    output = None if own.output is None else Path(own.output)
    if output is not None:
        check_table(output, own.json)
    results = []
    for result in tqdm(task.rollout(*options, folder=Path(own.run)), file=sys.stderr):
        results.append(result)
        if own.json:
            print(json.dumps(result))
    if output is not None:
        write_table(output, [Outcome({}, result) for result in results], task.row)
    if not own.json:
        print(task.summarize(results))
