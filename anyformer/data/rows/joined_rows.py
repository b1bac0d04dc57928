"""The rows of several files, one after another: the parts of one table, as Spark and Dask write it into a folder."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate
from typing import Any

from anyformer.data.rows.rows import Rows


class JoinedRows(Rows):
    """Parts of which each has the columns that are asked for."""

    def __init__(self, path: str, parts: Sequence[Rows]) -> None:
        self.path, self.parts = path, parts
        self._first = [0, *accumulate(map(len, parts))]

    def __len__(self) -> int:
        return self._first[-1]

    def __getitem__(self, i: int) -> dict[str, Any]:
        part = bisect_right(self._first, i) - 1
        return self.parts[part][i - self._first[part]]

    def select(self, names: Sequence[str], start: int, stop: int) -> Iterator[tuple[Any, ...]]:
        for part, first in zip(self.parts, self._first, strict=False):
            begin, end = max(start - first, 0), min(stop - first, len(part))
            if begin < end:
                yield from part.select(names, begin, end)

    def columns(self) -> Collection[str]:
        return dict.fromkeys(name for part in self.parts for name in part.columns())

    def require(self, names: Collection[str]) -> None:
        for part in self.parts:
            part.require(names)
