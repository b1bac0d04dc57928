"""Linformer (Wang et al. 2020): keys and values are projected over places to a fixed number, whatever the length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import einsum
from torch import Tensor, nn

from anyformer.batch import Batch
from anyformer.errors import InputError
from anyformer.model.attention.cache import Track
from anyformer.model.attention.places import Places
from anyformer.model.attention.rotary import Rotation, rotate
from anyformer.model.config import TransformerConfig


@dataclass(frozen=True)
class Projected:
    """The condition of a layer of Linformer: all that the rule allows, which must be all of the sample."""

    n: int
    """Keys and values that are left."""
    length: int
    """Tokens of a sample at most."""

    def __call__(self, query: Places, key: Places) -> Tensor:
        """As a condition of the rule."""
        return torch.ones_like(key.segment, dtype=torch.bool)[:, None]

    def check(self, batch: Batch, is_cached: bool) -> None:
        """Raise InputError where a token may not see all of its sample."""
        low, high = batch.orders
        if is_cached or low != high:
            raise InputError(
                "patterns.linformer takes a sample as a whole, and here tokens stand one after another "
                f"(orders {low} to {high}), so that a projection would mix later ones in; give it to an encoder or to "
                "a task that generates nothing, and in a causal model take compress"
            )


class ProjectedSight(NamedTuple):
    """Which queries are of which sample; in packed rows each sample has keys of its own."""

    key: Tensor
    """(samples, length) int64: the places of each in the flattened (b * n), -1 where there is none."""
    query: Tensor
    """(r, queries), likewise, in the flattened places of the queries."""
    owner: Tensor | None
    """(r,): the sample that the queries are of; None: one after another."""
    n_queries: int
    """Of all rows."""

    engine = "linformer"

    def at(self, place: Tensor, n: int) -> ProjectedSight:
        """As of `Sight`."""
        sample = torch.full((len(place) * n,), -1, device=place.device)
        number, slot = (self.key >= 0).nonzero(as_tuple=True)
        sample[self.key[number, slot]] = number
        first = n * torch.arange(len(place), device=place.device)[:, None]
        owner = sample[(first + place).flatten()]
        query = torch.arange(place.numel(), device=place.device).masked_fill(owner < 0, -1)[:, None]
        return self._replace(query=query, owner=owner.clamp(min=0), n_queries=place.numel())

    def attend(self, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        """As of `Sight`; k, v: (samples, h, n, k), as projected."""
        if self.owner is not None:
            k, v = k[self.owner], v[self.owner]
        out = F.scaled_dot_product_attention(_of_samples(q, self.query), k, v, **options)
        real = self.query >= 0
        rows = out.new_zeros(self.n_queries, *out.shape[1::2])
        rows = rows.index_copy(0, self.query[real], out.transpose(1, 2)[real])
        return rows.unflatten(0, (len(q), q.shape[2])).transpose(1, 2)


def lay_samples(places: Places, projected: Projected) -> ProjectedSight:
    """Raises InputError for a sample of more tokens than the projection takes."""
    b, n = places.segment.shape
    flat = places.segment.flatten()
    real = (flat > 0).nonzero().squeeze(1)
    # The tokens of a sample stand one after another.
    code = real // max(n, 1) * (int(flat.max()) + 1 if len(flat) else 1) + flat[real]
    _, number, counts = code.unique_consecutive(return_inverse=True, return_counts=True)
    longest = int(counts.max()) if len(counts) else 0
    if longest > projected.length:
        raise InputError(
            f"patterns.linformer has a length of {projected.length}, and there is a sample of {longest} tokens; give "
            "a greater length, or cut the data shorter"
        )
    table = torch.full((len(counts), longest), -1, device=flat.device)
    start = counts.cumsum(0) - counts
    table[number, torch.arange(len(real), device=flat.device) - start[number]] = real
    return ProjectedSight(table, table, None, b * n)


class PlaceProjection(nn.Module):
    """The projections of a layer, one for keys and one for values, shared by its heads (Wang et al. 2020, 4)."""

    def __init__(self, config: TransformerConfig, projected: Projected) -> None:
        super().__init__()
        self.width = config.kv_heads * config.head_width
        shape = projected.length, projected.n
        # So that of a sample of full length a projected key is about as large as a key.
        self.keys, self.values = (
            nn.Parameter(torch.empty(shape).normal_(std=projected.length**-0.5)) for _ in range(2)
        )

    def forward(
        self, k: Tensor, v: Tensor, sight: ProjectedSight, rotation: Rotation | None, cache: Track | None, layer: int
    ) -> tuple[Tensor, Tensor]:
        """Keys and values of places, (b, h, n, d_head); returns those of each sample as projected, (samples, h,
        projected, d_head). Places without a token count as 0.

        Keys are turned before: so the logits are those of rotary attention, projected.
        """
        k = k if rotation is None else rotate(k, rotation)
        hidden = (sight.key < 0)[:, None, :, None]
        return tuple(
            einsum(
                table[: sight.key.shape[1]],
                _of_samples(part, sight.key).masked_fill(hidden, 0.0),
                "place projected, sample h place k -> sample h projected k",
            )
            for table, part in ((self.keys, k), (self.values, v))
        )

    def n_keys(self, n: int) -> int:
        """Of so many places."""
        return self.keys.shape[1]

    def n_products(self, n: int) -> int:
        """Of two numbers, that working them out takes, for keys and values together."""
        return 2 * n * self.keys.shape[1] * self.width


def _of_samples(x: Tensor, index: Tensor) -> Tensor:
    """x: (b, h, n, k); index: (r, m), in the flattened (b * n). Returns (r, h, m, k), anything where it is -1."""
    flat = x.transpose(1, 2).flatten(2).flatten(0, 1)
    return F.embedding(index.clamp(min=0), flat).unflatten(2, (x.shape[1], -1)).transpose(1, 2)
