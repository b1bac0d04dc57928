"""Records that are drawn, for training, validation and test: none is in two of them."""

from __future__ import annotations

import zlib
from abc import abstractmethod
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np

from anyformer.data.source import Source
from anyformer.errors import InputError

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = get_args(Part)
HELD_OUT = 16
"""Of so many possible records one is for validation, one for test, and all others are for training."""
MOST_KEPT = 100_000
"""Records that are held once they are drawn, which takes as long as a step of a small model."""
MOST_DRAWS = 10_000
"""Until it is said that there is no such record."""


class DrawnParts(Source):
    """Records of which each is drawn from (seed, part, number) until what it holds is one of the part's.

    Which part a record may be in follows from its text alone, by a checksum, so that no two parts share one, whatever
    their seeds and sizes.
    """

    n: int
    part: Part
    seed: int

    @abstractmethod
    def draw(self, random: np.random.Generator) -> tuple[str, dict[str, Any]] | None:
        """A text that tells the record from all others, and the record; None where what was drawn is not wanted."""

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> dict[str, Any]:
        i = range(self.n)[i]
        if i not in self._drawn:
            record = self._draw(i)
            if len(self._drawn) >= MOST_KEPT:
                return record
            self._drawn[i] = record
        return dict(self._drawn[i])

    @cached_property
    def _drawn(self) -> dict[int, dict[str, Any]]:
        return {}

    def _draw(self, i: int) -> dict[str, Any]:
        random = np.random.default_rng((self.seed, PARTS.index(self.part), i))
        for _ in range(MOST_DRAWS):
            drawn = self.draw(random)
            if drawn is not None and part_of(drawn[0]) == self.part:
                return drawn[1]
        raise InputError(
            f"{self.name(i)}: none in {MOST_DRAWS:,} draws is as wanted and of this part; give wider limits, so that "
            "there are more records"
        )


def part_of(text: str) -> Part:
    """The one part that a record of this text may be in."""
    return {0: "validation", 1: "test"}.get(zlib.crc32(text.encode()) % HELD_OUT, "train")
