"""Where queries and keys stand: all that the rule, the patterns and the biases by distance ask of a place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from anyformer.batch import Batch


class Places(NamedTuple):
    """Places of rows, each (b, n) int64 but for the coordinates; what nobody asks for is None."""

    segment: Tensor
    """Number of the sample within its row, from 1; 0 is padding."""
    order: Tensor
    """When: see `TokenSet.order`."""
    field: Tensor
    """Index of the token's field."""
    coordinate: Tensor | None = None
    """(b, n, axes) float32: where the token stands on the axes that were asked for; NaN where its field has none."""
    rank: Tensor | None = None
    """How many tokens of its sample stand before it."""
    nth: Tensor | None = None
    """How many of these are of its own field."""
    step: Tensor | None = None
    """How many tokens stand before it that are of its sample, but not of the lowest order there; those of the lowest
    order count backwards, ..., -2, -1."""

    def map(self, change: Callable[[Tensor], Tensor]) -> Places:
        """The same after a change of every part."""
        return Places(*(None if part is None else change(part) for part in self))

    def joined(self, other: Places) -> Places:
        """These places with others behind them in every row."""
        return Places(*(None if a is None else torch.cat([a, b], 1) for a, b in zip(self, other, strict=True)))

    def at(self, index: Tensor) -> Places:
        """Some places out of all rows: index into the flattened (b * n), of any shape (m, k); -1 is padding."""
        found = self.map(lambda part: part.flatten(0, 1)[index.clamp(min=0)])
        return found._replace(segment=found.segment.masked_fill(index < 0, 0))


class Wanted(NamedTuple):
    """What a stack asks of places."""

    axes: tuple[str, ...] = ()
    """Of the coordinates."""
    counts: bool = False
    """Whether tokens are numbered within their sample and field."""
    steps: bool = False
    """Whether they are numbered from where those of their sample's lowest order end."""


def coordinates(
    batch: Batch, axes: Mapping[str, tuple[str, ...]], wanted: Sequence[str], absent: float = 0.0
) -> Tensor:
    """Where every place of a batch stands on some axes, (b, n, wanted) float32; `absent` where its field has no such
    axis.

    axes: those of each field.
    """
    shape, device = (batch.shape.numel(), len(wanted)), batch.layout.segment.device
    coordinate = torch.full(shape, absent, device=device)
    for name, tokens in batch.fields.items():
        for column, axis in enumerate(axes[name]):
            if axis in wanted:
                coordinate[tokens.index, wanted.index(axis)] = tokens.position[:, column].float()
    return coordinate.unflatten(0, batch.shape)


def places_of(
    batch: Batch, axes: Mapping[str, tuple[str, ...]], wanted: Wanted, before: Places | None = None
) -> Places:
    """The places of a batch.

    axes: those of each field. before: the places that a cache holds, from which the numbers of a sample's tokens go on.
    """
    places = Places(*batch.layout)
    if wanted.axes:
        places = places._replace(coordinate=coordinates(batch, axes, wanted.axes, torch.nan))
    same = None
    if (wanted.counts or wanted.steps) and before is not None and before.segment.shape[1]:
        same = (places.segment[:, :, None] == before.segment[:, None]) & (before.segment > 0)[:, None]
    if wanted.steps:
        places = places._replace(step=_steps(places, before, same))
    if wanted.counts:
        rank, nth = _counts(places, len(axes))
        if same is not None:
            rank = rank + ((before.rank + 1)[:, None] * same).amax(2)
            same = same & (places.field[:, :, None] == before.field[:, None])
            nth = nth + ((before.nth + 1)[:, None] * same).amax(2)
        places = places._replace(rank=rank, nth=nth)
    return places


def _counts(places: Places, n_fields: int) -> tuple[Tensor, Tensor]:
    """The number of each token in its sample, and in its field of the sample, each (b, n) int64; samples of a row stand
    one after another."""
    index, first = _starts(places.segment)
    of_field = F.one_hot(places.field, n_fields)
    before = of_field.cumsum(1) - of_field
    before = before - before.gather(1, first[:, :, None].expand_as(before))
    return index - first, before.gather(2, places.field[:, :, None])[:, :, 0]


def _starts(segment: Tensor) -> tuple[Tensor, Tensor]:
    """Of each place its number in the row, and that of the first of its sample, each (b, n) int64."""
    index = torch.arange(segment.shape[1], device=segment.device).expand_as(segment)
    starts = torch.ones_like(segment, dtype=torch.bool)
    starts[:, 1:] = segment[:, 1:] != segment[:, :-1]
    return index, torch.where(starts, index, 0).cummax(1).values


def _steps(places: Places, before: Places | None, same: Tensor | None) -> Tensor:
    """See `Places.step`. same: which of the places before are of each one's sample, (b, n, before); None: none."""
    index, first = _starts(places.segment)
    # In its row a sample's tokens stand by order, those of the lowest first.
    is_lowest = (places.order == places.order.gather(1, first)).long()
    n_lowest = torch.zeros_like(first).scatter_add(1, first, is_lowest).gather(1, first)
    step = index - first - n_lowest
    if same is None:
        return step
    # What comes later is of higher orders.
    on = index - first + ((before.step + 1)[:, None] * same).amax(2)
    return torch.where(same.any(2), on, step)
