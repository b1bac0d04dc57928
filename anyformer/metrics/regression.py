"""Metrics of numbers, from sums over the predictions.

sums: (5, n) float64, of each of n numbers: how many, their sum and that of their squares, of the squared and of the
absolute errors. Each returns (n,).
"""

from __future__ import annotations

import torch
from torch import Tensor


def rmse(sums: Tensor) -> Tensor:
    """The root of the mean squared error."""
    return (sums[3] / sums[0]).sqrt()


def mae(sums: Tensor) -> Tensor:
    """The mean absolute error."""
    return sums[4] / sums[0]


def r2(sums: Tensor) -> Tensor:
    """The share of the variance that is explained; NaN of numbers that are all the same."""
    n, total, squares, squared, _ = sums
    variance = squares - total**2 / n
    # What the sums' own rounding comes to is no variance.
    variance = variance.masked_fill(variance <= torch.finfo(variance.dtype).eps * n * squares, torch.nan)
    return 1 - squared / variance
