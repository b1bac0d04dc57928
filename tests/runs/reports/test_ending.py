"""At the end the best model's metrics are shown: of the test, or else of the validation that chose it."""

from __future__ import annotations

from pathlib import Path

from anyformer.runs.metrics_file import MetricsFile
from anyformer.runs.reports.classes import write_classes
from anyformer.runs.reports.ending import MOST_SUBSETS, final_metrics, of_the_whole, tables_after
from tests.runs.reports.test_classes import Evaluated, row


def test_what_is_shown_is_of_the_best_model(tmp_path: Path) -> None:
    rows = MetricsFile(tmp_path)
    rows.begin()
    for step, value in enumerate([0.5, 0.75, 0.25]):
        rows.log_metrics({"train/loss": 1.0, "val/f1": value, "val/without_text/f1": value / 3}, step)
    best = {"best/step": 1, "best/val/f1": 0.75}
    shown = final_metrics(tmp_path, {"val/f1": 0.25, **best})
    assert shown == {**best, "val/f1": 0.75, "val/without_text/f1": 0.25}
    assert of_the_whole(shown, []) == {**best, "val/f1": 0.75}
    fitted = {"calibrated/temperature": 2.0, "calibrated/val/f1": 0.7, "calibrated/val/without_text/f1": None}
    assert final_metrics(tmp_path, {"val/f1": 0.25, **best, **fitted}) == shown | {"val/f1": 0.7}
    test = {"test/f1": 0.5}
    assert final_metrics(tmp_path, {"val/f1": 0.25, **best, **test}) == best | test
    assert final_metrics(tmp_path, {"train/loss": 1.0}) == {"train/loss": 1.0}


def test_tables_of_subsets_and_classes_stand_below(tmp_path: Path) -> None:
    write_classes(tmp_path, Evaluated(kind=[row("car", 0.5)]), "validation")
    write_classes(tmp_path, Evaluated(kind=[row("car", 0.25)]), "test")
    metrics = {"test/f1": 0.5, "test/without_text/f1": 0.125}
    subsets, classes = tables_after(tmp_path, metrics, [])
    assert subsets.splitlines()[0] == f"{tmp_path / 'subsets.csv'}, test:" and "0.1250" in subsets
    assert classes.splitlines()[0].startswith("kind (test)") and "0.2500" in classes
    (classes,) = tables_after(tmp_path, {"val/f1": 0.5}, [])
    assert classes.splitlines()[0].startswith("kind (validation)")
    many = {f"test/n_{i}/f1": 0.5 for i in range(MOST_SUBSETS)}
    subsets, _ = tables_after(tmp_path, {"test/f1": 0.5, **many}, ["n"])
    assert subsets == f"{tmp_path / 'subsets.csv'}, test of {MOST_SUBSETS} subsets"
