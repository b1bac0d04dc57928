"""Multi-query associative recall (MQAR), made in the run: Arora et al. 2023, "Zoology", appendix C."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from anyformer.errors import InputError
from anyformer.tokenizers.synthetic.parts import DrawnParts, Part

FIRST_LETTER = 0x100
"""Symbol i is the letter of this code point + i: Latin Extended, of which each is a letter up to 256."""
MOST_SYMBOLS = 256


@dataclass(frozen=True)
class AssociativeRecall(DrawnParts):
    """Pairs of a key and a value, then the keys again at other places, at each of which its value is to be recalled.

    Columns: symbols, a text of `length` letters of an alphabet of `vocabulary`; values, a list of the value of each
    place, None where nothing is to be recalled. Keys are of the first half of the alphabet and values of the second;
    no key comes twice among the pairs. Keys are repeated at even places behind the pairs, of which near ones are
    likelier by a power law of exponent `power` - 1; all other places there hold letters drawn from the whole alphabet.
    A record is a function of part, seed and number, and none is in two parts. Raises InputError for no records, and
    for what has no room.
    """

    part: Part = "train"
    """Which records."""
    n: int = 20_000
    """How many."""
    length: int = 64
    """Symbols of a record; an even number."""
    vocabulary: int = 256
    """Letters of the alphabet; an even number."""
    n_pairs: int = 8
    """Pairs of a key and a value, each of which is asked for once."""
    power: float = 0.01
    """The smaller, the likelier a key comes again soon; with 1 all places are alike."""
    seed: int = 0
    """Draws them."""

    def __post_init__(self) -> None:
        if self.n < 1:
            raise InputError(f"n must be at least 1, got {self.n}")
        if self.n_pairs < 1:
            raise InputError(f"n_pairs must be at least 1, got {self.n_pairs}")
        if self.length % 2 or self.length < 4 * self.n_pairs:
            raise InputError(
                f"length must be even and at least {4 * self.n_pairs}, for {self.n_pairs} pairs and as many places to "
                f"ask for them, got {self.length}"
            )
        if self.vocabulary % 2 or not 2 * self.n_pairs <= self.vocabulary <= MOST_SYMBOLS:
            raise InputError(
                f"vocabulary must be even, at least {2 * self.n_pairs} for {self.n_pairs} keys, and at most "
                f"{MOST_SYMBOLS}, got {self.vocabulary}"
            )
        if not 0 < self.power <= 1:
            raise InputError(f"power must be above 0 and at most 1, got {self.power}")

    def draw(self, random: np.random.Generator) -> tuple[str, dict[str, Any]]:
        half, begin = self.vocabulary // 2, 2 * self.n_pairs
        symbols = random.integers(self.vocabulary, size=self.length)
        keys = random.choice(half, self.n_pairs, replace=False)
        values = half + random.choice(half, self.n_pairs, replace=False)
        symbols[0:begin:2], symbols[1:begin:2] = keys, values
        n_places = (self.length - begin) // 2
        chances = np.arange(1, n_places + 1) ** (self.power - 1)
        places = begin + 2 * random.choice(n_places, self.n_pairs, replace=False, p=chances / chances.sum())
        symbols[places] = keys
        asked: list[str | None] = [None] * self.length
        for place, value in zip(places.tolist(), values.tolist(), strict=True):
            asked[place] = letter(value)
        text = "".join(map(letter, symbols.tolist()))
        return text, {"symbols": text, "values": asked}

    def name(self, i: int) -> str:
        return f"associative recall, {self.part} record {i}"


def letter(symbol: int) -> str:
    """How a symbol is written."""
    return chr(FIRST_LETTER + symbol)
