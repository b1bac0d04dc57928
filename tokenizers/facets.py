"""One record cut in several ways at once: a molecule by its atoms and its symbols, a text by words and characters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from torch import nn

from anyformer.errors import InputError
from anyformer.tokens import Tokenizer, TokenSet


@dataclass(frozen=True)
class Facets(Tokenizer):
    """Cuts every record by each of several tokenizers, whose tokens stand side by side in the sample.

    Each is a field of its own, `smiles.atoms` and `smiles.symbols` of an input `smiles`, which may be left out of
    training samples or of an evaluation like any field; the input is given once.
    """

    cuts: dict[str, Tokenizer]
    """The tokenizers, by what the model calls their fields."""

    def __post_init__(self) -> None:
        if not self.cuts:
            raise InputError("cuts must name at least one tokenizer, got none")
        for name, tokenizer in self.cuts.items():
            if not name or "." in name:
                raise InputError(f"cuts: a name must be a word without a dot, got {name!r}")
            if tokenizer.parts:
                raise InputError(f"cuts.{name}: {type(tokenizer).__name__} cuts a record into several fields itself")

    @property
    def endings(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(dict.fromkeys(ending for tokenizer in self.cuts.values() for ending in tokenizer.endings))

    @property
    def parts(self) -> dict[str, Tokenizer]:
        return self.cuts

    def named(self, field: str) -> Self:
        return replace(self, cuts={name: tokenizer.named(field) for name, tokenizer in self.cuts.items()})

    def encode(self, record: Any, random: np.random.Generator | None = None) -> dict[str, TokenSet]:
        """Raises InputError, with the name of the cut, for a record that one of them cannot use."""
        tokens = {}
        for name, tokenizer in self.cuts.items():
            try:
                tokens[name] = tokenizer.encode(record, random)
            except InputError as error:
                raise InputError(f"{name}: {error}") from error
        return tokens

    def empty(self) -> TokenSet:
        raise NotImplementedError("each of the cuts has its own")

    def lift(self, d_model: int) -> nn.Module:
        raise NotImplementedError("each of the cuts has its own")

    def count(self, record: Any) -> int:
        return sum(tokenizer.count(record) for tokenizer in self.cuts.values())

    def fit(self, records: Iterable[Any]) -> Self:
        """Each of the cuts fitted; the records are held meanwhile, as all of them read them."""
        kept = list(records)
        return replace(self, cuts={name: tokenizer.fit(kept) for name, tokenizer in self.cuts.items()})

    @property
    def takes_columns(self) -> bool:  # type: ignore[override]
        return any(tokenizer.takes_columns for tokenizer in self.cuts.values())

    def reads_column(self, name: str) -> bool:
        return any(tokenizer.reads_column(name) for tokenizer in self.cuts.values())

    def inherit(self, other: Tokenizer) -> Self:
        theirs = dict(self._shared(other))
        return replace(self, cuts={n: t.inherit(theirs[n]) if n in theirs else t for n, t in self.cuts.items()})

    def agree(self, other: Tokenizer, name: str) -> None:
        for part, theirs in self._shared(other):
            self.cuts[part].agree(theirs, f"{name}.{part}")

    def _shared(self, other: Tokenizer) -> Iterator[tuple[str, Tokenizer]]:
        """The other's cuts that have the name of one here."""
        if isinstance(other, Facets):
            yield from ((name, theirs) for name, theirs in other.cuts.items() if name in self.cuts)
