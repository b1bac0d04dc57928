"""What names the records of a source: the facts of its files, which cost nothing, or a hash of some of its columns."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import numpy as np

from anyformer.data.files import file_stamp, find_file
from anyformer.data.rows.opening import table_files
from anyformer.data.source import Joined, Pick, Source, Subset
from anyformer.data.tables import Table
from anyformer.errors import InputError


def identity(source: Source) -> Any:
    """What changes whenever the records may have changed, as plain values, of a table and of parts of it.

    None where nothing but the records themselves says it. Nothing is read: a file is known by its path, size, times
    and inode, one in a zip by those of the zip.
    """
    if isinstance(source, Joined):
        parts = [identity(part) for part in source.sources]
        return None if None in parts else ["Joined", *parts]
    if isinstance(source, Subset | Pick):
        inner = identity(source.source)
        if inner is None:
            return None
        if isinstance(source, Subset):
            return ["Subset", inner, hashlib.sha256(np.ascontiguousarray(source.indices)).hexdigest()]
        return ["Pick", inner, _plain_fields(source, leave_out=("source",))]
    if type(source) is Table:
        place = os.path.abspath(find_file(source.path))
        files = [[os.path.basename(file), *file_stamp(file)] for file in table_files(place)]
        return ["Table", place, files, _plain_fields(source, leave_out=("path",))]
    return None


def _plain_fields(source: Any, leave_out: Iterable[str]) -> list[Any]:
    return [repr(getattr(source, each.name)) for each in fields(source) if each.name not in leave_out]


def fingerprint(source: Source, columns: Iterable[str]) -> dict[str, Any]:
    """How many records there are, of which columns, and a hash of the values in some of them, as plain values.

    columns: those that are hashed, where a record has them.
    """
    first = source[0] if len(source) else {}
    hashes = {}
    for name in columns:
        try:
            values = source.known(name)
        except InputError:
            continue  # No record has it.
        digest = hashlib.sha256()
        for value in values:
            digest.update(json.dumps(_spelt(value)).encode() + b"\n")
        hashes[name] = digest.hexdigest()
    return {"rows": len(source), "columns": sorted(map(str, first)), "sha256": hashes}


def _spelt(value: Any) -> str:
    """A value as text that is the same in every process."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape}{hashlib.sha256(np.ascontiguousarray(value)).hexdigest()}"
    return value if isinstance(value, str) else repr(value)


def changed(before: dict[str, Any], now: dict[str, Any]) -> str | None:
    """What differs between two fingerprints, in words; None if nothing does."""
    if before["rows"] != now["rows"]:
        return f"{before['rows']:,} records are now {now['rows']:,}"
    if before["columns"] != now["columns"]:
        return f"the columns {', '.join(before['columns'])} are now {', '.join(now['columns'])}"
    differing = [name for name, digest in before["sha256"].items() if now["sha256"].get(name) != digest]
    return f"the values of {', '.join(differing)} have changed" if differing else None
