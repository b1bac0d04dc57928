"""Questions about pictures, made in the run from the handwritten digits of scikit-learn. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from anyformer.data.source import Source
from anyformer.errors import InputError
from anyformer.tokenizers.image.sources import PARTS, digits_of


def _greater(one: int, other: int) -> str:
    return "left" if one > other else "right" if other > one else "neither"


QUESTIONS: dict[str, tuple[str, Callable[[int, int], str]]] = {
    "left": ("what is on the left?", lambda left, right: str(left)),
    "right": ("what is on the right?", lambda left, right: str(right)),
    "larger": ("which is larger?", _greater),
    "smaller": ("which is smaller?", lambda left, right: _greater(right, left)),
    "same": ("are they the same?", lambda left, right: "yes" if left == right else "no"),
    "sum": ("what is their sum?", lambda left, right: str(left + right)),
    "difference": ("how far are they apart?", lambda left, right: str(abs(left - right))),
}
"""By kind: the words, and the answer for two digits."""


@dataclass(frozen=True)
class DigitQuestions(Source):
    """Two pictures of digits and a question about them in words.

    Columns: left and right, (8, 8) uint8, white on black; question; answer; kind, one of `QUESTIONS`. The pictures of
    validation, a fifth of each digit's, occur in training nowhere. Kinds are equally likely, and so are the digits but
    where it is asked whether they are the same: then half of them are. A record is a function of part, seed and number.
    Raises InputError for no records, or an unknown part or kind.
    """

    part: Literal["train", "validation"] = "train"
    """Which pictures."""
    n: int = 20_000
    """How many questions."""
    kinds: tuple[str, ...] = tuple(QUESTIONS)
    """What is asked."""
    seed: int = 0
    """Draws pictures and questions."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "kinds", tuple(self.kinds))
        if self.n < 1:
            raise InputError(f"n must be at least 1, got {self.n}")
        if not self.kinds or set(self.kinds) - set(QUESTIONS):
            raise InputError(f"kinds must be some of {', '.join(QUESTIONS)}, got {', '.join(self.kinds) or 'none'}")

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> dict[str, Any]:
        random = np.random.default_rng((self.seed, PARTS.index(self.part), range(self.n)[i]))
        kind = self.kinds[random.integers(len(self.kinds))]
        left, right = random.integers(10, size=2).tolist()
        if kind == "same" and random.random() < 0.5:
            right = left
        question, answer = QUESTIONS[kind]
        return {
            "left": self._picture(left, random),
            "right": self._picture(right, random),
            "question": question,
            "answer": answer(left, right),
            "kind": kind,
        }

    def name(self, i: int) -> str:
        return f"digit questions, {self.part} record {i}"

    def _picture(self, digit: int, random: np.random.Generator) -> np.ndarray:
        pictures, places = digits_of(self.part)
        own = places[str(digit)]
        return pictures[int(own[random.integers(len(own))])]["image"]
