"""Precision, recall, F1 and support of each class: in the run's folder, and as a table of few classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from anyformer.runs.reports.classes import MOST_CLASSES, read_classes, show_classes, write_classes


class Evaluated:
    """A task whose last evaluation is over."""

    def __init__(self, **rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def by_class(self) -> dict[str, list[dict[str, Any]]]:
        return self.rows


def row(name: str, precision: float, recall: float = 0.5, f1: float = 0.25, support: int = 1000) -> dict[str, Any]:
    return {"class": name, "precision": precision, "recall": recall, "f1": f1, "support": support}


def test_each_evaluation_takes_the_place_of_the_one_before_of_its_stage(tmp_path: Path) -> None:
    write_classes(tmp_path, Evaluated(kind=[row("car", 0.125), row("frog", float("nan"), support=2)]), "validation")
    write_classes(tmp_path, Evaluated(kind=[row("car", 1.0)]), "test")
    write_classes(tmp_path, Evaluated(kind=[row("car", 0.75), row("frog", float("nan"), support=2)]), "validation")
    write_classes(tmp_path, Evaluated(), "test")
    rows = read_classes(tmp_path)
    assert [(row["stage"], row["class"], row["precision"]) for row in rows] == [
        ("test", "car", "1.0"),
        ("validation", "car", "0.75"),
        ("validation", "frog", ""),
    ]
    assert show_classes(rows[1:]).splitlines() == [
        "kind (validation)  precision  recall      f1  support",
        "car                   0.7500  0.5000  0.2500    1,000",
        "frog                       -  0.5000  0.2500        2",
    ]
    (tmp_path / "by_class.csv").write_text("damaged")
    assert read_classes(tmp_path) == []


def test_of_many_classes_the_terminal_says_where_they_stand(tmp_path: Path) -> None:
    write_classes(tmp_path, Evaluated(kind=[row(str(i), 0.5) for i in range(MOST_CLASSES + 1)]), "test")
    rows = read_classes(tmp_path)
    assert len(rows) == MOST_CLASSES + 1 and show_classes(rows) == ""
    path = tmp_path / "by_class.csv"
    assert show_classes(rows, path) == f"kind (test): precision, recall and F1 of the 21 classes are in {path}"
