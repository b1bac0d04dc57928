"""What an evaluation adds up and keeps, over all its batches and ranks, and metrics made of that.

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

    def update(self, value: Tensor | float) -> None:
        """value: of the shape, on any device; a number that is not finite stays in the sum."""
        self.total = self.total + torch.as_tensor(value, device=self.total.device).detach()

    def compute(self) -> Tensor:
        return self.total


class Kept(Metric):
    """Rows that are kept whole, for metrics that are no sums."""

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
