"""The records that FIELD=VALUE on the command line stands for."""

from __future__ import annotations

import glob
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from anyformer.data.files import count_endings, is_folder, read_lines, say_left_out, survey_files
from anyformer.data.tables import is_table
from anyformer.data.values import spells_values
from anyformer.errors import InputError, say, suggest
from anyformer.tokens import Tokenizer

Record = dict[str, Any]


STANDARD_INPUT = "-"
"""What stands for it as the value of a field."""


def read_fields(fields: Sequence[str], task: Any, run: str) -> dict[str, str]:
    """The values of FIELD=VALUE by field. Raises InputError for what is none, a field that the task does not take, and
    one that is there twice."""
    values: dict[str, str] = {}
    for field in fields:
        name, equals, value = field.partition("=")
        if not equals:
            raise InputError(f"a field is given as FIELD=VALUE, got {field!r}")
        if name in values:
            raise InputError(f"the field {name!r} is given twice; for many files give a folder or a quoted pattern")
        if name not in {*task.inputs, *task.link_columns}:
            where = suggest(name, task.inputs) or "; give its records with --data"
            raise InputError(f"the model of {run} has no field {name!r}{where}")
        values[name] = value
    return values


def find_records(given: Mapping[str, str], tokenizers: Mapping[str, Tokenizer]) -> tuple[list[Record], str | None]:
    """The records that fields with values mean; and, where they are many, the field that differs.

    The value of a field that reads files may be a file; a folder or a zip: all files in it that end as the tokenizer
    says; or a pattern (`*`, `**`, `?`, `[...]`): all files that match and are not hidden. Both come sorted. One field
    may be many, and the others are the same in every record. `-` is standard input: the bytes of a file, where the
    field reads files; else every line of it is a record. So is every line of a file that the value of another field
    names, which one line says.
    Raises InputError for a folder or a pattern without files, for standard input without a line, and for several fields
    that are many.
    """
    if piped := [name for name, value in given.items() if value == STANDARD_INPUT]:
        if len(piped) > 1:
            raise InputError(f"only one field may be standard input (-), got {' and '.join(piped)}")
        (name,) = piped
        if name in tokenizers and tokenizers[name].reads_files:
            return [{**given, name: sys.stdin.buffer.read()}], None
        lines = [line.rstrip("\r\n") for line in sys.stdin]
        if not lines:
            raise InputError(f"field {name!r}: standard input is empty")
        return [{**given, name: line} for line in lines], name
    many: dict[str, Sequence[str]] = {}
    for name, value in given.items():
        if name not in tokenizers:
            continue  # A column that is no field, as of edges.
        if not tokenizers[name].reads_files:
            if os.path.isfile(value):
                many[name] = _lines(name, value)
        elif (files := _files(name, value, tokenizers[name].endings)) is not None:
            many[name] = files
    if len(many) > 1:
        raise InputError(f"only one field may be a folder, a pattern or a file of lines, got {' and '.join(many)}")
    for name, files in many.items():
        return [{**given, name: file} for file in files], name
    return [dict(given)], None


def _lines(name: str, value: str) -> Sequence[str]:
    """The lines of a file. Raises InputError for a table, whose lines are no records, and where there is none."""
    if is_table(value):
        raise InputError(f"field {name!r}: {value} is a table; to predict all its records give --data {value}")
    lines = read_lines(value)
    if not len(lines):
        raise InputError(f"field {name!r}: {value} is empty")
    say(f"{name}: each line of the file {value} is a record; to give its name itself, pipe it in: {name}=-")
    return lines


def _files(name: str, value: str, endings: Sequence[str]) -> list[str] | None:
    """The files of a folder or a pattern; None for anything else."""
    if is_folder(value):
        below, left_out = survey_files(value)
        every = [os.path.join(value, file) for file in below]
        what = (
            f"none of the {len(every)} files in {value} ends in {', '.join(endings)}" if every else f"{value} is empty"
        )
    elif not os.path.lexists(value) and glob.has_magic(value) and not spells_values(value):
        every = sorted(file for file in glob.glob(value, recursive=True) if os.path.isfile(file))
        what, left_out = f"no file matches {value}", Counter[str]()
    else:
        return None
    files = [file for file in every if file.lower().endswith(tuple(endings))]
    if every and not files and not is_folder(value):
        # What else a pattern as wide as `**` matches is left out; where nothing else matches it is told what is wrong.
        return every
    if not files:
        raise InputError(f"field {name!r}: {what}")
    say_left_out(value, left_out + count_endings(set(every) - set(files)))
    return files
