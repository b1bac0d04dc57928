"""The flow between fields: attention weights added up to what the tokens of one field take from those of another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anyformer.batch import Batch
from anyformer.explaining.attention import AttentionMap


@dataclass(frozen=True)
class Flow:
    """Of one attention and one sample."""

    stack: str
    layer: int
    kind: str
    queries: tuple[str, ...]
    """The fields of the tokens that look."""
    keys: tuple[str, ...]
    """The fields that are looked at."""
    shares: Tensor
    """(h, queries, keys): the part of its attention that a token of the one field gives to all tokens of the other, in
    the mean of the field's tokens. A row adds up to 1, or to less where some tokens see nothing."""


def places_of_samples(batch: Batch) -> list[tuple[int, Tensor]]:
    """The row of each sample, and where in it its tokens stand, (n,) int64, ascending."""
    index = torch.cat([tokens.index for tokens in batch.fields.values()])
    sample = torch.cat([tokens.sample for tokens in batch.fields.values()])
    found = [index[sample == i].sort().values for i in range(batch.n_samples)]
    return [(int(own[0]) // batch.shape[1] if len(own) else 0, own % max(batch.shape[1], 1)) for own in found]


def sample_weights(found: AttentionMap, batch: Batch, conditions: Batch | None = None) -> list[tuple[Tensor, Tensor]]:
    """By sample the weights between its own tokens, (h, queries, keys), and which of them the mask lets through,
    (1 or h, queries, keys)."""
    asking, read = stacks_of(found, batch, conditions)
    pairs = zip(places_of_samples(asking), places_of_samples(read), strict=True)
    return [
        tuple(part[min(row, len(part) - 1)][:, query][:, :, key] for part in (found.weights, found.seen))
        for (row, query), (_, key) in pairs
    ]  # type: ignore[misc]


def stacks_of(found: AttentionMap, batch: Batch, conditions: Batch | None) -> tuple[Batch, Batch]:
    """The batches that the queries and the keys of an attention are of."""
    own = conditions if found.stack == "encoder" else batch
    return own, conditions if found.kind == "cross" else own  # type: ignore[return-value]


def field_flows(
    maps: Sequence[AttentionMap], names: Sequence[str], batch: Batch, conditions: Batch | None = None
) -> list[list[Flow]]:
    """By sample the flow of every attention. names: of the model's fields, as they are numbered."""
    flows: list[list[Flow]] = [[] for _ in range(batch.n_samples)]
    for found in maps:
        asking, read = stacks_of(found, batch, conditions)
        places = zip(places_of_samples(asking), places_of_samples(read), strict=True)
        for own, (weights, _), ((row, query), (key_row, key)) in zip(
            flows, sample_weights(found, batch, conditions), places, strict=True
        ):
            query_field, key_field = asking.layout.field[row, query], read.layout.field[key_row, key]
            queries, by_query = query_field.unique(return_inverse=True)
            keys, by_key = key_field.unique(return_inverse=True)
            shares = weights.new_zeros(len(weights), len(queries), len(keys))
            to_keys = weights.new_zeros(*weights.shape[:2], len(keys)).index_add(2, by_key, weights)
            shares = shares.index_add(1, by_query, to_keys) / by_query.bincount()[:, None]
            fields = (tuple(names[i] for i in each.tolist()) for each in (queries, keys))
            own.append(Flow(found.stack, found.layer, found.kind, *fields, shares))
    return flows
