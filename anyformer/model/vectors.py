"""Vectors of records: the hidden vectors of a layer, those of all tokens or one a record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from anyformer.batch import Batch
from anyformer.choices import Checked
from anyformer.errors import InputError
from anyformer.model.anyformer import Anyformer
from anyformer.packing import collate, group_by_length
from anyformer.tokens import Sample

Pooling = Literal["class", "mean", "last"]
"""One vector a record: that of the token that stands for all of it, the mean of its tokens, or its last token."""
AT_ONCE = 2**14
"""Tokens that are read at once, padding included."""


@dataclass(frozen=True)
class VectorConfig(Checked):
    """Which vectors are taken."""

    layer: int
    """0: what the first block reads; n: behind the n-th block; -1: behind the last block and the final norm."""
    pool: Pooling | Literal["tokens"]
    fields: tuple[str, ...]
    """Whose tokens are read. They have seen those of the others."""
    class_field: str | None
    """The field whose first token stands for the record; None for none."""
    normalize: bool
    """Whether vectors are divided by their length."""

    def n_blocks(self, model: Anyformer) -> int:
        """How many blocks are run. Raises InputError where there are not so many layers."""
        depth = model.reader.config.depth
        if not -depth - 1 <= self.layer <= depth:
            raise InputError(
                f"layer must be from {-depth - 1} to {depth}, got {self.layer}; 0 is what the first block reads, -1 "
                "the last layer"
            )
        return self.layer % (depth + 1)

    @property
    def read(self) -> tuple[str, ...]:
        """The fields whose tokens make the vector; a record without any has none."""
        return (self.class_field,) if self.pool == "class" and self.class_field else self.fields


@torch.inference_mode()
def pooled_vectors(model: Anyformer, records: Sequence[Sequence[Sample]], config: VectorConfig) -> np.ndarray:
    """One vector a record, (records, d) float32.

    records: the samples of each, several where it is longer than the model takes. The mean is over the tokens of all
        of them, or over their class tokens; the last token is that of the last.
    """
    if config.pool == "last":
        records = [samples[-1:] for samples in records]
    owners = torch.tensor([i for i, samples in enumerate(records) for _ in samples])
    total = torch.zeros(len(records), model.transformer.config.d_model)
    n_added = torch.zeros(len(records), 1)
    for group, batch, hidden in _read(model, [sample for samples in records for sample in samples], config):
        vectors, n = _pool(batch, hidden, config)
        total.index_add_(0, owners[group], vectors.float().cpu())
        n_added.index_add_(0, owners[group], n.float().cpu())
    return _finish(total / n_added, config)


@torch.inference_mode()
def token_vectors(
    model: Anyformer, records: Sequence[Sequence[Sample]], config: VectorConfig
) -> list[dict[str, np.ndarray]]:
    """The vectors of each record's tokens by field, (tokens, d) float32 in the sequence of the record."""
    samples = [sample for each in records for sample in each]
    pieces: list[dict[str, np.ndarray]] = [{} for _ in samples]
    for group, batch, hidden in _read(model, samples, config):
        for name in config.fields:
            tokens = batch.fields[name]
            n_each = torch.bincount(tokens.sample, minlength=batch.n_samples).tolist()
            for i, own in zip(group, hidden[tokens.index].split(n_each), strict=True):
                if len(own):
                    pieces[i][name] = _finish(own.float().cpu(), config)
    found, start = [], 0
    for n in map(len, records):
        of_record = pieces[start : start + n]
        names = [name for name in config.fields if any(name in piece for piece in of_record)]
        found.append({name: np.concatenate([piece[name] for piece in of_record if name in piece]) for name in names})
        start += n
    return found


def _read(
    model: Anyformer, samples: Sequence[Sample], config: VectorConfig
) -> Iterator[tuple[list[int], Batch, Tensor]]:
    """Batches of like length: the numbers of their samples, the batch, and its hidden vectors, (rows * length, d)."""
    n_blocks, device = config.n_blocks(model), next(model.parameters()).device
    for group in group_by_length([sum(map(len, sample.values())) for sample in samples], AT_ONCE):
        batch = collate([samples[i] for i in group], model.tokenizers).to(device)
        yield group, batch, model.hidden_at(batch, n_blocks).flatten(0, 1)


def _pool(batch: Batch, hidden: Tensor, config: VectorConfig) -> tuple[Tensor, Tensor]:
    """The sum of the vectors that are read of each sample, (samples, d), and of how many it is, (samples, 1)."""
    parts = [batch.fields[name] for name in config.read]
    sample, place = (torch.cat([getattr(tokens, what) for tokens in parts]) for what in ("sample", "index"))
    n = torch.bincount(sample, minlength=batch.n_samples)[:, None]
    if config.pool != "mean":
        # In its row a sample's tokens stand in their sequence.
        which = "amin" if config.pool == "class" else "amax"
        place = place.new_zeros(batch.n_samples).scatter_reduce(0, sample, place, which, include_self=False)
        n = n.clamp(max=1)
        return hidden[place] * n, n
    return hidden.new_zeros(batch.n_samples, hidden.shape[1]).index_add(0, sample, hidden[place]), n


def _finish(vectors: Tensor, config: VectorConfig) -> np.ndarray:
    return (F.normalize(vectors, dim=1) if config.normalize else vectors).numpy()
