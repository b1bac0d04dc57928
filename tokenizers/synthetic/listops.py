"""ListOps: nested operations on lists of digits, made in the run (Nangia & Bowman 2018)."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

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
NESTED = 0.25
"""The chance that an argument is a list itself, as in Long Range Arena (Tay et al. 2021)."""


@dataclass(frozen=True)
class ListOps(DrawnParts):
    """Nested operations on digits, such as `[MAX 2 9 [MIN 4 7 ] 0 ]`, whose value is to be found.

    Columns: expression, a text of symbols with a space between, `[MAX` and `]` one each; value, "0" to "9"; depth, how
    many lists lie one in another at most. What an expression is has the chances of Long Range Arena's ListOps, those
    of a length outside the limits left out. A record is a function of part, seed and number, and no expression is in
    two parts. Raises InputError for no records, and for limits that no expression keeps.
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

    least: ClassVar[int] = 4
    """Symbols of the shortest expression."""

    def __post_init__(self) -> None:
        for name, least in (("n", 1), ("max_depth", 1), ("max_args", 2), ("max_len", self.least)):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least}, got {getattr(self, name)}")
        # Few lists that are not nested are longer, and with two arguments each none is.
        most = min(self.max_len, 2 + self.max_args)
        if self.min_len > (self.max_len if self.max_depth > 1 else most):
            raise InputError(f"min_len must be at most {most}, with max_len and max_args as they are, got {self.min_len}")

    def draw(self, random: np.random.Generator) -> tuple[str, dict[str, Any]]:
        while True:
            symbols: list[str] = []
            value, depth = self._draw_list(random, symbols, 1)
            if self.min_len <= len(symbols) <= self.max_len:
                text = " ".join(symbols)
                return text, {"expression": text, "value": str(value), "depth": depth}

    def _draw_list(self, random: np.random.Generator, symbols: list[str], depth: int) -> tuple[int, int]:
        """Append the symbols of a list. Returns its value, and how deep it goes."""
        name = list(OPERATIONS)[random.integers(len(OPERATIONS))]
        symbols.append(f"[{name}")
        digits, deepest = [], depth
        for _ in range(random.integers(2, self.max_args + 1)):
            # What is too long already is thrown away: it need not grow further.
            if depth < self.max_depth and len(symbols) <= self.max_len and random.random() < NESTED:
                digit, inner = self._draw_list(random, symbols, depth + 1)
                deepest = max(deepest, inner)
            else:
                digit = int(random.integers(10))
                symbols.append(str(digit))
            digits.append(digit)
        symbols.append("]")
        return OPERATIONS[name](digits), deepest

    def name(self, i: int) -> str:
        return f"ListOps, {self.part} record {i}"
