"""What an evaluation adds up and keeps, over all its batches and ranks, and figures made of that.

All begin with nothing taken in, so that a rank that sees no sample has the same to send as the others.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class Sums(Metric):
    """A sum over an evaluation, in float64."""

    full_state_update = False

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.reset()

    def reset(self) -> None:
        super().reset()
        self.update(torch.zeros_like(self.total))

    def update(self, value: Tensor) -> None:
        """value: of the shape; a number that is not finite stays in the sum."""
        self.total = self.total + value.detach()

    def compute(self) -> Tensor:
        return self.total


class Kept(Metric):
    """Rows that are kept whole, for figures that are no sums."""

    full_state_update = False

    def __init__(self, k: int) -> None:
        """k: numbers in a row."""
        super().__init__()
        self.k = k
        self.add_state("rows", [], dist_reduce_fx="cat")
        self.reset()

    def reset(self) -> None:
        super().reset()
        self.update(torch.zeros(0, self.k, device=self.device))

    def update(self, rows: Tensor) -> None:
        """rows: (n, k), n may be 0."""
        self.rows.append(rows.detach())

    def compute(self) -> Tensor:
        """(all n, k)"""
        return self.rows if isinstance(self.rows, Tensor) else torch.cat(self.rows)


def average_precision(scores: Tensor, truth: Tensor) -> Tensor:
    """The area under precision over recall, in steps, (); NaN where nothing is true.

    scores: (n,), the higher the likelier; equal ones count as one threshold. truth: (n,) 0 or 1.
    """
    scores, order = scores.sort(descending=True)
    hits = truth[order].double().cumsum(0)
    is_threshold = torch.ones_like(scores, dtype=torch.bool)
    is_threshold[:-1] = scores[1:] != scores[:-1]
    n = torch.arange(1, len(scores) + 1, device=scores.device)[is_threshold]
    hits = hits[is_threshold]
    new = hits.diff(prepend=hits.new_zeros(1))
    return (new * hits / n).sum() / truth.sum()


def auroc(scores: Tensor, truth: Tensor) -> Tensor:
    """The chance that a true one has a higher score than one that is not, ties half, (); NaN where either is lacking.

    scores: (n,). truth: (n,) 0 or 1.
    """
    _, inverse, counts = scores.unique(return_inverse=True, return_counts=True)
    # The mean rank of equal scores (Mann and Whitney 1947).
    ranks = (counts.cumsum(0) - (counts - 1) / 2)[inverse].double()
    n_true = truth.sum().double()
    n_false = len(truth) - n_true
    return ((ranks * truth).sum() - n_true * (n_true + 1) / 2) / (n_true * n_false)


def macro_f1(confusion: Tensor) -> Tensor:
    """The mean F1 of the classes that occur or are predicted, ().

    confusion: (classes, classes), the true ones by row.
    """
    both = confusion.sum(0) + confusion.sum(1)
    return (2 * confusion.diagonal() / both)[both > 0].mean()
