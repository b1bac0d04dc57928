"""The metrics of a run: metrics.csv with a row a step, metrics.json with the last of each, curves.png.

No metric is of wall-clock time, so that a run that was broken off and resumed leaves the rows of one that never was.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from anyformer.errors import writing
from anyformer.saving.atomic import write_whole

FIRST = ("step", "epoch")
"""The columns that stand in front; the others follow by name, whichever comes first."""


class MetricsFile(Logger):
    """A Lightning logger that writes `metrics.csv` in a folder: one row a step, with what was logged at that step."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self.columns = list(FIRST)
        self.row: dict[str, Any] = {}
        """The last row of the file, which may still grow."""
        self.n_before = 0
        """Rows before it."""
        self.last: dict[str, float] = {}
        """The last value of every column."""
        self._start = 0
        """Where the last row begins in the file."""

    name = "lightning"
    version = ""

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml has them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        step = 0 if step is None else step
        if self.row and self.row["step"] != step:
            self.row, self.n_before = {}, self.n_before + 1
            with writing(self.path):
                self._start = self.path.stat().st_size
        self.row |= {"step": step, **metrics}
        self.last |= self.row
        if new := self.row.keys() - set(self.columns):
            self._widen(new)
        self._write_row()

    def _widen(self, names: set[str]) -> None:
        """Write the file again with more columns."""
        rows = read_rows(self.path)[: self.n_before]
        self.columns = [*FIRST, *sorted({*self.columns, *names} - set(FIRST))]
        self._write_file(rows)

    def _write_file(self, rows: list[dict[str, str]]) -> None:
        def write(path: Path) -> None:
            with open(path, "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, self.columns, lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)

        write_whole(self.path, write)
        self._start = self.path.stat().st_size

    def _write_row(self) -> None:
        with writing(self.path), open(self.path, "r+", newline="", encoding="utf-8") as file:
            file.seek(self._start)
            csv.DictWriter(file, self.columns, lineterminator="\n").writerow(self.row)
            file.truncate()

    @rank_zero_only
    def begin(self) -> None:
        """Start the file."""
        self._write_file([])

    def state_dict(self) -> dict[str, Any]:
        """Where the file stands, for a checkpoint; all that it speaks of is on the disk."""
        if self.path.exists():
            with writing(self.path), open(self.path, "rb") as file:
                os.fsync(file.fileno())
        return {"columns": self.columns, "row": dict(self.row), "n_before": self.n_before, "last": dict(self.last)}

    @rank_zero_only
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Cut the file back to where it stood."""
        self.columns, self.row, self.last = list(state["columns"]), dict(state["row"]), dict(state["last"])
        self.n_before = state["n_before"]
        self._write_file(
            [{name: row.get(name, "") for name in self.columns} for row in read_rows(self.path)[: self.n_before]]
        )
        if self.row:
            self._write_row()


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv; none where there is no file."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_metrics(run: Path) -> dict[str, float]:
    """The metrics in a run's metrics.json; none where there is no file."""
    path = run / "metrics.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write_metrics(run: Path, metrics: Mapping[str, float]) -> None:
    """Put metrics into a run's metrics.json, beside those it has. One that is not finite is written as null."""
    merged = read_metrics(run) | {name: float(value) for name, value in metrics.items()}
    for name, value in merged.items():
        if value is None or not math.isfinite(value):
            merged[name] = None
        elif name.rpartition("/")[2] in FIRST:
            merged[name] = int(value)
    write_whole(run / "metrics.json", json.dumps(merged, indent=2, sort_keys=True) + "\n")


def draw_curves(run: Path) -> None:
    """Draw metrics.csv as curves.png: one panel a figure, with a line for each of train, val, ..."""
    from matplotlib.figure import Figure

    panels: dict[str, dict[str, tuple[list[int], list[float]]]] = {}
    for row in read_rows(run / "metrics.csv"):
        for name, text in row.items():
            if name not in FIRST and text:
                stage, _, figure = name.rpartition("/")
                steps, values = panels.setdefault(figure, {}).setdefault(stage or name, ([], []))
                steps.append(int(row["step"]))
                values.append(float(text))
    if not panels:
        return
    n_columns = min(len(panels), 3)
    n_rows = math.ceil(len(panels) / n_columns)
    page = Figure(figsize=(4 * n_columns, 3 * n_rows), layout="constrained")
    axes = list(page.subplots(n_rows, n_columns, squeeze=False).flat)
    for panel, (figure, lines) in zip(axes, sorted(panels.items()), strict=False):
        for stage, (steps, values) in sorted(lines.items()):
            panel.plot(steps, values, label=stage, marker="." if len(steps) < 30 else None)
        panel.set(title=figure, xlabel="step")
        panel.grid(alpha=0.3)
        panel.legend()
    for unused in axes[len(panels) :]:
        unused.set_axis_off()
    write_whole(run / "curves.png", lambda part: page.savefig(part, format="png", dpi=100))
