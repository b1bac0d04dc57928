"""Vectors as Parquet and NPZ files, written as they come: no more than a few records are held."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from pyarrow.parquet import ParquetWriter

from anyformer.cli.outputs import Outcome
from anyformer.errors import InputError
from anyformer.model.vectors import VectorConfig
from anyformer.saving.atomic import write_whole

ROWS = 1024
"""Records of a row group of Parquet; of those with a vector a token as many as have `TOKENS`."""
TOKENS = 2**14


def check_target(output: str) -> Path:
    """The file to write. Raises InputError where it cannot be."""
    path = Path(output)
    if path.suffix.lower() not in (".parquet", ".npz"):
        raise InputError(f"--output must end in .parquet or .npz, got {output}")
    if not path.parent.is_dir():
        raise InputError(f"--output {output}: there is no folder {path.parent}")
    return path


def plain(outcome: Outcome, config: VectorConfig) -> dict[str, Any]:
    """A record with its vector, or those of its tokens by field, as lists of numbers; or with what is wrong with it."""
    if outcome.result is None:
        return {**outcome.record, "error": outcome.error}
    if config.pool == "tokens":
        return {**outcome.record, "vectors": {name: own.tolist() for name, own in outcome.result.items()}}
    return {**outcome.record, "vector": outcome.result.tolist()}


def write_vectors(
    path: Path, outcomes: Iterable[Outcome], n: int, d_model: int, config: VectorConfig, named: bool
) -> None:
    """Write the vectors of n records, (d_model,) each, or by field (tokens, d_model).

    Parquet: columns record, vector (or one for each field) and error; a record that could not be used has no vector.
    NPZ: `vectors`, (n, d_model), NaN for such a record; or an array `NUMBER/FIELD` of each record and field. Where
    records are `named`, by files or rows and not by their whole text, `records` has the names.
    """
    write = _write_parquet if path.suffix.lower() == ".parquet" else _write_npz
    write_whole(path, lambda part: write(part, iter(outcomes), n, d_model, config, named))


def _write_parquet(
    path: Path, outcomes: Iterator[Outcome], n: int, d_model: int, config: VectorConfig, named: bool
) -> None:
    vector = pyarrow.list_(pyarrow.float32(), d_model)
    is_pooled = config.pool != "tokens"
    columns = {"vector": vector} if is_pooled else {name: pyarrow.list_(vector) for name in config.fields}
    schema = pyarrow.schema({"record": pyarrow.string(), **columns, "error": pyarrow.string()})
    with ParquetWriter(path, schema) as writer:
        for group in _groups(outcomes):
            names = [_readable(outcome.record["record"]) for outcome in group]
            errors = [None if outcome.result is not None else outcome.error for outcome in group]
            of_field = {
                name: [None if o.result is None else o.result if is_pooled else o.result.get(name) for o in group]
                for name in columns
            }
            arrays = [_nested(values, columns[name], d_model, is_pooled) for name, values in of_field.items()]
            writer.write_table(pyarrow.table([names, *arrays, errors], schema=schema))


def _nested(values: list[np.ndarray | None], kind: Any, d_model: int, is_pooled: bool) -> Any:
    """Arrays as a column, without a Python number for each of theirs."""
    blank = np.zeros((1 if is_pooled else 0, d_model), np.float32)
    every = [blank if value is None else value.reshape(-1, d_model) for value in values]
    flat = pyarrow.array(np.concatenate(every).ravel())
    missing = pyarrow.array([value is None for value in values])
    if is_pooled:
        return pyarrow.FixedSizeListArray.from_arrays(flat, type=kind, mask=missing)
    vectors = pyarrow.FixedSizeListArray.from_arrays(flat, type=kind.value_type)
    offsets = pyarrow.array(np.cumsum([0, *map(len, every)]), pyarrow.int32())
    return pyarrow.ListArray.from_arrays(offsets, vectors, type=kind, mask=missing)


def _groups(outcomes: Iterator[Outcome]) -> Iterator[list[Outcome]]:
    while group := list(islice(outcomes, 1)):
        n_tokens = 0
        for outcome in islice(outcomes, ROWS - 1):
            group.append(outcome)
            if isinstance(outcome.result, Mapping):
                n_tokens += sum(map(len, outcome.result.values()))
            if n_tokens >= TOKENS:
                break
        yield group


def _readable(name: str) -> str:
    """Names of files may hold bytes that are no UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _write_npz(
    path: Path, outcomes: Iterator[Outcome], n: int, d_model: int, config: VectorConfig, named: bool
) -> None:
    names: list[str] = []

    def noted() -> Iterator[tuple[int, Outcome]]:
        for i, outcome in enumerate(outcomes):
            if named:
                names.append(_readable(outcome.record["record"]))
            yield i, outcome

    with zipfile.ZipFile(path, "w") as archive:
        if config.pool == "tokens":
            for i, outcome in noted():
                for name, own in (outcome.result or {}).items():
                    with archive.open(f"{i}/{name}.npy", "w", force_zip64=True) as file:
                        np.lib.format.write_array(file, own, allow_pickle=False)
        else:
            # How many there are is known, so that they need not be held until the header is written.
            header = {"descr": "<f4", "fortran_order": False, "shape": (n, d_model)}
            with archive.open("vectors.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array_header_1_0(file, header)
                for _, outcome in noted():
                    own = np.full(d_model, np.nan) if outcome.result is None else outcome.result
                    file.write(own.astype("<f4").tobytes())
        if named:
            with archive.open("records.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.array(names), allow_pickle=False)
