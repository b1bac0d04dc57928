"""Losses that are more than a line."""

from anyformer.model.losses.cross_entropy import linear_cross_entropy
from anyformer.model.losses.ctc import CTCHead

__all__ = ["CTCHead", "linear_cross_entropy"]
