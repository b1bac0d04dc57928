"""The kind of target of CONTRIBUTING.md, added as it says there, learned and predicted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anyformer.model.config import TransformerConfig
from anyformer.optim.optimizer import OptimizerConfig
from anyformer.runs.fit import fit
from anyformer.tasks.base.records import Records
from anyformer.tasks.predict.predict import Predict
from anyformer.tokenizers.row import Row
from tests.helpers.pages import load_example
from tests.tasks.predict.test_predict import Rows


def test_a_target_that_is_added_learns_and_predicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load_example("counts", tmp_path, monkeypatch)
    sizes = np.random.default_rng(0).integers(1, 4, 300).tolist()
    rows = [{"size": {"x": float(size)}, "found": 3 * size} for size in sizes]
    task = Predict(
        {"size": Row()},
        {"found": module.Count()},
        TransformerConfig(d_model=16, depth=1, n_heads=2),
        optimizer=OptimizerConfig(lr=1e-2),
    )
    data = Records(train=Rows(tuple(rows[:250])), validation=Rows(tuple(rows[250:])), batch_size=25)
    options = {"enable_progress_bar": False, "accelerator": "cpu"}
    metrics = fit(task, data, tmp_path / "run", max_epochs=12, **options)
    assert metrics["val/mae"] < 1
    (small,), (large,) = (task.predict([{"size": {"x": x}}]) for x in (1.0, 3.0))
    assert small["found"] == pytest.approx(3, abs=1) and large["found"] == pytest.approx(9, abs=2)
