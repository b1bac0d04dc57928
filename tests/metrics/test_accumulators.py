import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from anyformer.metrics.accumulators import Kept, Sums
from anyformer.metrics.classification import auroc, average_precision, macro_f1


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


def test_what_was_taken_in_is_forgotten_by_a_reset():
    sums, kept = Sums(2), Kept(3)
    for _ in range(2):
        sums.update(torch.tensor([1.0, 2.0]))
        kept.update(torch.ones(4, 3))
    assert sums.compute().tolist() == [2, 4] and kept.compute().shape == (8, 3)
    for metric in (sums, kept):
        metric.reset()
    assert sums.compute().tolist() == [0, 0] and kept.compute().shape == (0, 3)
