"""Which keys a block of queries sees, worked out at the grain of blocks, so that nothing is as large as all pairs."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from anyformer.batch import Edges
from anyformer.model.attention.patterns import Reach
from anyformer.model.attention.places import Places
from anyformer.model.attention.sight import Block

SIZE = 64
"""Queries of a block."""
FAR = 2**62


class Extent(NamedTuple):
    """The lowest and highest of what stands in each of some blocks (or in single places), shapes that broadcast."""

    segment: tuple[Tensor, Tensor]
    order: tuple[Tensor, Tensor]
    near: tuple[tuple[Tensor, Tensor, Tensor], ...]
    """For each axis of the window the lowest and highest coordinate, and whether a field without it is there."""
    own: tuple[Tensor, Tensor] | None
    """Numbers within the sample, where each sees what has its own."""
    fields: Tensor
    """(..., fields) boolean: which are there."""

    def index(self, chosen: Tensor | tuple) -> Extent:
        """Some of the blocks."""
        return Extent(
            *(tuple(part[chosen] for part in pair) for pair in (self.segment, self.order)),
            tuple(tuple(part[chosen] for part in axis) for axis in self.near),
            None if self.own is None else tuple(part[chosen] for part in self.own),
            self.fields[chosen],
        )


def extent(places: Places, reach: Reach | None, n_fields: int) -> Extent:
    """That of blocks, places (blocks, size)."""
    real = places.segment > 0

    def ends(values: Tensor, known: Tensor = real) -> tuple[Tensor, Tensor]:
        least, most = (-torch.inf, torch.inf) if values.is_floating_point() else (-FAR, FAR)
        return values.masked_fill(~known, most).amin(1), values.masked_fill(~known, least).amax(1)

    near, own = [], None
    if reach is not None:
        for column, _ in reach.window:
            coordinate = reach.on_axis(places, column)
            placed = real & ~coordinate.isnan()
            near.append((*ends(coordinate, placed), (real & ~placed).any(1)))
        if reach.links is not None or not reach.window:
            own = ends(places.rank // reach.block)
    fields = (F.one_hot(places.field, n_fields) * real[:, :, None]).amax(1) > 0
    return Extent(ends(places.segment), ends(places.order), tuple(near), own, fields)


def may_allow(query: Extent, key: Extent, sees: Tensor | None) -> Tensor:
    """Whether the rule may allow some pair of two blocks, patterns aside."""
    allowed = (query.segment[0] <= key.segment[1]) & (key.segment[0] <= query.segment[1])
    allowed &= key.order[0] <= query.order[1]
    if sees is not None:
        allowed &= ((query.fields.float() @ sees.float()) * key.fields).sum(-1) > 0
    return allowed


def may_reach(query: Extent, key: Extent, reach: Reach | None) -> Tensor | bool:
    """Whether some pair of two blocks may be within a window; global tokens and links aside."""
    if reach is None:
        return True
    found = None
    for (_, width), (low, high, lacks), (other_low, other_high, other_lacks) in zip(
        reach.window, query.near, key.near, strict=True
    ):
        within = (low - other_high <= width) & (other_low - high <= width) | lacks | other_lacks
        found = within if found is None else found & within
    if query.own is not None:
        same = (query.own[0] <= key.own[1]) & (key.own[0] <= query.own[1])
        found = same if found is None else found | same
    return found


def lay_blocks(
    places: Places,
    reach: Reach | None,
    sees: Tensor | None,
    n_fields: int,
    size: int = SIZE,
    *,
    edges: Edges | None = None,
    edges_only: Tensor | None = None,
) -> list[Block]:
    """The blocks of rows, (b, n), each place a query of one. Pairs in no block are hidden by the rule.

    reach: the condition that is a pattern, where there is one. sees, edges_only: as in `visible`.
    """
    b, n = places.segment.shape
    # What is seen without an edge; all that one leads to is gathered apart.
    free = sees
    if edges_only is not None:
        free = ~edges_only if sees is None else sees & ~edges_only
    is_global = torch.zeros_like(places.segment, dtype=torch.bool)
    if reach is not None and reach.fields:
        is_global = reach.is_global(places) & (places.segment > 0)
    queries, sees_all = _query_blocks(is_global, size)
    asking = extent(places.at(queries), reach, n_fields)
    block_row = queries[:, 0] // n
    # Key blocks of every row: those that a query block may see.
    n_blocks = -(-n // size)
    held = F.pad(torch.arange(b * n, device=queries.device).view(b, n), (0, n_blocks * size - n), value=-1)
    held = held.view(b * n_blocks, size)
    answering = extent(places.at(held), reach, n_fields)
    of_row = answering.index(torch.arange(b * n_blocks, device=queries.device).view(b, n_blocks)[block_row])
    asking_each = asking.index((slice(None), None))
    seen = may_allow(asking_each, of_row, free) & (may_reach(asking_each, of_row, reach) | sees_all[:, None])
    block, number = seen.nonzero(as_tuple=True)
    block, key = block.repeat_interleave(size), held[block_row[block] * n_blocks + number].flatten()
    real = key >= 0
    block, key = block[real], key[real]

    def single(key: Tensor) -> Extent:
        return extent(places.map(lambda part: part.flatten(0, 1)[key][:, None]), reach, n_fields)

    # What of them is out of reach of the whole block, by its own place.
    stays = sees_all[block] | may_reach(asking.index(block), single(key), reach)
    if free is not sees:
        stays &= may_allow(asking.index(block), single(key), free)
    block, key = block[stays], key[stays]
    extra = [] if reach is None else _beyond(places, reach, is_global, queries, block_row)
    if edges_only is not None and edges is not None:
        extra.append(_block_of(queries, b * n)[edges.row * n + edges.query] * (b * n) + edges.row * n + edges.key)
    if extra:
        # A key stands once in a block.
        code = torch.cat([block * (b * n) + key, *extra]).unique()
        block, key = code // (b * n), code % (b * n)
    stays = may_allow(asking.index(block), single(key), sees)
    block, key = block[stays], key[stays]
    return _by_length(queries, sees_all, block, key)


def _query_blocks(is_global: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Places of every row in blocks of a size, global ones apart: (blocks, size), padded by -1 at the end, and which
    blocks are of global places."""
    b, n = is_global.shape
    index = torch.arange(b * n, device=is_global.device).view(b, n)
    parts, kinds = [], []
    for kind in (False, True):
        chosen = is_global == kind
        counts = chosen.sum(1)
        most = int(counts.max())
        if not most:
            continue
        width = size * -(-most // size)
        table = torch.full((b, width), -1, device=index.device)
        row, _ = chosen.nonzero(as_tuple=True)
        within = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
        table[row, within] = index[chosen]
        table = table.view(-1, size)
        parts.append(table[table[:, 0] >= 0])
        kinds.append(torch.full((len(parts[-1]),), kind, device=index.device))
    return torch.cat(parts), torch.cat(kinds)


def _beyond(places: Places, reach: Reach, is_global: Tensor, queries: Tensor, block_row: Tensor) -> list[Tensor]:
    """What blocks of queries see beside the window, as numbers block * (b * n) + key, not all of them once."""
    b, n = places.segment.shape
    total, found = b * n, []
    segment = places.segment.flatten()
    if reach.fields:
        of_block = places.segment.flatten()[queries.clamp(min=0)].masked_fill(queries < 0, 0)
        low, high = of_block.masked_fill(of_block == 0, FAR).amin(1), of_block.amax(1)
        for row in range(b):
            key = is_global[row].nonzero().squeeze(1) + row * n
            block = (block_row == row).nonzero().squeeze(1)
            met = (low[block, None] <= segment[key]) & (segment[key] <= high[block, None])
            which, number = met.nonzero(as_tuple=True)
            found.append(block[which] * total + key[number])
    if reach.links is not None:
        block_of = _block_of(queries, total)
        one, other = _linked(places, reach)
        pairs = [(one, other), (other, one)] if reach.links.mutual else [(one, other)]
        for asking, answering in pairs:
            # Each of the places that count as one, first as queries, then as keys.
            query, asked = _spread(places, asking, reach.block)
            code = (block_of[query] * total + answering[asked]).unique()
            key, again = _spread(places, code % total, reach.block)
            found.append((code // total)[again] * total + key)
    return found


def _block_of(queries: Tensor, total: int) -> Tensor:
    """The block that each of all places is a query of, (total,) int64."""
    block_of = torch.empty(total, dtype=torch.int64, device=queries.device)
    number, _ = (queries >= 0).nonzero(as_tuple=True)
    block_of[queries[queries >= 0]] = number
    return block_of


def _linked(places: Places, reach: Reach) -> tuple[Tensor, Tensor]:
    """The links of all rows, as the first of the places that count as one, from which and to which they lead."""
    rank, segment = places.rank.flatten(), places.segment.flatten()
    first = ((segment > 0) & (rank % reach.block == 0)).nonzero().squeeze(1)
    target = reach.links.targets(rank[first] // reach.block)
    which, column = (target >= 0).nonzero(as_tuple=True)
    one = first[which]
    other = one - rank[one] + target[which, column] * reach.block
    # A table may name places that a sample has not.
    n = places.segment.shape[1]
    real = (other < len(rank)) & (other // n == one // n)
    one, other = one[real], other[real]
    real = segment[other] == segment[one]
    return one[real], other[real]


def _spread(places: Places, first: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """All places that count as one with each of some, (m,), and by which of these."""
    n = places.segment.shape[1]
    every = first[:, None] + torch.arange(block, device=first.device)
    inside = every // n == (first // n)[:, None]
    segment = places.segment.flatten()
    inside &= segment[every.clamp(max=len(segment) - 1)] == segment[first][:, None]
    return every[inside], inside.nonzero()[:, 0]


def _by_length(queries: Tensor, sees_all: Tensor, block: Tensor, key: Tensor) -> list[Block]:
    """Blocks in groups of about as many keys, each padded to the most of its group.

    block, key: pairs, ascending by block.
    """
    counts = torch.bincount(block, minlength=len(queries))
    start = counts.cumsum(0) - counts
    within = torch.arange(len(block), device=block.device) - start[block]
    # Lengths that double in two steps make few groups, and little padding.
    group = (counts.clamp(min=1).double().log2() * 2).ceil().long() * 2 + sees_all
    blocks = []
    for number in group.unique().tolist():
        chosen = (group == number).nonzero().squeeze(1)
        place = torch.full((len(queries),), -1, device=block.device)
        place[chosen] = torch.arange(len(chosen), device=block.device)
        table = torch.full((len(chosen), max(int(counts[chosen].max()), 1)), -1, device=block.device)
        mine = place[block] >= 0
        table[place[block[mine]], within[mine]] = key[mine]
        own = queries[chosen]
        blocks.append(Block(own[:, : int((own >= 0).sum(1).max())], table))
    return blocks
