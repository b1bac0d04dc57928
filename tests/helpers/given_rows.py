"""A source of records as they are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from anyformer.data.source import Source


class Rows(Source):
    """Counts how often each is read."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self.rows, self.n_read = rows, [0] * len(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        self.n_read[i] += 1
        return self.rows[i]

    def column(self, name: str) -> list[Any]:
        return [row.get(name) for row in self.rows]

    def name(self, i: int) -> str:
        return f"row {i}"
