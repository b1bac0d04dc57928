"""What a Python program holds, as a source: lists of records, data frames, datasets of torch and of Hugging Face."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import IterableDataset

from anyformer.data.rows.rows import no_column
from anyformer.data.source import Source
from anyformer.errors import InputError


class PythonRecords(Source):
    """Records of a sequence, or of whatever else gives one by its number; each a dict of fields."""

    checks_itself = ("records",)

    def __init__(self, records: Sequence[Mapping[str, Any]]) -> None:
        """records: read anew whenever one is asked for, so a Dataset of torch may open files then."""
        # Under another name than the argument's: a run's options are compared by what a source keeps of its arguments,
        # and these may be many. How many there are, and what is predicted of them, its fingerprint says.
        self._held = records

    def __len__(self) -> int:
        return len(self._held)

    def __getitem__(self, i: int) -> dict[str, Any]:
        record = self._held[i]
        if not isinstance(record, Mapping):
            raise InputError(
                f"{self.name(i)} must be a dict of fields, got {type(record).__name__}; give {{'image': ..., 'label': "
                "...}, or whatever the fields are called"
            )
        return {name: _plain(value) for name, value in record.items()}

    def name(self, i: int) -> str:
        return f"record {i}"


class FrameRecords(Source):
    """The rows of a DataFrame, read by its columns, which are not copied; None where nothing is."""

    def __init__(self, frame: Any, what: str = "records") -> None:
        """what: begins messages. Raises InputError for columns that are no texts or have the same name."""
        names = list(frame.columns)
        if wrong := [name for name in names if not isinstance(name, str)]:
            raise InputError(f"{what}: the columns of a DataFrame must be texts, got {wrong[0]!r}; rename it")
        if not frame.columns.is_unique:
            twice = frame.columns[frame.columns.duplicated()][0]
            raise InputError(f"{what}: two columns of the DataFrame are called {twice!r}; rename one")
        self._columns = {name: frame[name].array for name in names}
        self._missing = {name: column.isna() for name, column in self._columns.items()}
        self._n = len(frame)

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {name: None if self._missing[name][i] else _plain(column[i]) for name, column in self._columns.items()}

    def name(self, i: int) -> str:
        return f"record {i}"

    def column(self, name: str) -> list[Any]:
        if name not in self._columns:
            raise no_column(self.name(0), name, self._columns)
        values = self._columns[name].tolist()
        missing = self._missing[name]
        return [None if missing[i] else value for i, value in enumerate(values)] if missing.any() else values


def _plain(value: Any) -> Any:
    """A number of numpy's or torch's as one of Python's; all else as it is."""
    return value.item() if isinstance(value, np.generic) or (isinstance(value, Tensor) and value.ndim == 0) else value


def is_frame(value: Any) -> bool:
    """Whether a value is a DataFrame of pandas, which need not be installed."""
    return type(value).__module__.partition(".")[0] == "pandas" and hasattr(value, "columns")


def as_source(value: Any, what: str) -> Any:
    """A source of what a program holds; sources, paths, fractions and None as they are, but a `Path` as its text.

    value: a list of dicts, a DataFrame, a dataset with `len` and numbers (torch's, Hugging Face's), or one that is only
        gone through (a generator, an IterableDataset), which is read into memory at once. A list of sources, paths and
        these is one of the same sources.
    what: begins the message. Raises InputError for all else.
    """
    if value is None or isinstance(value, Source | str | int | float):
        return value
    if isinstance(value, Path):
        return str(value)
    if is_frame(value):
        return FrameRecords(value, what)
    if isinstance(value, list | tuple):
        if value and all(isinstance(each, Mapping) for each in value):
            return PythonRecords(value)
        if nested := next((each for each in value if isinstance(each, tuple)), None):
            raise InputError(
                f"{what}: a record must be a dict of fields, got a tuple of {len(nested)}; give {{'image': ..., "
                "'label': ...}, or whatever the fields are called"
            )
        return [as_source(each, f"{what}.{i}") for i, each in enumerate(value)]
    if not isinstance(value, Mapping | bytes):
        is_numbered = hasattr(value, "__getitem__") and hasattr(value, "__len__") and not hasattr(value, "dtype")
        if is_numbered and not isinstance(value, IterableDataset):
            return PythonRecords(value)
        if isinstance(value, Iterable) and not hasattr(value, "dtype"):
            return PythonRecords(list(value))
    raise InputError(
        f"{what} must be a source, a path, a list of records (dicts of fields), a DataFrame or a dataset of records, "
        f"got {type(value).__name__}"
    )
