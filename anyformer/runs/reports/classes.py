"""Precision, recall, F1 and support of each class, of the best model: `by_class.csv`; and a table of few classes."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from anyformer.errors import InputError
from anyformer.local_files import open_file
from anyformer.saving.atomic import write_whole
from anyformer.tasks.base.task import Task
from anyformer.text_tables import align

FILE = "by_class.csv"
COLUMNS = ("stage", "target", "class", "precision", "recall", "f1", "support")
MOST_CLASSES = 20
"""Of a target, that are shown in the terminal."""
Rows = list[dict[str, Any]]


def write_classes(run: Path, task: Task, stage: str) -> None:
    """Put what a task's last evaluation gave of each class into a run's by_class.csv, in the place of that stage's.

    stage: validation or test.
    """
    rows = rows_of(task, stage)
    if rows:
        kept = [row for row in read_classes(run) if row["stage"] != stage]
        file = io.StringIO(newline="")
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*kept, *rows])
        write_whole(run / FILE, file.getvalue())


def rows_of(task: Task, stage: str) -> Rows:
    return [
        {"stage": stage, "target": name, **_without_nan(row)} for name, rows in task.by_class().items() for row in rows
    ]


def _without_nan(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: "" if value != value else value for name, value in row.items()}


def read_classes(run: Path) -> Rows:
    """The rows of a run's by_class.csv; none where there is no file, or one that is damaged and so written anew."""
    path = run / FILE
    if not path.exists():
        return []
    try:
        with io.TextIOWrapper(open_file(path), encoding="utf-8", newline="") as file:
            return [row for row in csv.DictReader(file) if row.keys() == set(COLUMNS)]
    except (OSError, ValueError, csv.Error, InputError):
        return []


def show_classes(rows: Sequence[Mapping[str, Any]], place: Path | None = None) -> str:
    """Tables for the terminal, one a target; of one with many classes where they stand. place: of the file."""
    tables = []
    for stage, target in dict.fromkeys((row["stage"], row["target"]) for row in rows):
        own = [row for row in rows if (row["stage"], row["target"]) == (stage, target)]
        if len(own) > MOST_CLASSES:
            if place is not None:
                tables.append(f"{target} ({stage}): precision, recall and F1 of the {len(own)} classes are in {place}")
            continue
        head = [f"{target} ({stage})", *COLUMNS[3:]]
        lines = [
            [row["class"], *(_cell(row[name]) for name in COLUMNS[3:-1]), f"{int(row['support']):,}"] for row in own
        ]
        tables.append("\n".join(align([head, *lines])))
    return "\n\n".join(tables)


def _cell(value: Any) -> str:
    return "-" if value == "" else f"{float(value):.4f}"
