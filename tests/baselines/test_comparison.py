"""Simple models on each field and on all, over folds and seeds."""

from __future__ import annotations

import numpy as np
import pytest

from anyformer.baselines.baseline import baseline
from anyformer.tasks.base.records import Records
from anyformer.tasks.predict.predict import Predict
from anyformer.tasks.targets.category import Category
from anyformer.tasks.targets.regression import Regression
from anyformer.tokenizers.row import Row
from anyformer.tokenizers.text.text import Text
from tests.helpers.given_rows import Rows


@pytest.fixture(scope="module")
def source() -> Rows:
    """The kind is what the text says, but for some texts that are missing; the price is in the row."""
    random = np.random.default_rng(0)
    size = random.normal(size=60)
    words = random.choice(["red", "blue"], 60)
    return Rows(
        [
            {"text": None if i % 10 == 0 else f"a {word} thing", "row": {"size": x, "noise": random.normal()},
             "kind": word, "price": None if i % 7 == 0 else 3 * x}
            for i, (word, x) in enumerate(zip(words.tolist(), size.tolist(), strict=True))
        ]
    )  # fmt: skip


def test_each_field_alone_and_all_together_over_folds_and_seeds(source: Rows) -> None:
    task = Predict({"text": Text(), "row": Row()}, {"kind": Category(), "price": Regression()}, choose="price/mae")
    (section,) = baseline(task, Records(source), n_folds=2, n_seeds=2).sections
    found = {(line.target, line.fields, line.model): line.outcomes for line in section.lines}
    sets = ["text", "row", "text + row"]
    assert found.keys() == {
        ("kind", "", "most frequent"),
        ("price", "", "mean"),
        *(("kind", fields, model) for fields in sets for model in ("logistic regression", "random forest")),
        *(("price", fields, model) for fields in sets for model in ("ridge", "random forest")),
    }
    for outcomes in found.values():
        assert [(outcome.trial.fold, outcome.trial.seed) for outcome in outcomes] == [(0, 0), (0, 1), (1, 0), (1, 1)]

    def worth(target: str, fields: str, model: str, metric: str) -> float:
        return float(np.mean([each.metrics[f"val/{target}/{metric}"] for each in found[target, fields, model]]))

    assert worth("kind", "text", "logistic regression", "accuracy") > 0.85
    assert worth("kind", "row", "logistic regression", "accuracy") < 0.75
    assert worth("price", "row", "ridge", "rmse") < 0.3 < 1 < worth("price", "text", "ridge", "rmse")
    kind, price = section.best()
    assert (price.metric, kind.metric) == ("mae", "accuracy")
    assert price.names[0].startswith("ridge on ") and kind.names[0].endswith(("on text", "on text + row"))
    # A forest has its seed, and the linear models theirs alone for the inner folds.
    first, second = (each.metrics["val/price/rmse"] for each in found["price", "row", "random forest"][:2])
    assert first != second
