"""The vectors of a task: what its model makes of records, before any head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Literal

import numpy as np

from anyformer.errors import InputError, suggest
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.model.vectors import Pooling, VectorConfig, pooled_vectors, token_vectors
from anyformer.tasks.base.given import read_records
from anyformer.tokens import Sample, Tokenizer, expand


class Embedder(ABC):
    """A task that gives the hidden vectors of records; by `samples_of` it says what its model reads of one."""

    model: Anyformer | None
    transformer: TransformerConfig
    tokenizers: dict[str, Tokenizer]

    @property
    @abstractmethod
    def inputs(self) -> list[str]: ...

    @abstractmethod
    def _undefined(self, hook: str, instead: str = "") -> InputError: ...

    default_pool: Pooling = "mean"
    """How `embed` makes one vector of a record where nothing is said."""
    normalizes: bool = False
    """Whether the vectors of `embed` have length 1 where nothing is said."""
    class_field: str | None = None
    """The field of the model whose first token stands for the whole record; None where there is no such token."""

    @property
    def embedded_fields(self) -> list[str]:
        """The fields of the model whose tokens `embed` reads."""
        return list(expand({name: self.tokenizers[name] for name in self.inputs}))

    def embed(
        self,
        records: Any,
        *,
        layer: int = -1,
        pool: Pooling | Literal["tokens"] | None = None,
        field: str | None = None,
        normalize: bool | None = None,
        batch_size: int = 64,
    ) -> Any:
        """The hidden vectors of records, of the stack that reads them: the encoder, where there is one.

        records: as `predict` takes them, with any of the fields.
        layer: 0 is what the first block reads, n is behind the n-th block, -1 behind the last and the final norm.
        pool: mean of the tokens of the fields; class: the token that stands for the whole record; last: the last token,
            which alone has seen all where tokens see none behind them; tokens: those of all tokens. What the model's
            folder or head says when left out, else mean.
        field: the one whose tokens are read; they have seen those of the others.
        normalize: whether vectors are divided by their length; as the model's folder says when left out, else not.
        batch_size: records that are held at once.
        Returns (records, d) float32; with tokens a list of a dict by field, (tokens, d) float32 each. Of one record
        that stands alone, its own.
        Raises InputError for a record that cannot be used, and for what the model does not have.
        """
        config = self.vector_config(layer, pool, field, normalize)
        given, is_one = self.records_to_embed(records)
        self.eval()
        found: list[Any] = [] if pool == "tokens" else [np.zeros((0, self.transformer.d_model), np.float32)]
        rest, n = iter(given), 0
        while samples := [self.samples_of(record) for record in islice(rest, batch_size)]:
            for i, own in enumerate(samples, n):
                if not any(len(sample.get(name, ())) for sample in own for name in config.read):
                    which = "the record" if is_one else f"record {i}"
                    raise InputError(f"{which} has nothing in {', '.join(config.read)}, which is to be read")
            if pool == "tokens":
                found += token_vectors(self.model, samples, config)
            else:
                found.append(pooled_vectors(self.model, samples, config))
            n += len(samples)
        vectors = found if pool == "tokens" else np.concatenate(found)
        return vectors[0] if is_one else vectors

    def vector_config(
        self, layer: int, pool: Pooling | Literal["tokens"] | None, field: str | None, normalize: bool | None
    ) -> VectorConfig:
        """What `embed` reads. Raises InputError for a field, a layer or a class token that the model does not have."""
        if type(self).samples_of is Embedder.samples_of:
            raise self._undefined("embed")
        if self.model is None:
            raise InputError("the task has no weights yet; fit it, or load a run")
        # A class token is none of a field's.
        fields, pool = self.embedded_fields, pool or (self.default_pool if field is None else "mean")
        if field is not None:
            parts = [name for name in fields if name == field or name.startswith(f"{field}.")]
            if not parts:
                raise InputError(f"field: there is no field {field!r}{suggest(field, fields)}")
            if pool == "class":
                raise InputError("pool: class is of whole records; leave field out, or take mean, last or tokens")
            fields = parts
        if pool == "class" and self.class_field is None:
            raise InputError("pool: the model has no class token; take mean, last or tokens")
        config = VectorConfig(
            layer, pool, tuple(fields), self.class_field, self.normalizes if normalize is None else normalize
        )
        config.n_blocks(self.model)
        return config

    def records_to_embed(self, given: Any) -> tuple[Iterable[dict[str, Any]], bool]:
        """The records that `embed` is given, and whether it is one that stands alone."""
        return read_records(self, given)

    def samples_of(self, record: Mapping[str, Any]) -> list[Sample]:
        """What the model reads of a record as token sets: one sample, or several where it is longer than it takes.

        Raises InputError for one that cannot be used.
        """
        raise self._undefined("embed")
