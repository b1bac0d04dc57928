"""Any record by the encoder of a trained model: its tokenizer cuts it, all of its layers read it, and a linear map
leads to the joint trunk.

The encoder is part of the model that it is joined to: trained with it, frozen or adapted by the names of its weights,
and saved with it. What it was taken from is opened once, when training begins (`anyformer.tasks.start.encoders`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from anyformer.batch import Batch
from anyformer.choices import Checked, Values
from anyformer.errors import InputError
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.parsing.plain import plain
from anyformer.parsing.rebuild import rebuild
from anyformer.tokens import Tokenizer, TokenSet

EncoderPool = Literal["tokens", "class", "mean", "last"]
UNOPENED = "the model of {} has not been opened; train by anyformer.fit, which does it"


@dataclass(frozen=True)
class EncoderConfig(Values):
    """The part of a trained model that reads one field by itself: what makes it again, without its weights."""

    field: str
    """What the trained model calls the field."""
    tokenizers: dict[str, Tokenizer]
    """Of that field, and of the class and register tokens beside it, if there are any."""
    transformer: TransformerConfig
    """The stack that reads it."""
    embedding: EmbeddingConfig
    """How its content, type and position become a token."""
    causal: bool = False
    """Whether a token sees none behind it (GPT)."""
    class_field: str | None = None
    """The field whose first token stands for the whole record; None where there is none."""
    sees: dict[str, list[str]] | None = None
    """The fields that the tokens of a field may look at; fields not named see everything."""

    def __post_init__(self) -> None:
        # A copy of a config comes without what a tokenizer has been told of its field.
        named = {name: tokenizer.named(name) for name, tokenizer in self.tokenizers.items()}
        object.__setattr__(self, "tokenizers", named)

    @property
    def tokenizer(self) -> Tokenizer:
        return self.tokenizers[self.field]


@dataclass(frozen=True)
class Pretrained(Tokenizer):
    """Reads a field by the whole encoder of a trained model, and gives its outputs to the joint transformer.

    The records are those that the model's own tokenizer takes. Each is encoded by itself, whatever stands beside it in
    a batch; a linear map, which is new, leads from the encoder's width to `d_model`. The encoder is trained along,
    unless `freeze` names its weights, which are called `model.embeddings.lifts.FIELD.encoder.*`.
    """

    source: str
    """The model: a run, `RUN:TASK` of a mixture, or a folder or file of another library, as `init_from` takes it. It is
    read once, when training begins; the run holds all of it then."""
    field: str | None = None
    """The field of that model; may be left out where it has one."""
    pool: EncoderPool = "tokens"
    """tokens: every token of the record gives one, at its position. class, mean, last: the record gives one token
    without a position: the model's class token, the mean of the tokens, or the last of them."""
    options: dict[str, Any] | None = None
    """Arguments of that field's tokenizer that are to be others, as {truncate: true} of a Text or {augment: null} of
    pictures. Those that give its weights another shape are refused."""
    encoder: str | None = None
    """What was found there, as JSON. It travels in the config of a run."""

    together: ClassVar[tuple[tuple[str, ...], ...]] = (("source", "field", "options", "encoder"),)

    def __post_init__(self) -> None:
        if not self.source:
            raise InputError("source must name a run, or a model's folder or file, got none")
        found = None if self.encoder is None else _read_encoder(self.encoder)
        if self.pool == "class" and found is not None and found.class_field is None:
            raise InputError(f"pool: {self.source} has no class token; take mean, last or tokens")
        object.__setattr__(self, "_found", found)

    @property
    def found(self) -> EncoderConfig:
        """What the source was found to be. Raises InputError before it has been opened."""
        if self._found is None:
            raise InputError(UNOPENED.format(self.source))
        return self._found

    @property
    def inner(self) -> Tokenizer:
        """The tokenizer of the source's field. Raises InputError before the source has been opened."""
        return self.found.tokenizer

    def opened(self, encoder: EncoderConfig) -> Self:
        """A copy that holds what the source was found to be."""
        return replace(self, encoder=json.dumps(plain(encoder)))

    # What it says of itself is what the source's tokenizer says; before that is known, as little as can be.

    @property
    def axes(self) -> tuple[str, ...]:  # type: ignore[override]
        return () if self.encoder is None or self.pool != "tokens" else tuple(self.inner.axes)

    @property
    def sizes(self) -> dict[str, int]:
        return {} if self.encoder is None or self.pool != "tokens" else self.inner.sizes

    @property
    def takes_columns(self) -> bool:  # type: ignore[override]
        return self.encoder is not None and self.inner.takes_columns

    @property
    def endings(self) -> tuple[str, ...]:  # type: ignore[override]
        return () if self.encoder is None else tuple(self.inner.endings)

    @property
    def augments(self) -> bool:
        return self.encoder is None or self.inner.augments

    @property
    def inside(self) -> dict[str, Tokenizer]:
        return {} if self.encoder is None else dict(self.found.tokenizers)

    def reads_column(self, name: str) -> bool:
        return self.encoder is None or self.inner.reads_column(name)

    # Records to tokens.

    def encode(self, record: Any, random: np.random.Generator | None = None) -> TokenSet:
        tokens = self.inner.encode(record, random)
        if not len(tokens):
            return self.empty()
        read = tokens.at(torch.arange(len(tokens))) if self.found.causal else tokens
        own = {name: each.encode(None) for name, each in self.inside.items() if name != self.found.field}
        return replace(self._outside(tokens), inside={self.found.field: read, **own})

    def _outside(self, tokens: TokenSet) -> TokenSet:
        """What the joint transformer sees of the source's tokens."""
        if self.pool == "tokens":
            return replace(tokens, relation=None, edges=None)
        n = min(len(tokens), 1)
        return TokenSet(tokens.content, torch.zeros(n, 0, dtype=torch.int64), extent=tokens.extent)

    def empty(self) -> TokenSet:
        return self._outside(self.inner.empty())

    def count(self, record: Any) -> int:
        n = self.inner.count(record)
        return n if self.pool == "tokens" else min(n, 1)

    def lift(self, d_model: int) -> nn.Module:
        return EncoderLift(self.found, self.pool, d_model)

    def decode(self, tokens: TokenSet) -> Any:
        return self.inner.decode(self._read(tokens))

    def show(self, tokens: TokenSet) -> np.ndarray | None:
        return self.inner.show(self._read(tokens))

    def pieces(self, tokens: TokenSet) -> list[str] | None:
        if self.pool != "tokens":
            return [self.pool] * len(tokens)
        return self.inner.pieces(self._read(tokens))

    def _read(self, tokens: TokenSet) -> TokenSet:
        return tokens if tokens.inside is None else tokens.inside[self.found.field]

    # What is learnt, and of which it is a copy.

    def fit(self, records: Iterable[Any]) -> Self:
        """Itself: the source has learnt. Raises InputError where it has not been opened."""
        if self.encoder is None:
            raise InputError(UNOPENED.format(self.source))
        return self

    def is_same(self, other: Tokenizer) -> bool:
        """Whether another is of the same field of the same source."""
        return isinstance(other, Pretrained) and self._origin == other._origin

    @property
    def _origin(self) -> tuple[Any, ...]:
        return self.source, self.field, self.options or {}

    def inherit(self, other: Tokenizer) -> Self:
        return replace(self, encoder=other.encoder) if self.is_same(other) and other.encoder is not None else self

    def agree(self, other: Tokenizer, name: str) -> None:
        if not isinstance(other, Pretrained) or None in (self.encoder, other.encoder):
            return
        if self.found.field != other.found.field or type(self.inner) is not type(other.inner):
            raise InputError(
                f"{name}: not the encoder that the model was trained with, which is that of {self.found.field!r} of "
                f"{self.source}; give that, or call the field otherwise"
            )
        self.inner.agree(other.inner, name)


