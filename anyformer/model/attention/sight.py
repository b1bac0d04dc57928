"""What the queries of a layer see, in the form that the attention kernel takes: nothing to hide, a mask, or blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from anyformer.model.attention.shaw import DistanceVectors
from anyformer.model.layers import take


class Sight(NamedTuple):
    """What the queries see of all keys at once."""

    mask: Tensor | None = None
    """(b, 1 or h, queries, keys): boolean, True where a key may be attended to, or float, added to the logits; None:
    everything, or what `causal` says."""
    causal: bool = False
    """Whether query i sees keys 0 ... i: right only where queries and keys start at the same place."""
    distance: Tensor | None = None
    """(b or 1, queries, keys) int64: by which of a layer's `DistanceVectors` each pair meets; None: by none."""

    @property
    def engine(self) -> Literal["plain", "dense"]:
        """Whether a mask is gone by."""
        return "plain" if self.mask is None and self.distance is None else "dense"

    def at(self, place: Tensor, n: int) -> Sight:
        """That of some places of every row alone, as queries: place (b, r) int64, of rows of n places."""
        distance = take(self.distance, place, 1)
        if self.causal:
            return Sight((torch.arange(n, device=place.device) <= place[:, :, None])[:, None], distance=distance)
        return Sight(take(self.mask, place, 2), distance=distance)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, vectors: DistanceVectors | None = None, **options: Any) -> Tensor:
        """Queries (b, h, queries, k), keys and values (b, kv heads, keys, k); returns (b, h, queries, k).

        vectors: of the layer, where distances are known. options: of the kernel. A query that sees no key gets 0 from
        it, not NaN: padding, and targets of a sample without conditions.
        """
        if vectors is None:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask, is_causal=self.causal, **options)
        mask = self.mask
        if self.causal:
            mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
        return vectors(q, k, v, self.distance, mask, **options)


class Block(NamedTuple):
    """Some queries of a row, as many in each of the m, and all keys that one of them sees."""

    query: Tensor
    """(m, queries) int64, places in the flattened (b * n); -1 where there is none."""
    key: Tensor
    """(m, keys), likewise."""


SightOf = Callable[[Tensor, Tensor], Sight]
"""From queries and keys as in `Block` what they see of each other."""


class BlockSight:
    """What the queries of rows see of the same rows, of which only the pairs in blocks are computed."""

    engine = "blocks"

    def __init__(self, blocks: list[Block], sight_of: SightOf, n_places: int) -> None:
        """blocks: each place is a query of one of them. n_places: of all rows, b * n."""
        self.blocks, self._sight_of = blocks, sight_of
        self._sights = [sight_of(*block) for block in blocks]
        places = torch.cat([block.query.flatten() for block in blocks])
        real = (places >= 0).nonzero().squeeze(1)
        # Where each place's output stands among those of all blocks.
        self._where = torch.empty(n_places, dtype=torch.int64, device=places.device)
        self._where[places[real]] = real

    @property
    def n_pairs(self) -> int:
        """Pairs of places that are computed."""
        return count_pairs(self.blocks)

    def at(self, place: Tensor, n: int) -> Sight:
        """As of `Sight`."""
        first = n * torch.arange(len(place), device=place.device)[:, None]
        return self._sight_of(first + place, first + torch.arange(n, device=place.device))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        """As of `Sight`; queries and keys are of the same places."""
        # A row for each place, from which an embedding gathers: its backward adds up fast.
        flat_q, flat_k, flat_v = (part.transpose(1, 2).flatten(2).flatten(0, 1) for part in (q, k, v))
        found = []
        for block, sight in zip(self.blocks, self._sights, strict=True):
            query, key = block.query.clamp(min=0), block.key.clamp(min=0)
            out = sight.attend(
                _gather(query, flat_q, q.shape[1]),
                _gather(key, flat_k, k.shape[1]),
                _gather(key, flat_v, v.shape[1]),
                **options,
            )
            found.append(out.transpose(1, 2).flatten(2).flatten(0, 1))
        whole = F.embedding(self._where, torch.cat(found))
        return whole.view(len(q), q.shape[2], *q.shape[1::2]).transpose(1, 2)


def count_pairs(blocks: list[Block]) -> int:
    return sum(block.query.numel() * block.key.shape[1] for block in blocks)


def _gather(index: Tensor, flat: Tensor, n_heads: int) -> Tensor:
    """index: (m, r). Returns (m, heads, r, k)."""
    return F.embedding(index, flat).unflatten(2, (n_heads, -1)).transpose(1, 2)
