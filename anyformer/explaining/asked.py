"""What is explained: one number that a model gives of a sample, and how it changes with what the sample holds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from anyformer.batch import Batch, FieldTokens
from anyformer.model.anyformer import Anyformer
from anyformer.packing import group_by_length
from anyformer.tokens import Sample

AT_ONCE = 2**14
"""Tokens that are read at once, padding included."""


class Asked(ABC):
    """A number that a model gives of a sample: the log-odds of a class, a predicted number, the log-probability of a
    text. A task says which, by a subclass."""

    own: frozenset[str] = frozenset()
    """The fields that are the model's own, class and register tokens, which are never left out."""
    written: str | None = None
    """The field of a text that is written, whose tokens are the answer and not left out."""
    needed: frozenset[str] = frozenset()
    """Other fields without which the model gives no answer."""

    def __init__(self, model: Anyformer, what: str, unit: str = "") -> None:
        """what: the number in words. unit: what it is measured in."""
        self.model, self.what, self.unit = model, what, unit

    @property
    def kept(self) -> frozenset[str]:
        """The fields that are never left out."""
        return self.own | self.needed | ({self.written} if self.written else set())

    @abstractmethod
    def lay(self, samples: Sequence[Sample]) -> tuple[Batch, Batch | None]:
        """What the transformer reads of samples, and the encoder, where there is one; one sample a row."""

    @abstractmethod
    def score(self, hidden: Tensor, batch: Batch) -> Tensor:
        """The number of each sample, (samples,). hidden: (rows, length, d), of the transformer."""

    def parts(self, hidden: Tensor, batch: Batch) -> list[tuple[str, Tensor]]:
        """Of a batch of one sample the numbers that are explained one by one, (), each with its name: those of the
        tokens of a text; the one number, where the answer is no text."""
        return [("", self.score(hidden, batch).sum())]

    def double(self) -> Self:
        """A copy that computes in float64, so that what adds up on paper adds up here."""
        copied = deepcopy(self)
        copied._to_double()
        return copied

    def _to_double(self) -> None:
        self.model.double()

    @torch.no_grad()
    def values(self, samples: Sequence[Sample], dropped: Sequence[dict[str, Tensor]] | None = None) -> np.ndarray:
        """The number of each sample, (samples,) float64.

        dropped: of each sample, by field, which of its tokens are taken out, (n,) boolean.
        """
        found = np.zeros(len(samples))
        device = next(self.model.parameters()).device
        for group in group_by_length([sum(map(len, each.values())) + 1 for each in samples], AT_ONCE):
            batch, conditions = self.lay([samples[i] for i in group])
            if dropped is not None:
                given = [dropped[i] for i in group]
                batch = without_tokens(batch, given)
                conditions = None if conditions is None else without_tokens(conditions, given)
            batch = batch.to(device)
            hidden = self.model(batch, None if conditions is None else conditions.to(device))
            found[group] = self.score(hidden, batch).double().cpu().numpy()
        return found


def without_tokens(batch: Batch, dropped: Sequence[dict[str, Tensor]]) -> Batch:
    """A batch, on the CPU and of one sample a row, with some tokens taken out of the rows: nothing sees them.

    dropped: of each sample, by field, which of its tokens, (n,) boolean. Contents stay, because a lift may read several
    at once; vectors of tokens that are taken out go to a place that is padding.
    """
    b, n = batch.shape
    gone = torch.zeros(b * n, dtype=torch.bool)
    for name, tokens in batch.fields.items():
        for i, given in enumerate(dropped):
            # The tokens of a field stand in the rows of one of two stacks.
            if name in given and len(tokens.index):
                gone[tokens.index[tokens.sample == i][given[name]]] = True
    if not gone.any():
        return batch
    gone = gone.view(b, n)
    order = gone.long().argsort(dim=1, stable=True)
    new_place = order.argsort(dim=1)
    # A row that loses a token has padding at its end.
    new_place = torch.where(gone, n - 1, new_place)
    is_left = torch.arange(n) < (~gone).sum(1, keepdim=True)
    segment, *others = (part.gather(1, order) for part in batch.layout)
    row = torch.arange(b).repeat_interleave(n)
    moved = row * n + new_place.flatten()
    relation = batch.relation
    if relation is not None:
        relation = relation.gather(1, order[:, :, None].expand(b, n, n)).gather(2, order[:, None].expand(b, n, n))
    edges = batch.edges
    if edges is not None:
        stays = ~(gone[edges.row, edges.query] | gone[edges.row, edges.key])
        row_of, query, key, kind = (part[stays] for part in (edges.row, edges.query, edges.key, edges.kind))
        # What is left keeps its sequence, and so do the edges.
        edges = replace(edges, row=row_of, query=new_place[row_of, query], key=new_place[row_of, key], kind=kind)
    fields: dict[str, FieldTokens] = {
        name: replace(tokens, index=moved[tokens.index]) for name, tokens in batch.fields.items()
    }
    return replace(
        batch,
        fields=fields,
        layout=type(batch.layout)(segment * is_left, *others),
        kind="causal" if batch.kind == "causal" else "dense",
        padded=True,
        relation=relation,
        edges=edges,
    )
