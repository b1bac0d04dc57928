"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence


def align(rows: Sequence[Sequence[str]], n_words: int = 1) -> list[str]:
    """A line for each row, in columns two spaces apart: the first `n_words` to the left, numbers to the right.

    >>> align([["", "mean"], ["val/loss", "0.5"]])
    ['          mean', 'val/loss   0.5']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i < n_words else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
