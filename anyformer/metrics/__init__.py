"""Metrics from predictions; no model and no trainer."""

from anyformer.metrics.accumulators import Kept, Sums
from anyformer.metrics.classification import auroc, average_precision, macro_f1
from anyformer.metrics.text import align_words, error_rates

__all__ = ["Kept", "Sums", "align_words", "auroc", "average_precision", "error_rates", "macro_f1"]
