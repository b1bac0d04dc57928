"""Lifts: the content of a field's tokens as vectors of d_model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyformer.errors import InputError


class Lookup(nn.Module):
    """Lifts ids: one learned vector each."""

    def __init__(self, vocab_size: int, d_model: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(vocab_size, d_model).normal_(std=0.02))

    def forward(self, content: Tensor, extents: Sequence[tuple[int, ...]] = ()) -> Tensor:
        """content: (total,) int64. Returns (total, d)."""
        return F.embedding(content, self.table)


class SummedLookup(nn.Module):
    """Lifts tokens of several ids each: the sum of their vectors."""

    def __init__(self, n_ids: int, d_model: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(n_ids, d_model).normal_(std=0.02))

    def forward(self, content: Tensor, extents: Sequence[tuple[int, ...]] = ()) -> Tensor:
        """content: (total, ids) int64. Returns (total, d)."""
        return F.embedding(content, self.table).sum(1)


class FeatureLookup(SummedLookup):
    """Lifts tokens of several features, each with ids of its own from 0: the sum of a learned vector for each."""

    def __init__(self, sizes: Sequence[int], d_model: int) -> None:
        """sizes: how many ids each feature has."""
        super().__init__(sum(sizes), d_model)
        self.sizes = tuple(sizes)
        self.register_buffer("starts", torch.tensor(sizes).cumsum(0) - torch.tensor(sizes), persistent=False)

    def forward(self, content: Tensor, extents: Sequence[tuple[int, ...]] = ()) -> Tensor:
        """content: (total, features) int64. Returns (total, d)."""
        return super().forward(content + self.starts)


class SharedLift(nn.Module):
    """Lifts content by the weights of another field's lift, which stays their owner: one name among the parameters."""

    def __init__(self, owner: nn.Module) -> None:
        nn.Module.__init__(self)
        # In a tuple, so that it is no submodule.
        self._owner = (owner,)

    @property
    def owner(self) -> nn.Module:
        return self._owner[0]

    def forward(self, content: Tensor, extents: Sequence[tuple[int, ...]] = ()) -> Tensor:
        return self._owner[0](content, extents)


class SharedLookup(SharedLift, Lookup):
    """Lifts ids by the table of another field."""

    @property
    def table(self) -> Tensor:  # type: ignore[override]
        return self._owner[0].table


class Projection(nn.Module):
    """Lifts vectors (patches, slices, states): one linear map."""

    def __init__(self, d_content: int, d_model: int, bias: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(d_content, d_model, bias=bias)

    def forward(self, content: Tensor, extents: Sequence[tuple[int, ...]] = ()) -> Tensor:
        """content: (total, *feature) float. Returns (total, d)."""
        return self.linear(content.flatten(1))


def share_lift(name: str, ours: nn.Module, owner: str, theirs: nn.Module) -> SharedLift:
    """What lifts a field by the weights of another's lift. Raises InputError where these are for other content."""
    shapes = [{each: value.shape for each, value in lift.state_dict().items()} for lift in (ours, theirs)]
    if type(ours) is not type(theirs) or shapes[0] != shapes[1]:
        what = "have other ids" if isinstance(ours, Lookup) and isinstance(theirs, Lookup) else "are of other content"
        raise InputError(f"fields {owner!r} and {name!r} cannot share a lift: they {what}")
    return (SharedLookup if isinstance(theirs, Lookup) else SharedLift)(theirs)
