"""A batch: contents of many token sets without padding, and where each token stands in the rows of the transformer."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from anyformer.choices import Checked


class Layout(NamedTuple):
    """Who stands where in the rows of a transformer: each (rows, length) int64."""

    segment: Tensor
    """Number of the sample within its row, from 1; 0 is padding."""
    order: Tensor
    """When: see `TokenSet.order`."""
    field: Tensor
    """Index of the token's field in the names that the batch was collated with."""


@dataclass(frozen=True)
class FieldTokens:
    """One field's tokens of all samples of a batch, one after another without padding."""

    content: Tensor
    """(total pieces, *feature)"""
    position: Tensor
    """(total tokens, axes)"""
    index: Tensor
    """(total tokens,) int64: where each token stands in the flattened (rows * length) layout"""
    sample: Tensor
    """(total tokens,) int64: which sample of the batch it belongs to"""
    extents: tuple[tuple[int, ...], ...]
    """The extent of each sample that has the field, on the host."""
    reach: tuple[float, ...] = ()
    """The highest position on each axis, on the host."""
    masked: Tensor | None = None
    """(total tokens,) bool: those whose content is not shown; None where all is."""
    inside: Batch | None = None
    """What the lift reads in place of the content: the samples inside the token sets, laid into rows of their own; None
    where it reads the content. See `TokenSet.inside`."""


@dataclass(frozen=True)
class Edges:
    """What tokens of a row are to each other, as a list of pairs: each (e,) int64, ascending by row and query."""

    row: Tensor
    query: Tensor
    """Of the token that looks, its place in the row."""
    key: Tensor
    """Of the token that it looks at."""
    kind: Tensor
    """As in `Batch.relation`: 0 is none, as of a token to itself, 1 + r relation r."""


@dataclass(frozen=True)
class Batch(Checked):
    """Samples laid into rows. Made by `collate`; see `FieldTokens` for the content."""

    fields: dict[str, FieldTokens]
    layout: Layout
    n_samples: int
    kind: Literal["everything", "causal", "dense"]
    """What the visibility rule comes down to when every field sees every field, known on the host.

    everything: every place is real, and each sees its whole row. causal: one sample a row in ascending order without
    ties (padding may trail). dense: a mask is needed.
    """
    n_per_row: int
    """Samples of the row that holds the most, on the host."""
    padded: bool
    """Whether some places hold no token."""
    orders: tuple[int, int]
    """Lowest and highest order in the batch, on the host."""
    n_pairs: int = 0
    """Pairs of places within the samples, on the host: the squares of their tokens in sum."""
    relation: Tensor | None = None
    """(rows, length, length) int64: 0 no relation, 1 + r for the batch's relation r, -1 unseen; None where no
    tokenizer has any.

    Relations of several fields are numbered one after another, in the order of the fields.
    """
    edges: Edges | None = None
    """The relations that are given as edges; None where no tokenizer has any. In a field whose tokens look at each
    other along edges alone (`Tokenizer.edges_only`), each has one to itself too."""

    @property
    def one_per_row(self) -> bool:
        """Whether no row holds more than one sample."""
        return self.n_per_row <= 1

    @property
    def shape(self) -> torch.Size:
        """(rows, length)"""
        return self.layout.segment.shape

    def by_field(self, hidden: Tensor) -> dict[str, Tensor]:
        """The vectors of each field's tokens, (total tokens, d), out of hidden vectors (rows, length, d)."""
        flat = hidden.flatten(0, 1)
        return {name: flat[tokens.index] for name, tokens in self.fields.items()}

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The batch with its tensors on a device."""
        return map_tensors(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, from where a GPU copies while it computes."""
        return map_tensors(self, Tensor.pin_memory)


def map_tensors(value: Any, function: Any) -> Any:
    """Apply a function to every tensor within dataclasses, dicts and named tuples."""
    if isinstance(value, Tensor):
        return function(value)
    if is_dataclass(value):
        return replace(value, **{f.name: map_tensors(getattr(value, f.name), function) for f in fields(value)})
    if isinstance(value, dict):
        return {name: map_tensors(part, function) for name, part in value.items()}
    if isinstance(value, Layout):
        return Layout(*(map_tensors(part, function) for part in value))
    return value


def read_before(batch: Batch, name: str) -> tuple[Tensor, Tensor]:
    """Where to read the prediction of each token of a field: the last token of lower order in its sample.

    A token has seen itself, so a prediction read at its own place would be a copy. For a text of orders 1, 2, 3 behind
    a start token of order 0 this reads place j for token j + 1; for an action it is the state it follows. Tokens that
    nothing precedes are left out.

    Returns (places, tokens), each (r,) int64 on the batch's device: places in the flattened (rows * length) layout, and
    which of the field's tokens (0 ... total - 1) is to be predicted there.
    """
    segment, order, _ = (part.flatten() for part in batch.layout)
    length = batch.shape[1]
    place = torch.arange(len(order), device=order.device)
    # A group is a run of places of one sample and order: the place to read is the one before its group begins.
    starts = torch.ones_like(order, dtype=torch.bool)
    starts[1:] = (order[1:] != order[:-1]) | (segment[1:] != segment[:-1]) | (place[1:] % length == 0)
    group_start = torch.where(starts, place, 0).cummax(0).values
    before = group_start[batch.fields[name].index] - 1
    own = batch.fields[name].index
    known = (before >= 0) & (before // length == own // length) & (segment[before.clamp(min=0)] == segment[own])
    return before[known], known.nonzero().squeeze(1)
