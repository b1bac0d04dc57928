"""`anyformer embed`: the hidden vectors of records, of the best model of a run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from tqdm import tqdm

from anyformer.cli.embed.vector_files import check_target, plain, write_vectors
from anyformer.cli.outputs import Outcome, say_failed, watched
from anyformer.cli.records import STANDARD_INPUT, find_records, read_fields
from anyformer.errors import InputError
from anyformer.front.parsers import embed_parser, require_first
from anyformer.runs.predictions.opening import open_records, run_source
from anyformer.saving.model_folder import load

NAME = "record"
"""What the record that a vector is of is called in what is written."""
AT_ONCE = 64
"""Records that are held in memory, with their vectors."""


class Given(NamedTuple):
    """The records, of which a few at a time are held."""

    n: int
    read: Callable[[int, int], list[dict[str, Any]]]
    """Those from a number up to another. Raises InputError where one cannot be read."""
    name: Callable[[int], str]
    are_files: bool
    """Whether the names are those of files or rows, and no texts."""


def embed_command(args: list[str]) -> None:
    parser = embed_parser()
    require_first("run's folder", "embed RUN", args)
    own = parser.parse_args(args)
    output = None if own.output is None else check_target(own.output)
    if bool(own.fields) == bool(own.data):
        raise InputError("give the record as FIELD=VALUE, or many with --data PATH; one of the two")
    task = load(own.run, unsafe_imports=own.unsafe_imports, base=own.base)
    config = task.vector_config(own.layer, own.pool, own.field, own.normalize)
    given = _from_data(task, own) if own.data else _from_fields(task, own.fields, own.run)
    options = {name: getattr(own, name) for name in ("layer", "pool", "field", "normalize")}
    failed: list[str] = []
    bar = tqdm(embed_each(partial(task.embed, **options), given), total=given.n, file=sys.stderr, disable=None)
    outcomes = watched(bar, NAME, failed)
    if output is None:
        for outcome in outcomes:
            print(json.dumps(plain(outcome, config)), flush=True)
    else:
        write_vectors(output, outcomes, given.n, task.model.transformer.config.d_model, config, given.are_files)
    say_failed(failed, range(given.n))


def embed_each(embed: Callable[[Any], Any], given: Given) -> Iterator[Outcome]:
    """The vectors of each record, a few at a time; one that cannot be used holds up no other, unless it is alone."""
    for start in range(0, given.n, AT_ONCE):
        stop = min(start + AT_ONCE, given.n)
        names = [{NAME: given.name(i)} for i in range(start, stop)]
        try:
            yield from map(Outcome, names, embed(given.read(start, stop)))
        except InputError:
            if given.n == 1:
                raise
            for i, name in enumerate(names, start):
                try:
                    yield Outcome(name, embed(given.read(i, i + 1)[0]))
                except InputError as error:
                    yield Outcome(name, None, str(error))


def _from_fields(task: Any, fields: list[str], run: str) -> Given:
    values = read_fields(fields, task, run)
    records, many = find_records(values, task.tokenizers)
    field = many or next((name for name in values if name in task.tokenizers), None)
    if field is None:
        raise InputError(f"nothing to embed: give {' or '.join(f'{name}=...' for name in task.inputs)}")

    def name_of(i: int) -> str:
        return STANDARD_INPUT if isinstance(records[i][field], bytes) else records[i][field]

    return Given(len(records), lambda start, stop: records[start:stop], name_of, task.tokenizers[field].reads_files)


def _from_data(task: Any, own: Any) -> Given:
    """The records of --data, read as `predict` reads them; of several fields any will do."""
    needed = task.inputs if len(task.inputs) == 1 else ()
    source = open_records(own.data, task, run_source(own.run, task, own.unsafe_imports), needed)

    def read(start: int, stop: int) -> list[dict[str, Any]]:
        return [task.read_record(source, i) for i in range(start, stop)]

    if not read(0, 1)[0]:
        raise InputError(
            f"--data {' '.join(own.data)}: a record has {', '.join(source[0])}, and the model reads "
            f"{', '.join(task.inputs)}; name the columns so"
        )
    return Given(len(source), read, source.name, are_files=True)
