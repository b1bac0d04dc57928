"""Metrics from predictions; no model and no trainer."""

from anyformer.metrics.accumulators import Kept, Sums
from anyformer.metrics.classification import auroc, average_precision, macro_f1, mean_average_precision
from anyformer.metrics.metric import Accumulators, Metric
from anyformer.metrics.regression import mae, r2, rmse
from anyformer.metrics.text import align_words, error_rates

__all__ = [
    "Accumulators",
    "Kept",
    "Metric",
    "Sums",
    "align_words",
    "auroc",
    "average_precision",
    "error_rates",
    "macro_f1",
    "mae",
    "mean_average_precision",
    "r2",
    "rmse",
]
