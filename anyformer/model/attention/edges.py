"""Edges between tokens: which pairs they are of, and which of them lie within blocks of queries and keys."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from anyformer.batch import Edges


def linked(edges: Edges | None, shape: tuple[int, int, int], device: torch.device) -> Tensor:
    """Whether there is an edge from a query to a key, boolean of the shape (b, queries, keys)."""
    found = torch.zeros(shape, dtype=torch.bool, device=device)
    if edges is not None:
        found[edges.row, edges.query, edges.key] = True
    return found


def behind(edges: Edges, n: int) -> Edges:
    """The same where n keys of a cache stand before those of the batch."""
    return replace(edges, key=edges.key + n) if n else edges


def among(edges: Edges, query: Tensor, key: Tensor, shape: tuple[int, int]) -> Edges:
    """The edges within blocks, by the number of the block, and of the query and the key in it.

    query, key: (m, queries) and (m, keys), places in the flattened rows, -1 where there is none; the keys of a block
        ascend, and what is none stands behind them.
    shape: of the rows, (b, n).
    """
    total, n = shape[0] * shape[1], shape[1]
    asking, answering = edges.row * n + edges.query, edges.row * n + edges.key
    # Of each query in turn its edges, which stand one after another.
    slots = query.flatten()
    first = torch.searchsorted(asking, slots)
    counts = (torch.searchsorted(asking, slots, right=True) - first) * (slots >= 0)
    slot = torch.arange(len(slots), device=slots.device).repeat_interleave(counts)
    within = torch.arange(len(slot), device=slots.device) - (counts.cumsum(0) - counts)[slot]
    edge, block = first[slot] + within, slot // query.shape[1]
    # The keys of all blocks as one list of numbers that ascend.
    number = torch.arange(len(key), device=key.device)[:, None] * (total + 1)
    held = (number + key.masked_fill(key < 0, total)).flatten()
    wanted = block * (total + 1) + answering[edge]
    place = torch.searchsorted(held, wanted).clamp(max=len(held) - 1)
    is_held = held[place] == wanted
    block, slot, edge, place = (part[is_held] for part in (block, slot, edge, place))
    return Edges(block, slot % query.shape[1], place % key.shape[1], edges.kind[edge])
