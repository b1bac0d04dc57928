"""The records that are to be predicted or embedded: at a path, read as the run reads its own; and what says that they
are the same when a prediction goes on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from anyformer.data.files import file_stamp, find_file, is_folder
from anyformer.data.folders import Folders
from anyformer.data.source import Joined, Source
from anyformer.data.tables import Table, is_table
from anyformer.errors import InputError, say_once
from anyformer.parsing.instantiate import instantiate
from anyformer.runs.averaging.config import read_config
from anyformer.saving.fingerprint import fingerprint
from anyformer.saving.manifest import MANIFEST
from anyformer.saving.model_folder import model_folder
from anyformer.saving.run_folder import split_run
from anyformer.tasks.base.task import Task
from anyformer.tokenizers.text.corpus import Corpus


def run_source(run: str | Path, task: Task, unsafe: Sequence[str] = ()) -> Source | None:
    """The training records of a run, as its config.yaml says, of which nothing is read; the first of several sources.

    None for a run that has no config.yaml, as one that was trained from Python.
    """
    folder, member = split_run(run)
    config = read_config(folder)
    data = None if config is None else config.get("data")
    if member and data is not None:
        data = data["init_args"]["parts"][member]
    given = (data or {}).get("train")
    given = given[0] if isinstance(given, list) and given else given
    if isinstance(given, dict):
        return instantiate(given, unsafe)
    return task.open(given) if isinstance(given, str) else None


def open_data(places: Sequence[str], task: Task, like: Source | None, id_column: str | None = None) -> Source:
    """The records to predict, see `open_records`, all of whose fields must be there.

    id_column: of the data, which is read too.
    """
    made = open_records(places, task, like, task.inputs)
    if id_column is not None:
        made = _with_column(made, id_column)
    _say_lost(places, task, like, made)
    return made


def open_records(places: Sequence[str], task: Task, like: Source | None, needed: Collection[str]) -> Source:
    """The records of files or folders, read as those of `like` are; where they are of another kind, as their names say.

    needed: the fields that must be there.
    Raises InputError for a place that is not there, has not these fields, or has no records.
    """
    made = None if like is None else like.at(places, needed)
    if made is None:
        each = [_open(place, task) for place in places]
        made = each[0] if len(each) == 1 else Joined(tuple(each))
    if isinstance(made, Corpus) and made.split is not None and getattr(like, "split", None) is None:
        say_once(f"{', '.join(places)}: each line that is not empty is a record; for whole files give a folder of them")
    if not len(made):
        raise InputError(f"{', '.join(places)}: there are no records")
    return made


def _say_lost(places: Sequence[str], task: Task, like: Source | None, made: Source) -> None:
    """Say which true values the run's records have and these have not."""
    before, now = (getattr(source, "columns", None) for source in (like, made))
    known = isinstance(before, dict) and isinstance(now, dict)
    if known and (lost := [name for name in task.truths if name in before and name not in now]):
        say_once(f"{', '.join(places)}: has no {', '.join(lost)}: no true values stand beside the predictions")


def _open(place: str, task: Task) -> Source:
    """What a path says by itself: files of the one field that reads files, or whatever the task opens."""
    if not task.inputs:
        return task.open(place)
    if "=" in place and place.partition("=")[0] in task.inputs and not os.path.exists(place):
        raise InputError(f"{place}: --data takes paths; leave the field out, or give fields alone")
    found = find_file(place)
    reading = [name for name in task.inputs if task.tokenizers[name].reads_files]
    if len(reading) != 1 or not is_folder(found) or is_table(found):
        made = task.open(place)
        if isinstance(made, Corpus):
            return made.at([place], task.inputs) or made
        if isinstance(made, Folders) and not reading:
            raise InputError(f"{place} is a folder, and the model reads no files; give a table")
        if isinstance(made, Table):
            made.require_any(task.inputs)
        return made
    return Folders(place, {reading[0]: "file"}, tuple(task.tokenizers[reading[0]].endings))


def _with_column(source: Source, name: str) -> Source:
    """The same records with one more column, by its own name."""
    if isinstance(source, Joined):
        return Joined(tuple(_with_column(each, name) for each in source.sources))
    columns = getattr(source, "columns", None)
    if not isinstance(columns, dict) or name in columns:
        return source
    return replace(source, columns={**columns, name: name})  # type: ignore[type-var]


def state_of(source: Source) -> dict[str, Any]:
    """What changes whenever the records may have: how they are read, and the versions of the files that hold them."""
    if isinstance(source, Joined):
        return {"sources": [state_of(each) for each in source.sources]}
    read = {each.name: repr(getattr(source, each.name)) for each in fields(source)} if is_dataclass(source) else {}
    files = [(file, *file_stamp(file)) for file in source.read_from()]
    held = hashlib.sha256(json.dumps(files).encode()).hexdigest() if files else fingerprint(source, [])
    return {"class": type(source).__name__, "arguments": read, "files": held}


def model_state(run: str | Path) -> str:
    """What changes whenever the model of a run does, or another task of a mixture is meant.

    The base of an adapter is in it too, by the hash in the adapter's folder, wherever the base lies.
    """
    folder, member = split_run(run)
    return hashlib.sha256((model_folder(folder) / MANIFEST).read_bytes() + member.encode()).hexdigest()
