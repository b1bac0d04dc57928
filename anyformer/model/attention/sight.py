"""What the queries of a layer see, in the form that the attention kernel takes: nothing to hide, a mask, or blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from anyformer.model.layers import take


class Sight(NamedTuple):
    """What the queries see of all keys at once."""

    mask: Tensor | None = None
    """(b, 1 or h, queries, keys): boolean, True where a key may be attended to, or float, added to the logits; None:
    everything, or what `causal` says."""
    causal: bool = False
    """Whether query i sees keys 0 ... i: right only where queries and keys start at the same place."""

    @property
    def engine(self) -> Literal["plain", "dense"]:
        """Whether a mask is gone by."""
        return "plain" if self.mask is None else "dense"

    def at(self, place: Tensor, n: int) -> Sight:
        """That of some places of every row alone, as queries: place (b, r) int64, of rows of n places."""
        if self.causal:
            return Sight((torch.arange(n, device=place.device) <= place[:, :, None])[:, None])
        return Sight(take(self.mask, place, 2))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        """Queries (b, h, queries, k), keys and values (b, kv heads, keys, k); returns (b, h, queries, k).

        options: of the kernel. A query that sees no key gets 0 from it, not NaN: padding, and targets of a sample
        without conditions.
        """
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask, is_causal=self.causal, **options)


class Block(NamedTuple):
    """Some queries of a row, as many in each of the m, and all keys that one of them sees."""

    query: Tensor
    """(m, queries) int64, places in the flattened (b * n); -1 where there is none."""
    key: Tensor
    """(m, keys), likewise."""


MaskOf = Callable[[Tensor, Tensor], Tensor]
"""From queries and keys as in `Block` the mask of their pairs, (m, 1 or h, queries, keys)."""


class BlockSight:
    """What the queries of rows see of the same rows, of which only the pairs in blocks are computed."""

    engine = "blocks"

    def __init__(self, blocks: list[Block], mask_of: MaskOf, n_places: int) -> None:
        """blocks: each place is a query of one of them. n_places: of all rows, b * n."""
        self.blocks, self._mask_of = blocks, mask_of
        self._masks = [mask_of(*block) for block in blocks]
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
        return Sight(self._mask_of(first + place, first + torch.arange(n, device=place.device)))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        """As of `Sight`; queries and keys are of the same places."""
        # A row for each place, from which an embedding gathers: its backward adds up fast.
        flat_q, flat_k, flat_v = (part.transpose(1, 2).flatten(2).flatten(0, 1) for part in (q, k, v))
        found = []
        for block, mask in zip(self.blocks, self._masks, strict=True):
            query, key = block.query.clamp(min=0), block.key.clamp(min=0)
            out = F.scaled_dot_product_attention(
                _gather(query, flat_q, q.shape[1]),
                _gather(key, flat_k, k.shape[1]),
                _gather(key, flat_v, v.shape[1]),
                attn_mask=mask,
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
