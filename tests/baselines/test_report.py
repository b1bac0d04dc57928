"""What simple models came to."""

from __future__ import annotations

import json
import math

from anyformer.baselines.report import Line, Outcome, Report, Section, show_best
from anyformer.runs.trials import Trial


def outcomes(accuracies: list[float], inner: list[float | None]) -> list[Outcome]:
    return [
        Outcome(Trial(fold, 0), {"val/accuracy": value, "val/f1": math.nan}, own)
        for fold, (value, own) in enumerate(zip(accuracies, inner, strict=True))
    ]


SECTION = Section(
    "", "Classify", [
        Line("", "", "most frequent", outcomes([0.5, 0.5], [0.5, 0.5])),
        Line("", "image", "random forest", outcomes([0.7, 0.9], [0.8, 0.6])),
        Line("", "image", "logistic regression", outcomes([0.99, 0.6], [0.7, 0.7])),
    ],
    {"": ("accuracy", "max")}, ["a note"],
)  # fmt: skip


def test_the_best_is_chosen_by_the_training_records_of_each_fold_and_not_by_those_reported() -> None:
    (best,) = SECTION.best()
    assert best.names == ["random forest on image", "logistic regression on image"]
    assert [outcome.metrics["val/accuracy"] for outcome in best.outcomes] == [0.7, 0.6]
    assert show_best(best) == (
        "random forest on image (or logistic regression on image, by fold), val/accuracy 0.6500 ±0.0500"
    )


def test_the_least_is_best_of_an_error() -> None:
    section = Section("", "", [Line("", "", name, [Outcome(Trial(None, 0), {"val/rmse": x}, x)]) for name, x in
                               (("mean", 2.0), ("ridge", 1.0))], {"": ("rmse", "min")}, [])  # fmt: skip
    assert section.best()[0].names == ["ridge"]


def test_the_table_and_the_plain_values_say_the_same() -> None:
    report = Report([SECTION])
    lines = str(report).splitlines()
    assert lines[1].split() == ["reads", "model", "val/accuracy", "val/f1"]
    assert lines[3].split()[:4] == ["image", "random", "forest", "0.8000"] and "±0.1000" in lines[3]
    assert lines[-1] == "- a note"
    (forest,) = [line for line in report.plain()[""]["baselines"] if line["model"] == "random forest"]
    assert forest["mean"] == {"val/accuracy": 0.8, "val/f1": None}
    assert forest["values"]["val/accuracy"] == {"fold_0": 0.7, "fold_1": 0.9}
    json.dumps(report.plain(), allow_nan=False)
