"""A chopper of records with one number, for the tests of what goes on around choppers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from anyformer.data.chopper import Chopper
from anyformer.errors import InputError


@dataclass
class Sums:
    """A batch as lists."""

    items: list[tuple[int, float]]
    rows: list[int] | None
    samples: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pairs:
    """Chops a record into its number and a random number; some numbers cannot be used."""

    bad: tuple[int, ...] = ()
    tokenizers: dict = field(default_factory=dict)

    def __call__(self, record: dict[str, Any], random: np.random.Generator | None) -> tuple[int, float]:
        if record["x"] in self.bad:
            raise InputError(f"field 'x': {record['x']} is bad")
        return record["x"], -1.0 if random is None else float(random.random())

    def count(self, record: dict[str, Any]) -> int:
        if record["x"] in self.bad:
            raise InputError(f"field 'x': {record['x']} is bad")
        return 1 + record["x"] % 7

    def collate(self, items: list, rows: list[int] | None = None) -> Sums:
        return Sums(items, rows)

    partner, mix, by = Chopper.partner, Chopper.mix, Chopper.by
