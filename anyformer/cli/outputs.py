"""Predicting many records, and writing the results as tables or files.

Knows files and tables; the model is a task's `predict`.
"""

from __future__ import annotations

import csv
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from tqdm import tqdm

from anyformer.cli.records import STANDARD_INPUT, Record
from anyformer.errors import InputError, say
from anyformer.faults import writing
from anyformer.runs.predictions import tables
from anyformer.runs.predictions.tables import ERROR, WITH_JSON, Row, kind_of, to_json
from anyformer.saving.atomic import write_whole


class Outcome(NamedTuple):
    """What came of one record."""

    record: Record
    result: Mapping[str, Any] | None
    """Of `Task.predict`; None where it failed."""
    error: str = ""


def predict_each(
    predict: Callable[[Sequence[Record]], Sequence[Mapping[str, Any]]], records: Sequence[Record], batch_size: int = 64
) -> Iterator[Outcome]:
    """The predictions of the records, batch by batch; a record that cannot be used holds up no other."""
    for start in range(0, len(records), batch_size):
        batch = records[start : start + batch_size]
        try:
            yield from map(Outcome, batch, predict(batch))
        except InputError:
            for record in batch:
                try:
                    yield Outcome(record, predict([record])[0])
                except InputError as error:
                    yield Outcome(record, None, str(error))


def watched(outcomes: Iterable[Outcome], field: str, failed: list[str]) -> Iterator[Outcome]:
    """The same outcomes, with a line on stderr for each that failed, whose name is added to the list."""
    for outcome in outcomes:
        if outcome.result is None:
            name = outcome.record[field]
            name = STANDARD_INPUT if isinstance(name, bytes) else name
            failed.append(name)
            line = outcome.error if name in outcome.error else f"{name}: {outcome.error}"
            tqdm.write(" ".join(line.split()), file=sys.stderr)
        yield outcome


def say_failed(failed: Sequence[str], records: Sequence[Record]) -> None:
    """Raise InputError if some records could not be used."""
    if failed:
        raise InputError(f"{len(failed)} of {len(records)} could not be used")


def write_files(
    task: Any, found: tuple[list[dict[str, Any]], str | None], options: Sequence[Any], output: Path, ending: str
) -> None:
    """Write what comes of each record as a file: of one as `output`, of many into that folder by the records' names.

    task: whose `render` makes the text of a result, as the options ask. found: of `find_records`.
    ending: of the files. Raises InputError where a file would be written twice or cannot be, before anything is
    predicted; and at the end if a record could not be used.
    """
    records, field = found
    if field is None:
        if output.suffix != ending:
            raise InputError(f"--output must end in {ending}, got {output}")
        if not output.parent.is_dir():
            raise InputError(f"--output {output}: there is no folder {output.parent}")
        paths = [output]
    else:
        if not task.tokenizers[field].reads_files:
            raise InputError(f"--output of many lines is a table: FILE.csv, FILE.jsonl or FILE.json, got {output}")
        if output.exists() and not output.is_dir():
            raise InputError(f"--output {output}: of many records it is a folder, and there is a file of that name")
        base = os.path.commonpath([os.path.dirname(record[field]) or "." for record in records])
        paths = [output / Path(os.path.relpath(record[field], base)).with_suffix(ending) for record in records]
        taken: dict[Path, str] = {}
        for record, path in zip(records, paths, strict=True):
            if path in taken:
                raise InputError(f"{taken[path]} and {record[field]} would both be written to {path}; rename one")
            taken[path] = record[field]
    failed: list[str] = []
    empty = []
    outcomes = predict_each(lambda some: task.predict(some, *options), records)
    for outcome, path in zip(watched(outcomes, field or next(iter(records[0])), failed), paths, strict=True):
        if outcome.result is not None:
            if not task.render(outcome.result):
                empty.append(str(path))
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, task.render(outcome.result, *options) + "\n")
    if empty:
        more = f" and {len(empty) - 1:,} more" if len(empty) > 1 else ""
        say(f"{empty[0]}{more}: empty, as the model wrote nothing")
    say_failed(failed, records)


def write_outcomes(
    outcomes: Iterator[Outcome], file: TextIO, as_json: bool, row: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> None:
    """Write outcomes as they come, a line for each.

    as_json: an object a line, of the fields and the result or the error; else CSV: the record's fields, what `row`
        makes of the result, and the error.
    """
    if not as_json:
        _write_csv(outcomes, file, row)
        return
    for outcome in outcomes:
        file.write(to_json(_entry(outcome)) + "\n")


def _entry(outcome: Outcome) -> Row:
    """What JSON holds of an outcome."""
    return {**_named(outcome.record), **({ERROR: outcome.error} if outcome.result is None else outcome.result)}


def _write_csv(
    outcomes: Iterator[Outcome], file: TextIO, row: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> None:
    writer: csv.DictWriter | None = None
    waiting: list[Outcome] = []
    for outcome in outcomes:
        waiting.append(outcome)
        if outcome.result is None and writer is None:
            continue  # Only a result tells the columns.
        if writer is None:
            writer = _begin(file, list(outcome.record | row(outcome.result)))
        for held in waiting:
            writer.writerow({**_named(held.record), **(row(held.result) if held.result else {}), "error": held.error})
        waiting = []
    if waiting:
        writer = _begin(file, list(waiting[0].record))
        writer.writerows({**_named(held.record), "error": held.error} for held in waiting)


def _named(record: Record) -> Record:
    """The record with the name of standard input in the place of what came from there."""
    return {name: STANDARD_INPUT if isinstance(value, bytes) else value for name, value in record.items()}


def _begin(file: TextIO, columns: Sequence[str]) -> csv.DictWriter:
    writer = csv.DictWriter(file, [*columns, "error"], lineterminator="\n")
    writer.writeheader()
    return writer


def check_table(output: Path, as_json: bool) -> None:
    """Raise InputError where a table cannot be written as it was asked for."""
    kind_of(output)
    if as_json:
        raise InputError("--json prints, and --output writes a file: FILE.jsonl for JSON; give one of the two")
    if not output.parent.is_dir():
        raise InputError(f"--output {output}: there is no folder {output.parent}")


def write_table(output: Path, outcomes: Iterable[Outcome], row: Callable[[Any], Mapping[str, Any]]) -> None:
    """Write outcomes as a table, with a column for the error of each; in JSON those that failed have it alone."""
    whole = kind_of(output) in WITH_JSON
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        for outcome in outcomes:
            flat = {} if whole or outcome.result is None else row(outcome.result)
            file.write(to_json(_entry(outcome) if whole else {**_named(outcome.record), **flat, ERROR: outcome.error}))
            file.write("\n")

        def read() -> Iterator[Row]:
            file.seek(0)
            yield from map(json.loads, file)

        tables.write_table(output, read)


def show_metrics(metrics: Mapping[str, float]) -> None:
    width = max(map(len, metrics), default=0)
    for name, value in metrics.items():
        print(f"{name:<{width}}  {value:.4f}" if isinstance(value, float) else f"{name:<{width}}  {value}")
