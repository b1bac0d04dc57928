"""The metric of CONTRIBUTING.md, added as it says there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score

from anyformer.model.config import TransformerConfig
from anyformer.tasks.targets.category import METRICS, Category
from tests.helpers.pages import load_example


def test_a_metric_that_is_added_is_computed_and_may_choose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "balanced_accuracy", None)
    load_example("balanced_accuracy", tmp_path, monkeypatch)
    category = Category(classes=("a", "b", "c"))
    head = category.head("kind", None, TransformerConfig(d_model=4, n_heads=2))
    vectors, values = torch.randn(50, 4), torch.from_numpy(np.random.default_rng(0).integers(0, 3, 50))
    head.eval().evaluate(head(vectors), values)
    expected = balanced_accuracy_score(values, head.output(vectors).argmax(1))
    assert head.compute()["balanced_accuracy"].item() == pytest.approx(expected)
    assert category.metrics["balanced_accuracy"].best == "max"
