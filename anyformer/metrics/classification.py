"""Metrics of classes from scores: area under the curves, macro F1, precision and recall of each."""

from __future__ import annotations

import torch
from torch import Tensor


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


def mean_average_precision(scores: Tensor, truth: Tensor) -> Tensor:
    """The mean over the labels that occur of their average precision, (); NaN where none does.

    scores: (n, labels). truth: (n, labels) 0 or 1.
    """
    each = [average_precision(s, t) for s, t in zip(scores.unbind(1), truth.unbind(1), strict=True) if t.any()]
    return torch.stack(each).mean() if each else truth.new_tensor(torch.nan)


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


def by_class(right: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
    """Precision, recall, F1 and support of each class, (classes, 4); NaN for a precision where it was never predicted,
    for a recall where it never occurs, and for an F1 where neither.

    right, predicted, true: (classes,) how often each was rightly predicted, predicted, and there.
    """
    return torch.stack([right / predicted, right / true, 2 * right / (predicted + true), true], 1)


N_BINS = 15
"""Of probabilities, by which the calibration error is counted."""


def count_bins(probabilities: Tensor, right: Tensor) -> Tensor:
    """What a calibration error is made of, (3, N_BINS) float64: in each bin of probability how many predictions there
    are, the sum of their probabilities and how many are right; of batches, or ranks, to be added.

    probabilities: (n,) of what was predicted. right: (n,) whether it was right.
    """
    bounds = torch.linspace(0, 1, N_BINS + 1, device=probabilities.device)[1:-1]
    bins = torch.bucketize(probabilities, bounds, right=True)
    values = torch.stack([torch.ones_like(probabilities), probabilities, right.to(probabilities.dtype)]).double()
    return torch.zeros(3, N_BINS, dtype=torch.float64, device=values.device).index_add(1, bins, values)


def calibration_error(bins: Tensor) -> Tensor:
    """The expected calibration error, (): how far the probability of what is predicted is from how often it is right, a
    mean over the predictions (Naeini et al. 2015); NaN of none. bins: of `count_bins`."""
    n, probability, right = bins
    return (probability - right).abs().sum() / n.sum()


def macro_f1(confusion: Tensor) -> Tensor:
    """The mean F1 of the classes that occur or are predicted, ().

    confusion: (classes, classes), the true ones by row.
    """
    both = confusion.sum(0) + confusion.sum(1)
    return (2 * confusion.diagonal() / both)[both > 0].mean()
