"""`anyformer predict`: the best model's predictions of a record, of many files, or the episodes that a policy plays."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from anyformer.cli.arguments import described, read_options
from anyformer.cli.outputs import (
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
from anyformer.errors import InputError, say, suggest
from anyformer.front.parsers import Options, add_base, add_fields, add_options, predict_parser, require_first
from anyformer.runs.predictions.opening import open_data, run_source
from anyformer.runs.predictions.predictions import print_predictions, write_predictions
from anyformer.runs.predictions.rows import RowsOfSource
from anyformer.runs.predictions.tables import ERROR, KINDS
from anyformer.saving.model_folder import load


def predict_command(args: list[str]) -> None:
    parser = predict_parser()
    require_first("run's folder", "predict RUN", args)
    if hasattr(sys.stdout, "reconfigure"):
        # Names of files, and texts from the command line, may hold bytes that are no text.
        sys.stdout.reconfigure(errors="backslashreplace")
    if not args or args[0].startswith("-"):
        add_fields(parser)
        parser.parse_args(args)  # Shows the help, or says what is missing.
    # The task may have options of its own, so it is asked before the rest is read.
    first = Options("predict", add_help=False)
    add_base(first)
    loading, _ = first.parse_known_args(args[1:])
    task = load(args[0], unsafe_imports=loading.unsafe_imports, base=loading.base)
    if task.members:
        names = " or ".join(f"{args[0]}:{name}" for name in task.members)
        raise InputError(f"{args[0]} is a mixture; name one of its tasks: {names}")
    add_fields(parser, task.inputs)
    if task.options is not None:
        add_options(parser, *described(task.options))
    # Fields may stand between options, and be none.
    own = parser.parse_intermixed_args(args)
    options = [] if task.options is None else [read_options(own, task.options)]
    if own.data is not None:
        _predict_data(task, own, options)
        return
    if own.id is not None or own.on_bad_sample != "fail":
        raise InputError("--id and --on_bad_sample are for the records of --data; give that too")
    if not task.inputs:
        _rollout(task, own, options)
        return
    if not own.fields:
        raise InputError(
            f"nothing to predict: give {' '.join(f'{name}=...' for name in task.inputs)}, or --data FILE; see "
            f"anyformer predict {own.run} --help"
        )
    given: dict[str, str] = {}
    same: dict[str, str] = {}
    for field in own.fields:
        names, equals, value = field.partition("=")
        if not equals:
            hint = f"; to predict all records of it give --data {field}" if os.path.exists(field) else ""
            raise InputError(f"a field is given as FIELD=VALUE, got {field!r}{hint}")
        first, *others = names.split(",")
        for name in (first, *others):
            if name in given.keys() | same.keys():
                raise InputError(f"the field {name!r} is given twice; for many files give a folder or a quoted pattern")
            if name == first:
                given[name] = value
            else:
                same[name] = first
    for name in (given.keys() | same.keys()) - {*task.inputs, *task.link_columns}:
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
        write_outcomes(outcomes, sys.stdout, own.json, task.row)
        sys.stdout.flush()
    else:
        write_table(output, outcomes, task.row)
    say_failed(failed, records)


def _records(given: dict[str, str], same: dict[str, str], task: Any) -> tuple[list[Record], str | None]:
    """As `find_records`, with the fields that have the value of another. same: by field that other one."""
    records, field = find_records(given, task.tokenizers)
    return [{**record, **{name: record[first] for name, first in same.items()}} for record in records], field


def _predict_data(task: Any, own: argparse.Namespace, options: Sequence[Any]) -> None:
    """Predict all records of --data into a table, or print it."""
    if own.fields:
        raise InputError(f"--data gives the records; leave {own.fields[0]!r} out, or give fields alone")
    if ending := task.ending(*options):
        raise InputError(f"--data makes one table, and {ending} is a file a record; give fields, or leave --format out")
    output = None if own.output is None else Path(own.output)
    if output is not None:
        check_table(output, own.json)
    like = run_source(own.run, task, own.unsafe_imports)
    source, skip = open_data(own.data, task, like, own.id), own.on_bad_sample == "skip"
    chosen = options[0] if options else None
    if output is None:
        n_bad = print_predictions(RowsOfSource(task, source, chosen, id_column=own.id, whole=own.json), own.json, skip)
    else:
        n_bad = write_predictions(own.run, task, source, output, chosen, id_column=own.id, skip=skip)
    if n_bad:
        say(f"{n_bad:,} of {len(source):,} records could not be used; see the column {ERROR!r}")


def _rollout(task: Any, own: argparse.Namespace, options: Sequence[Any]) -> None:
    """What a model does that is given no record: its results one by one, and what they come to."""
    if own.fields:
        raise InputError(f"the model of {own.run} is given no fields, got {own.fields[0]!r}")
    output = None if own.output is None else Path(own.output)
    if output is not None:
        check_table(output, own.json)
    results = []
    for result in tqdm(task.rollout(*options, folder=Path(own.run)), file=sys.stderr, disable=None):
        results.append(result)
        if own.json:
            print(json.dumps(result))
    if output is not None:
        write_table(output, [Outcome({}, result) for result in results], task.row)
    if not own.json:
        print(task.summarize(results))
