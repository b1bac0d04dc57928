"""Class and register tokens: a field of their own, the same in every sample, without a record."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from anyformer.tokens import Tokenizer, TokenSet


@dataclass(frozen=True)
class LearnedTokens(Tokenizer):
    """Tokens that carry no data but a learned vector each: class tokens, registers, queries.

    They take part as a field of their own, of the highest order in their sample, so that they see it all and, in a
    causal sample, nothing sees them.
    """

    n: int = 1
    """How many."""
    placed: bool = False
    """Whether each also has a position, on the axis `slot` (a ViT whose class token has a position embedding)."""

    @property
    def axes(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("slot",) if self.placed else ()

    @property
    def sizes(self) -> dict[str, int]:
        return {"slot": self.n} if self.placed else {}

    def encode(self, record: None = None, random: np.random.Generator | None = None) -> TokenSet:
        slot = torch.arange(self.n)
        return TokenSet(slot, slot[:, None] if self.placed else None)

    def empty(self) -> TokenSet:
        return TokenSet(torch.zeros(0, dtype=torch.int64), torch.zeros(0, len(self.axes), dtype=torch.int64))

    def lift(self, d_model: int) -> nn.Module:
        from anyformer.model.lifts import Lookup

        return Lookup(self.n, d_model)
