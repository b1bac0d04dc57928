"""Means and standard deviations of columns, in one pass."""

from __future__ import annotations

import numpy as np


class Moments:
    """The mean and deviation of rows of numbers that come in parts: of each column, or of one. NaN is not counted."""

    def __init__(self) -> None:
        self.n = self.mean = self.squares = np.zeros(())

    def add(self, rows: np.ndarray) -> None:
        """rows: (rows, columns) or (rows,) float64."""
        part = (~np.isnan(rows)).sum(0)
        own = np.nansum(rows, 0) / np.maximum(part, 1)
        # Chan et al. 1983: sums of squares about each part's own mean, which do not cancel; once more for its rounding.
        own = own + np.nansum(rows - own, 0) / np.maximum(part, 1)
        total, apart = np.maximum(self.n + part, 1), own - self.mean
        self.squares = self.squares + np.nansum((rows - own) ** 2, 0) + apart**2 * part * self.n / total
        self.mean, self.n = self.mean + apart * part / total, self.n + part

    @property
    def std(self) -> np.ndarray:
        """The standard deviations; 1 for what never changes.

        What differs by less than float32 can tell is taken for what never changes; small numbers are no such thing.
        """
        std = np.sqrt(self.squares / np.maximum(self.n, 1))
        return np.where(std <= np.finfo(np.float32).eps * np.abs(self.mean), 1, std)
