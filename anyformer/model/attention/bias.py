"""Where tokens stand, as attention takes it: biases by distance (ALiBi, T5's buckets), and clipped distances (Shaw).

They are worked out once a batch and shared by all layers.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from anyformer.batch import Edges
from anyformer.model.attention.places import Places
from anyformer.model.config import RelativeConfig


class Distances(nn.Module):
    """How far keys stand from their queries on one axis."""

    def __init__(self, config: RelativeConfig, axes: Mapping[str, tuple[str, ...]]) -> None:
        """axes: those of every field, in the sequence of the batch's."""
        super().__init__()
        self.config, self.axes = config, dict(axes)
        placed = [config.axis in own for own in axes.values()]
        self.register_buffer("placed", None if all(placed) else torch.tensor(placed), persistent=False)

    def between(self, query: Places, key: Places) -> tuple[Tensor, Tensor | None]:
        """The distances of pairs of places, (b or 1, queries, keys) float32, above 0 for keys behind their query; and
        which pairs have one, boolean alike: None where all do.

        query, key: (b, queries) and (b, keys), whose first coordinate is the axis.
        """
        query_field, key_field = query.field, key.field
        query, key = (places.coordinate[:, :, 0].nan_to_num(0.0) for places in (query, key))
        # Texts of one length stand alike in all rows: one for all. To know it costs a GPU's queue a stop. In blocks
        # other queries may have the same keys.
        parts = [query, key] if self.placed is None else [query, key, query_field, key_field]
        if len(key) > 1 and not torch.compiler.is_compiling() and _are_alike(parts):
            query, key, query_field, key_field = query[:1], key[:1], query_field[:1], key_field[:1]
        distance = key[:, None, :] - query[:, :, None]
        if self.placed is None:
            return distance, None
        return distance, self.placed[query_field][:, :, None] & self.placed[key_field][:, None, :]


def _are_alike(parts: Sequence[Tensor]) -> bool:
    """Whether each of some tensors is the same in all of its rows."""
    return bool(torch.stack([(part == part[:1]).all() for part in parts]).all())


class RelativeBias(Distances, ABC):
    """A bias per head on the logits of attention, by the distance of the key from the query on one axis; 0 for a pair
    of which one has no such axis."""

    @abstractmethod
    def by_distance(self, distance: Tensor) -> Tensor:
        """distance: (b, q, k) float32, above 0 for keys behind their query. Returns (b, h, q, k)."""

    def forward(self, query: Places, key: Places) -> Tensor:
        """The biases of pairs of places, (b or 1, h, queries, keys); see `between`."""
        distance, both = self.between(query, key)
        bias = self.by_distance(distance)
        return bias if both is None else bias.masked_fill(~both[:, None], 0.0)


class Alibi(RelativeBias):
    """Attention with linear biases: the further, the less, by a slope for each head (Press et al. 2022, 3)."""

    def __init__(self, config: RelativeConfig, axes: Mapping[str, tuple[str, ...]], n_heads: int) -> None:
        super().__init__(config, axes)
        self.register_buffer("slopes", torch.tensor(alibi_slopes(n_heads)), persistent=False)

    def by_distance(self, distance: Tensor) -> Tensor:
        return (-distance.abs()[:, None] * self.slopes[:, None, None]).to(self.slopes.dtype)


def alibi_slopes(n_heads: int) -> list[float]:
    """The slope of each head: 2^(-8 i / n) for i = 1 ... n where n is a power of two; else those of the power below,
    and of the power above every other one from the first, as many as are missing.

    >>> alibi_slopes(4)
    [0.25, 0.0625, 0.015625, 0.00390625]
    >>> alibi_slopes(3)
    [0.0625, 0.00390625, 0.25]
    """
    below = 2 ** int(math.log2(n_heads))
    slopes = [2 ** (-8 * i / below) for i in range(1, below + 1)]
    return slopes + [2 ** (-4 * i / below) for i in range(1, 2 * (n_heads - below), 2)]


