import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, precision_recall_fscore_support, roc_auc_score
from torchmetrics.functional.classification import multiclass_calibration_error

from anyformer.metrics.classification import (
    N_BINS,
    auroc,
    average_precision,
    by_class,
    calibration_error,
    count_bins,
    macro_f1,
    mean_average_precision,
)


@pytest.mark.parametrize("n_levels", [1000, 4], ids=["apart", "ties"])
def test_figures_of_scores_are_those_of_sklearn(n_levels):
    random = np.random.default_rng(0)
    scores, truth = random.integers(n_levels, size=50) / n_levels, random.integers(2, size=50)
    given = torch.from_numpy(scores), torch.from_numpy(truth)
    assert average_precision(*given).item() == pytest.approx(average_precision_score(truth, scores))
    assert auroc(*given).item() == pytest.approx(roc_auc_score(truth, scores))


def test_scores_of_one_kind_of_truth_have_no_figure():
    assert average_precision(torch.tensor([0.3, 0.1]), torch.zeros(2)).isnan()
    assert auroc(torch.tensor([0.3, 0.1]), torch.ones(2)).isnan()


def test_the_f1_is_a_mean_over_the_classes_that_occur():
    true, said = [0, 0, 1, 3, 3], [0, 1, 1, 3, 0]
    confusion = torch.zeros(5, 5)
    for i, j in zip(true, said, strict=True):
        confusion[i, j] += 1
    assert macro_f1(confusion).item() == pytest.approx(f1_score(true, said, average="macro"))


def test_precision_and_recall_of_each_class_are_those_of_sklearn():
    true, said = [0, 0, 1, 3, 3, 4], [0, 1, 1, 3, 0, 1]
    confusion = torch.zeros(6, 6)
    for i, j in zip(true, said, strict=True):
        confusion[i, j] += 1
    found = by_class(confusion.diagonal(), confusion.sum(0), confusion.sum(1))
    expected = precision_recall_fscore_support(true, said, labels=range(6), zero_division=np.nan)
    expected[2][4] = 0.0  # Never predicted, but there: of an F1 that is one in every definition by counts.
    np.testing.assert_allclose(found.numpy(), np.stack(expected, 1))


@pytest.mark.parametrize("n_batches", [1, 3])
def test_the_calibration_error_is_that_of_torchmetrics(n_batches):
    logits = 2 * torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    values = torch.arange(200) % 4
    probabilities, found = logits.softmax(1).max(1)
    parts = zip(probabilities.chunk(n_batches), (found == values).chunk(n_batches), strict=True)
    bins = sum(count_bins(*part) for part in parts)
    expected = multiclass_calibration_error(logits.softmax(1), values, 4, n_bins=N_BINS)
    assert calibration_error(bins).item() == pytest.approx(expected.item(), rel=1e-5)
    sure = count_bins(torch.ones(2), torch.tensor([True, False]))
    assert sure[:, -1].tolist() == [2, 2, 1] and calibration_error(sure) == 0.5
    assert calibration_error(count_bins(torch.zeros(0), torch.zeros(0, dtype=torch.bool))).isnan()


def test_a_label_that_is_never_true_is_not_in_the_mean_of_the_average_precisions():
    scores, truth = torch.tensor([[0.9, 0.1], [0.4, 0.2]]), torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    assert mean_average_precision(scores, truth) == average_precision(scores[:, 0], truth[:, 0]) == 0.5
    assert mean_average_precision(scores, 0 * truth).isnan()
