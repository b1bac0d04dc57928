"""Text as n-grams: each character or word as a token that also says what stands before it, without a vocabulary."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import nn

from anyformer.errors import InputError
from anyformer.model.lifts import SummedLookup
from anyformer.tokens import Tokenizer, TokenSet

WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class NGrams(Tokenizer):
    """Cuts a text that is read into its characters or words, each with the n-grams that end there.

    The content of a token is (n,) ids: of its 1-gram, 2-gram, ..., n-gram, each hashed to a row of one table, whose
    vectors are summed (fastText, Bojanowski et al. 2017, 3.2; as the input of a transformer BLT, Pagnoni et al. 2024,
    3.2.1). At the beginning an n-gram is as long as the text before it allows. From a thousand records a transformer
    learns more of these than of single characters, whose motifs it has to find first. They cannot be written: hashing
    has no inverse.
    """

    n: int = 4
    """The longest n-grams."""
    unit: Literal["characters", "words"] = "characters"
    """What they are made of; of words, punctuation marks are words of their own and spaces nothing."""
    n_buckets: int = 8192
    """Rows of the table. Two n-grams of one hash share a vector."""
    dropout: float = 0.0
    """Share of the tokens that are left out of a training sample, at random."""
    max_len: int = 512
    """Tokens at the most: so far do learned positions reach. A longer text is an error."""

    axes: ClassVar[tuple[str, ...]] = ("word",)

    def __post_init__(self) -> None:
        for name in ("n", "n_buckets", "max_len"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout must be from 0 to below 1, got {self.dropout}")

    @property
    def sizes(self) -> dict[str, int]:
        return {"word": self.max_len}

    @property
    def augments(self) -> bool:
        return self.dropout > 0

    def encode(self, record: str, random: np.random.Generator | None = None) -> TokenSet:
        """record: the text. Raises InputError for what is none, and for one that is too long."""
        units = self._cut(record)
        content = torch.tensor(
            [[self._hash(units[max(i - n, 0) : i + 1], n) for n in range(self.n)] for i in range(len(units))],
            dtype=torch.int64,
        ).view(-1, self.n)
        position = torch.arange(len(units))[:, None]
        if random is None or not self.dropout:
            return TokenSet(content, position)
        kept = random.random(len(units)) >= self.dropout
        # One stays, of a text that has any.
        kept[random.integers(len(units)) if len(units) else []] = True
        kept = torch.from_numpy(kept)
        return TokenSet(content[kept], position[kept])

    def count(self, record: str) -> int:
        return len(self._cut(record))

    def empty(self) -> TokenSet:
        return TokenSet(torch.zeros(0, self.n, dtype=torch.int64), torch.zeros(0, 1, dtype=torch.int64))

    def lift(self, d_model: int) -> nn.Module:
        return SummedLookup(self.n_buckets, d_model)

    def _cut(self, record: str) -> list[str]:
        if not isinstance(record, str):
            raise InputError(f"a text must be a string, got {type(record).__name__}")
        units = list(record) if self.unit == "characters" else WORD.findall(record)
        if len(units) > self.max_len:
            raise InputError(f"the text has {len(units)} {self.unit}, more than max_len={self.max_len}; raise max_len")
        return units

    def _hash(self, units: list[str], n: int) -> int:
        # Not Python's own hash, which differs between processes. With n, as one at the beginning may be shorter.
        return zlib.crc32("\0".join(units).encode("utf-8", "surrogatepass"), n) % self.n_buckets
