"""The rows of a table in which some values are spelt that stand for none: NA, ?, -999."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from anyformer.data.rows.rows import Rows
from anyformer.data.values import is_absent, name_of


class MissingRows(Rows):
    """Other rows, where None stands in the place of certain values.

    missing: how these are spelt: texts, spaces around them aside, and numbers as `name_of` writes them.
    """

    def __init__(self, rows: Rows, missing: Collection[str]) -> None:
        self.path, self._rows = rows.path, rows
        self._missing = frozenset(text.strip() for text in missing)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {name: self._known(value) for name, value in self._rows[i].items()}

    def select(self, names: Sequence[str], start: int, stop: int) -> Iterator[tuple[Any, ...]]:
        return (tuple(map(self._known, values)) for values in self._rows.select(names, start, stop))

    def columns(self) -> Collection[str]:
        return self._rows.columns()

    def require(self, names: Collection[str]) -> None:
        self._rows.require(names)

    def _known(self, value: Any) -> Any:
        if isinstance(value, str):
            return None if value.strip() in self._missing else value
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and not is_absent(value)
        return None if is_number and name_of(value, "a cell") in self._missing else value
