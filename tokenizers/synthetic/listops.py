"""ListOps: nested operations on lists of digits, made in the run (Nangia & Bowman 2018)."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np

from anyformer.errors import InputError
from anyformer.tokenizers.synthetic.parts import DrawnParts, Part

OPERATIONS: dict[str, Callable[[Sequence[int]], int]] = {
    "MAX": max,
    "MIN": min,
    "MED": lambda digits: int(statistics.median(digits)),
    "SM": lambda digits: sum(digits) % 10,
}
"""By name; the median of an even number of digits is rounded down, and the sum is modulo 10."""
NAMES = tuple(OPERATIONS)
SHORTEST = 4
"""Symbols of a list of two digits."""
NESTED = 0.25
"""The chance that an argument is a list itself, as in Long Range Arena (Tay et al. 2021)."""


@dataclass(frozen=True)
class ListOps(DrawnParts):
    """Nested operations on digits, such as `[MAX 2 9 [MIN 4 7 ] 0 ]`, whose value is to be found.

    Columns: expression, a text of symbols with a space between, `[MAX` and `]` one each; value, "0" to "9"; depth, how
    many lists lie one in another at most. What an expression is has the chances of Long Range Arena's ListOps, those
    of a length outside the limits left out. A record is a function of part, seed and number, and no expression is in
    two parts. Raises InputError for no records and
    for limits that contradict each other, and when it is used for such that hardly any expression keeps.
    """

    part: Part = "train"
    """Which records."""
    n: int = 20_000
    """How many."""
    min_len: int = 10
    """Symbols at the least."""
    max_len: int = 200
    """Symbols at the most."""
    max_depth: int = 10
    """Lists one in another at the most."""
    max_args: int = 10
    """Arguments of a list at the most; there are two at the least."""
    seed: int = 0
    """Draws them."""

    def __post_init__(self) -> None:
        for name, least in (("n", 1), ("max_depth", 1), ("max_args", 2), ("max_len", SHORTEST)):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.min_len > self.max_len:
            raise InputError(f"min_len must be at most max_len, got {self.min_len} and {self.max_len}")

    def draw(self, random: np.random.Generator) -> tuple[str, dict[str, Any]] | None:
        # Python's own draws of single numbers take a tenth of the time of numpy's.
        symbols: list[str] = []
        value, depth = self._draw_list(Random(int(random.integers(2**63))), symbols, 1)
        if not self.min_len <= len(symbols) <= self.max_len:
            return None
        text = " ".join(symbols)
        return text, {"expression": text, "value": str(value), "depth": depth}

    def _draw_list(self, random: Random, symbols: list[str], depth: int) -> tuple[int, int]:
        """Append the symbols of a list. Returns its value, and how deep it goes."""
        name = random.choice(NAMES)
        symbols.append(f"[{name}")
        digits, deepest = [], depth
        for _ in range(random.randint(2, self.max_args)):
            if len(symbols) > self.max_len:
                break  # It is thrown away.
            if depth < self.max_depth and random.random() < NESTED:
                digit, inner = self._draw_list(random, symbols, depth + 1)
                deepest = max(deepest, inner)
            else:
                digit = random.randrange(10)
                symbols.append(str(digit))
            digits.append(digit)
        symbols.append("]")
        return OPERATIONS[name](digits) if digits else 0, deepest

    def name(self, i: int) -> str:
        return f"ListOps, {self.part} record {i}"
