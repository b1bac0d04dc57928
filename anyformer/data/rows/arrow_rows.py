"""The rows of Arrow tables: those of Parquet files, and of the sets that `datasets` loads.

A value is spelt as the same table spells it as a CSV, where JSON has no kind of its own for it: dates and times, exact
decimals. Numbers and booleans stay what they are, and bytes that are UTF-8 are text.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import pairwise
from typing import IO, Any

import numpy as np

from anyformer.data.files import fill_temporary, open_binary
from anyformer.data.rows.rows import Rows, check_names, check_parts, no_column
from anyformer.errors import InputError
from anyformer.faults import MachineError

BATCH = 2**23
"""Bytes of a Parquet file that are unpacked at once, about."""
FILES = (
    b"RIFF",
    b"FORM",
    b"OggS",
    b"fLaC",
    b"ID3",
    b"GIF8",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"P4",
    b"P5",
    b"P6",
    b"\x93NUMPY",
)
"""What files of pictures and sounds may begin with that could be text; the others never are UTF-8."""


class ArrowRows(Rows):
    """The rows of an Arrow table, in memory or mapped from a file.

    features: what `datasets` says of the columns, {name: {"_type": "ClassLabel", "names": [...]}}: classes come by
        their names, None where they are not known (-1).
    Raises ValueError for the number of a class that has no name.
    """

    def __init__(self, path: str, table: Any, features: Mapping[str, Any]) -> None:
        import pyarrow as pa

        self.path, self._table = path, table
        self._columns: dict[str, tuple[Any, Callable[[Any], Any] | None]] = {}
        for name in table.column_names:
            column, feature = table[name], features.get(name)
            names = feature.get("names") if isinstance(feature, dict) else None
            if names and pa.types.is_integer(column.type):
                self._columns[name] = column, _by_names(column, names, name)
            elif pa.types.is_timestamp(column.type) and column.type.tz is None:
                self._columns[name] = column.cast(pa.int64()), _spelling_of_times(column)
            else:
                self._columns[name] = column, _spelling(column.type)

    def __len__(self) -> int:
        return self._table.num_rows

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {name: self._spell(column[i].as_py, spell, i) for name, (column, spell) in self._columns.items()}

    def _spell(self, read: Callable[[], Any], spell: Callable[[Any], Any] | None, row: int) -> Any:
        try:
            value = read()
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path} row {row}: holds a text that is no UTF-8 ({error.reason})") from None
        return value if spell is None or value is None else spell(value)

    def select(self, names: Sequence[str], start: int, stop: int) -> Iterator[tuple[Any, ...]]:
        for first, end in pairwise([*range(start, stop, 1024), stop]):
            values = [
                [self._spell(value.as_py, spell, row) for row, value in enumerate(column[first:end], first)]
                for column, spell in map(self._columns.__getitem__, names)
            ]
            yield from zip(*values, strict=True)

    def columns(self) -> Collection[str]:
        return self._columns


def _by_names(column: Any, names: Sequence[str], called: str) -> Callable[[int], str | None]:
    import pyarrow.compute

    most = pyarrow.compute.max(column).as_py()
    if most is not None and most >= len(names):
        row = pyarrow.compute.index(column, most).as_py()
        raise ValueError(f"column {called!r} row {row} is class {most} of {len(names)}")
    return lambda number: None if number < 0 else names[number]


def _spelling_of_times(column: Any) -> Callable[[int], str]:
    """As pandas spells the times of a column in a CSV: in the coarsest of days, seconds, ms and us that tells them all.

    Arrow counts them from 1970 in the column's unit.
    """
    unit = column.type.unit
    second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    steps = {"D": 86400 * second, "s": second, "ms": second // 10**3, "us": second // 10**6}
    counts = [np.asarray(chunk.drop_null().cast("int64")) for chunk in column.chunks]
    told = next((kind for kind, step in steps.items() if step and not any((n % step).any() for n in counts)), unit)
    return lambda n: str(np.datetime64(n, unit).astype(f"datetime64[{told}]")).replace("T", " ")


def _spelling(kind: Any) -> Callable[[Any], Any] | None:
    import pyarrow as pa

    kinds = pa.types
    if kinds.is_dictionary(kind):
        return _spelling(kind.value_type)
    if kinds.is_struct(kind):
        parts = {field.name: _spelling(field.type) for field in kind}
        if parts.keys() == {"bytes", "path"}:
            # A picture or a sound as `datasets` keeps it.
            del parts["bytes"]
        parts = {name: part for name, part in parts.items() if part is not None}
        return partial(_spell_parts, parts=parts) if parts else None
    if kinds.is_map(kind):
        inner = _spelling(kind.item_type) or _as_it_is
        return lambda pairs: {str(key): None if value is None else inner(value) for key, value in pairs}
    if kinds.is_nested(kind):
        inner = _spelling(kind.value_type)
        return inner and (lambda values: [None if value is None else inner(value) for value in values])
    if kinds.is_float16(kind) or kinds.is_float32(kind):
        # 0.1, and not the 0.10000000149011612 that is nearest to it: as a CSV of the table has it.
        return lambda value: float(str(np.float32(value)))
    if kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_fixed_size_binary(kind):
        return text_of
    are_plain = (kinds.is_integer, kinds.is_floating, kinds.is_boolean, kinds.is_null, kinds.is_string)
    are_plain += (kinds.is_large_string, kinds.is_string_view)
    return None if any(is_kind(kind) for is_kind in are_plain) else str


def _as_it_is(value: Any) -> Any:
    return value


def _spell_parts(value: Mapping[str, Any], parts: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
    return {name: part if part is None or name not in parts else parts[name](part) for name, part in value.items()}


def text_of(content: bytes) -> str | bytes:
    """Bytes as the text they are. Impala, Hive and old Spark write texts so; what is no text, or a file, stays bytes.

    >>> text_of(b"cat"), text_of(b"RIFF$\\0\\0\\0WAVE"), text_of(b"\\xff\\xd8")
    ('cat', b'RIFF$\\x00\\x00\\x00WAVE', b'\\xff\\xd8')
    """
    if b"\0" in content and content.startswith(FILES):
        return content
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content


class ParquetRows(ArrowRows):
    """The rows of Parquet files that are the parts of one table, unpacked into a file without a name and mapped.

    wanted: the columns that are read of it; all, if None.
    Raises InputError for files that cannot be read, are damaged or have other columns than each other.
    """

    def __init__(self, path: str, files: Sequence[str], wanted: Collection[str] | None = None) -> None:
        self._source = path, files, wanted
        with _reading(path):
            table = _unpack(path, files, wanted)
            super().__init__(path, table, features_of(table))

    def __reduce__(self) -> Any:
        return type(self), self._source


FAILURES = (ValueError, OSError, RuntimeError, TypeError, LookupError)
"""What Arrow raises for a file that is damaged, or none of its own."""


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Turn what Arrow raises while it reads a file into an InputError of one line."""
    try:
        yield
    except InputError:
        raise
    except FAILURES as error:
        raise InputError(f"{path}: cannot be read as PARQUET: {' '.join(str(error).split())[:400]}") from None
    except MemoryError as error:
        raise MachineError(
            f"{path}: there is not enough memory to read it ({' '.join(str(error).split())[:200]}); end what else is "
            "running, write the file with smaller row groups, or copy it anew if it is damaged"
        ) from None


