"""Targets as arrays, and predictions in the metrics of the task, beside scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from anyformer.baselines.aims import TextAim, aim_of
from anyformer.tasks.targets.category import Category
from anyformer.tasks.targets.labels import Labels
from anyformer.tasks.targets.masked import Masked
from anyformer.tasks.targets.regression import Regression
from anyformer.tokenizers.text.text import Text
from tests.helpers.given_rows import Rows


def fitted(target, values):
    aim = aim_of("y", target)
    source = Rows([{"y": value} for value in values])
    aim.fit(source)
    found = [aim.value(source[i]) for i in range(len(source))]
    return aim, found


def test_classes_have_the_metrics_of_their_head() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 2, 50).tolist()
    aim, values = fitted(Category(), truth)
    p = random.dirichlet([1, 1], 50)
    scores = aim.score(p, values)
    assert scores.keys() == {"accuracy", "f1", "auroc"}
    assert scores["auroc"] == pytest.approx(metrics.roc_auc_score(truth, p[:, 1]))
    assert scores["f1"] == pytest.approx(metrics.f1_score(truth, p.argmax(1), average="macro"))
    aim, values = fitted(Category(), list(range(7)) * 5)
    assert "top5" in aim.score(random.dirichlet([1] * 7, 35), values)


def test_labels_have_the_metrics_of_their_head() -> None:
    random = np.random.default_rng(0)
    aim, values = fitted(Labels(), ["a,b", "b", "c", "a,c", "b,c"])
    p = random.random((5, 3))
    truth = np.stack(values)
    scores = aim.score(p, values)
    assert scores["f1"] == pytest.approx(metrics.f1_score(truth, p > 0.5, average="micro"))
    assert scores["map"] == pytest.approx(metrics.average_precision_score(truth, p), abs=1e-6)
    assert scores["exact_match"] == ((p > 0.5) == truth).all(1).mean()


@pytest.mark.parametrize("scaling", ["standard", "log", "none"])
def test_numbers_are_rated_in_their_units_and_missing_ones_are_not(scaling: str) -> None:
    aim, values = fitted(Regression(n=2, scaling=scaling), [[1.0, 2.0], [3.0, None], [5.0, 8.0]])
    output = np.nan_to_num(np.stack(values))
    assert aim.score(output, values)["rmse"] == pytest.approx(0, abs=1e-6)
    wrong = output.copy()
    wrong[1, 1] += 9
    assert aim.score(wrong, values)["rmse"] == pytest.approx(0, abs=1e-6)
    wrong[0, 0] += 0.5
    assert aim.score(wrong, values)["mae"] > 0.05


def test_few_texts_are_classes_and_many_are_not() -> None:
    rows = [{"text": word} for word in ("One", "two") * 6]
    aim = TextAim("text", Text(normalize="lowercase"), ["wer", "exact_match"])
    assert aim.obstacle(Rows(rows)) is None
    aim.fit(Rows(rows))
    assert aim.texts == ["one", "two"]
    # A text that training has not is a mistake.
    values = [aim.value({"text": text}) for text in ("ONE", "three")]
    assert aim.score(np.array([[0.9, 0.1], [0.2, 0.8]]), values) == {"wer": 0.5, "exact_match": 0.5}
    many = Rows([{"text": f"number {i}"} for i in range(12)])
    assert aim.obstacle(many) == "'text' holds 12 different texts in 12 training records"
    assert aim_of("image", Masked()) is None