@lru_cache(maxsize=16)
def _read_encoder(text: str) -> EncoderConfig:
    try:
        return rebuild(json.loads(text), EncoderConfig)
    except ValueError as error:
        raise InputError(f"encoder is what the program writes itself, and is damaged: {error}") from None


class EncoderLift(Checked, nn.Module):
    """Lifts a field by an encoder of its own and a linear map from its width."""

    def __init__(self, config: EncoderConfig, pool: EncoderPool, d_model: int) -> None:
        super().__init__()
        self.field, self.class_field, self.pool = config.field, config.class_field, pool
        self.encoder = Anyformer(config.tokenizers, config.transformer, config.embedding, sees=config.sees)
        self.linear = nn.Linear(config.transformer.d_model, d_model)

    def forward(self, inside: Batch, extents: Sequence[tuple[int, ...]] = ()) -> Tensor:
        """inside: what the encoder reads, a sample for each of the field's. Returns (total tokens, d)."""
        return self.linear(self.encoded(inside))

    def encoded(self, inside: Batch) -> Tensor:
        """The encoder's vectors before the linear map, (total tokens, d of the encoder)."""
        hidden = self.encoder(inside).flatten(0, 1)
        tokens = inside.fields[self.class_field if self.pool == "class" else self.field]
        if self.pool == "tokens":
            return hidden[tokens.index]
        samples = torch.arange(inside.n_samples, device=tokens.sample.device)
        if self.pool == "mean":
            n = torch.bincount(tokens.sample, minlength=inside.n_samples)[:, None]
            total = hidden.new_zeros(inside.n_samples, hidden.shape[1])
            return total.index_add(0, tokens.sample, hidden[tokens.index]) / n
        first = torch.searchsorted(tokens.sample, samples, right=self.pool == "last")
        return hidden[tokens.index[first - int(self.pool == "last")]]
