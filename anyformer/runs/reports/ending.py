"""What is shown of a run that is over: the metrics of its best model, those of subsets, and of each class."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from anyformer.runs.metrics_file import CALIBRATED, read_rows
from anyformer.runs.reports.classes import FILE, read_classes, show_classes
from anyformer.runs.reports.subsets import ALL, STAGES, read_name, show_subsets, subsets_in

MOST_SUBSETS = 30
"""Lines of the table that is shown."""


def final_metrics(run: Path, metrics: Mapping[str, float]) -> dict[str, float]:
    """Those of the test where there is one, else of the validation that chose the best model, calibrated where that is;
    and which step it was."""
    best = {name: value for name, value in metrics.items() if name.startswith("best/")}
    test = {name: value for name, value in metrics.items() if name.startswith("test/")}
    if test or "best/step" not in best:
        return best | test or dict(metrics)
    rows = [row for row in read_rows(run / "metrics.csv") if row["step"] == str(best["best/step"])]
    chosen = {n: float(text) for row in rows for n, text in row.items() if n.startswith("val/") and text}
    calibrated = {n.removeprefix(CALIBRATED): value for n, value in metrics.items() if n.startswith(CALIBRATED)}
    return best | chosen | {n: value for n, value in calibrated.items() if n in chosen and value is not None}


def tables_after(run: Path, metrics: Mapping[str, float], by: Collection[str]) -> list[str]:
    """The tables below the metrics. metrics: of `final_metrics`. by: the columns that metrics are given by."""
    tables = []
    for stage, table in subsets_in(metrics, by).items():
        shown = f":\n{show_subsets(table)}" if len(table) <= MOST_SUBSETS else f" of {len(table) - 1} subsets"
        tables.append(f"{run / 'subsets.csv'}, {STAGES[stage]}{shown}")
    stage = "test" if any(name.startswith("test/") for name in metrics) else "validation"
    classes = show_classes([row for row in read_classes(run) if row["stage"] == stage], run / FILE)
    return [*tables, classes] if classes else tables


def of_the_whole(metrics: Mapping[str, float], by: Collection[str]) -> dict[str, float]:
    """The metrics that are of no subset."""
    return {name: value for name, value in metrics.items() if read_name(name, by).subset == ALL}