class BucketBias(RelativeBias):
    """A learned bias per head for each bucket of distances (T5, Raffel et al. 2020, 2.1)."""

    def __init__(self, config: RelativeConfig, axes: Mapping[str, tuple[str, ...]], n_heads: int) -> None:
        super().__init__(config, axes)
        self.table = nn.Parameter(torch.zeros(config.n_buckets, n_heads))

    def by_distance(self, distance: Tensor) -> Tensor:
        return rearrange(self.table[bucket(distance, self.config)], "b q k h -> b h q k")


def bucket(distance: Tensor, config: RelativeConfig) -> Tensor:
    """The bucket of each distance, int64 of the same shape.

    Half of the buckets hold one distance each, 0, 1, 2, ...; the others widen by a constant factor up to
    `max_distance`, and the last holds all beyond. Where the two sides count apart, keys behind their query have the
    second half of all buckets; where they do not, all of them stand in bucket 0.
    """
    n = config.n_buckets
    side = torch.zeros((), dtype=torch.int64, device=distance.device)
    if config.bidirectional:
        n //= 2
        side = n * (distance > 0)
        away = distance.abs()
    else:
        away = (-distance).clamp(min=0)
    n_exact = n // 2
    # The factor by which they widen, counted from the last exact distance.
    growth = (away.clamp(min=1) / n_exact).log() / math.log(config.max_distance / n_exact)
    wide = (n_exact + (growth * (n - n_exact)).long()).clamp(max=n - 1)
    return side + torch.where(away < n_exact, away.long(), wide)


class ClippedDistances(Distances):
    """By which of its vectors an attention by Shaw et al. (2018, 3.2) meets each pair: the distance, clipped."""

    def forward(self, query: Places, key: Places) -> Tensor:
        """(b or 1, queries, keys) int64: 0 ... 2 max_distance, from the furthest before the query to the furthest
        behind it; 2 max_distance + 1, of no vector, for pairs without a distance."""
        most = self.config.max_distance
        distance, both = self.between(query, key)
        # Continuous positions count by the whole number nearest.
        number = distance.clamp(-most, most).round().long() + most
        return number if both is None else number.masked_fill(~both, 2 * most + 1)


def make_relative(
    config: RelativeConfig, axes: Mapping[str, tuple[str, ...]], n_heads: int
) -> RelativeBias | ClippedDistances:
    """The module of a config; axes are those of every field."""
    if config.kind == "shaw":
        return ClippedDistances(config, axes)
    return (Alibi if config.kind == "alibi" else BucketBias)(config, axes, n_heads)


class RelationBias(nn.Module):
    """A learned bias per head for every relation, added to the logits of attention (Graphormer, Ying et al. 2021,
    3.1.2)."""

    def __init__(self, n_relations: int, n_heads: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(n_relations, n_heads))

    def forward(self, relation: Tensor) -> Tensor:
        """relation: (b, n, n) int64 as in `Batch.relation`. Returns (b, h, n, n); 0 for pairs without a relation."""
        return rearrange(self._numbered[relation.clamp(min=0)], "b q k h -> b h q k")

    def along(self, edges: Edges, shape: tuple[int, int, int]) -> Tensor:
        """The biases of edges, those of one pair added up: of the shape (b, queries, keys) for each head, (b, h,
        queries, keys); 0 for pairs without an edge."""
        b, n_queries, n_keys = shape
        nothing = self.table.new_zeros(b, self.table.shape[1], n_queries, n_keys)
        pairs = (edges.row, edges.query, edges.key)
        by_pair = rearrange(nothing, "b h q k -> b q k h").index_put(pairs, self._numbered[edges.kind], accumulate=True)
        return rearrange(by_pair, "b q k h -> b h q k")

    @property
    def _numbered(self) -> Tensor:
        """The biases as relations are numbered in a batch, in which 0 is none."""
        return torch.cat([self.table.new_zeros(1, self.table.shape[1]), self.table])