def features_of(table: Any) -> dict[str, Any]:
    """What a Parquet file that `datasets` has written says of its columns."""
    try:
        return json.loads((table.schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}


def _unpack(path: str, files: Sequence[str], wanted: Collection[str] | None) -> Any:
    """Parquet files as one Arrow table, which a row can be read from without its neighbours."""
    import pyarrow.parquet

    with ExitStack() as stack:
        opened = [pyarrow.parquet.ParquetFile(stack.enter_context(open_binary(file))) for file in files]
        return _join(path, opened, files, wanted)


def _join(path: str, opened: Sequence[Any], files: Sequence[str], wanted: Collection[str] | None) -> Any:
    import pyarrow as pa

    for file, parquet in zip(files, opened, strict=True):
        check_names(file, parquet.schema_arrow.names)
    check_parts(files, [parquet.schema_arrow.names for parquet in opened])
    schema = pa.unify_schemas([_plain(parquet.schema_arrow) for parquet in opened], promote_options="permissive")
    if wanted is not None:
        for name in wanted:
            if name not in schema.names:
                raise no_column(path, name, schema.names)
        schema = pa.schema([field for field in schema if field.name in wanted], schema.metadata)

    def unpack(unpacked: IO[bytes]) -> None:
        with pa.ipc.new_file(pa.PythonFile(unpacked, "w"), schema) as writer:
            for file, parquet in zip(files, opened, strict=True):
                for batch in _batches(file, parquet, schema):
                    writer.write_batch(batch)

    with fill_temporary(path, unpack) as unpacked:
        return pa.ipc.open_file(pa.py_buffer(mmap.mmap(unpacked.fileno(), 0, access=mmap.ACCESS_READ))).read_all()


def _plain(schema: Any) -> Any:
    """A schema without dictionaries, of which a file has one for all, and with what the types of others consist of."""
    import pyarrow as pa

    def plain(kind: Any) -> Any:
        kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
        return kind.value_type if pa.types.is_dictionary(kind) else kind

    return pa.schema([field.with_type(plain(field.type)) for field in schema], schema.metadata)


def _batches(path: str, parquet: Any, schema: Any) -> Iterator[Any]:
    """The rows of a file as record batches; what fails is a fault of the file, and not of where they are written to."""
    with _reading(path):
        yield from _read_batches(parquet, schema)


def _read_batches(parquet: Any, schema: Any) -> Iterator[Any]:
    import pyarrow as pa

    there = parquet.schema_arrow.names
    # Arrow takes a point in a name for a way into a struct.
    names = None if any("." in name for name in there) else [name for name in schema.names if name in there]
    groups = [parquet.metadata.row_group(i) for i in range(parquet.metadata.num_row_groups)]
    n = BATCH * parquet.metadata.num_rows // max(sum(group.total_byte_size for group in groups), 1)
    for batch in parquet.iter_batches(min(max(n, 1), 2**16), columns=names, use_threads=False):
        columns = []
        for field in schema:
            column = batch.column(field.name) if field.name in there else pa.nulls(len(batch), field.type)
            column = column.storage if isinstance(column, pa.ExtensionArray) else column
            columns.append(column.cast(field.type))
        yield pa.record_batch(columns, schema=schema)
