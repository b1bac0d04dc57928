"""Predictions of all records of a source as one table, which a killed command goes on with."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, is_dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from anyformer.data.source import Source
from anyformer.errors import InputError, say
from anyformer.faults import MachineError, writing
from anyformer.runs.predictions.opening import model_state, state_of
from anyformer.runs.predictions.parts import Parts, folder_of
from anyformer.runs.predictions.progress import Progress
from anyformer.runs.predictions.rows import RowsOfSource
from anyformer.runs.predictions.tables import (
    ERROR,
    WITH_JSON,
    Row,
    is_scalar,
    kind_of,
    print_csv,
    read_rows,
    to_json,
    write_table,
)
from anyformer.saving.atomic import PART
from anyformer.saving.run_lock import locked
from anyformer.tasks.base.task import Task


def write_predictions(
    run: str | Path,
    task: Task,
    source: Source,
    output: Path,
    options: Any = None,
    *,
    id_column: str | None = None,
    skip: bool = False,
) -> int:
    """Predict all records into a table; what a killed call has left in `OUTPUT.parts` is gone on with.

    run: whose model the task is. output: FILE.csv, FILE.jsonl, FILE.json or FILE.parquet.
    id_column: what tells the records apart; their numbers, or files, when left out.
    skip: whether a record that cannot be used has a row with its error; else it ends the call with an InputError, and
        the rows before it stay.
    Returns how many records could not be used. Raises InputError also where the parts that are there are of another
    model, other data or other options.
    """
    whole = kind_of(output) in WITH_JSON
    if os.path.realpath(output) in map(os.path.realpath, source.read_from()):
        raise InputError(f"--output {output} would be written over the data; give another file")
    about = {
        "model": model_state(run),
        "data": state_of(source),
        "options": {"id": id_column, "whole": whole, **_plain(options)},
    }
    with locked(folder_of(output)):
        parts = Parts(output, about)
        if parts.n_begun:
            say(f"{output}: {parts.n_begun:,} of {len(source):,} records were there already; going on")
        _fill(parts, RowsOfSource(task, source, options, id_column=id_column, whole=whole), skip)
        write_table(output, parts.read)
        n_bad = sum(bool(row.get(ERROR)) for row in parts.read())
        parts.remove()
    return n_bad


def _plain(options: Any) -> dict[str, Any]:
    return asdict(options) if is_dataclass(options) and not isinstance(options, type) else {}


def _fill(parts: Parts, rows: RowsOfSource, skip: bool) -> None:
    """Predict what is not there yet."""
    n, progress = len(rows.source), Progress(len(rows.source), parts.n_begun)
    if skip:
        rows.failed = progress.say
    try:
        for each in rows.after(parts.n_begun):
            parts.add(each)
            progress.add()
    except MachineError:
        raise
    except InputError as error:
        progress.close()
        kept = f"; {progress.done:,} of {n:,} records are done, in {parts.folder}" if progress.done else ""
        raise type(error)(f"{error}{kept}; --on_bad_sample skip goes on, and says in its row what is wrong") from None
    finally:
        # Whatever ends it, what is done is kept.
        progress.close()
        parts.flush()


def print_predictions(rows: RowsOfSource, as_json: bool, skip: bool) -> int:
    """Print the predictions of all records as they come, CSV or a JSON object a line; `skip` as for
    `write_predictions`. Returns how many records could not be used."""
    # Where the table goes to the terminal, a bar would stand in its middle.
    progress = Progress(len(rows.source), shown=not sys.stdout.isatty())
    bad: list[str] = []
    if skip:
        rows.failed = lambda line: (bad.append(line), progress.say(line))[0]

    def every() -> Iterator[Row]:
        for several in rows.after():
            yield from several
            progress.add()

    try:
        if as_json:
            for row in every():
                print(to_json(row), flush=True)
        else:
            _print_csv(every(), has_errors=skip)
    finally:
        progress.close()
        sys.stdout.flush()
    return len(bad)


def _print_csv(rows: Iterator[Row], has_errors: bool) -> None:
    held: list[Row] = []
    for row in rows:
        held.append(row)
        # Only a result tells the columns.
        if ERROR not in row:
            break
    columns = dict.fromkeys(name for row in reversed(held) for name in row if name != ERROR)
    print_csv(chain(held, rows), sys.stdout, [*columns, *([ERROR] if has_errors else [])])


PREDICTIONS = "predictions"
"""The name of the table of an evaluation, without its ending."""


def keep_predictions(task: Task, source: Source, folder: Path, skip: bool = False) -> Path | None:
    """Write the predictions of an evaluation's records into a run's folder, in place of those before: predictions.csv,
    or predictions.jsonl where values are no numbers and texts. Returns its path; None where the task has none to show.

    skip: as for `write_predictions`.
    """
    if not task.shows_predictions:
        return None
    failed = (lambda line: None) if skip else None
    progress = Progress(len(source))
    own = task.rows_of_test(source)
    rows = RowsOfSource(task, source, failed=failed).after() if own is None else ([row] for row in own)
    spool = folder / f"{PREDICTIONS}{PART}"
    are_scalars = True
    try:
        with writing(spool):
            folder.mkdir(exist_ok=True)
            with open(spool, "w", encoding="utf-8") as file:
                for several in rows:
                    are_scalars &= all(is_scalar(value) for row in several for value in row.values())
                    file.writelines(to_json(row) + "\n" for row in several)
                    progress.add()
        endings = [".csv", ".jsonl"] if are_scalars else [".jsonl", ".csv"]
        output, other = (folder / f"{PREDICTIONS}{ending}" for ending in endings)
        write_table(output, lambda: read_rows(spool))
        other.unlink(missing_ok=True)
    finally:
        progress.close()
        spool.unlink(missing_ok=True)
    return output
