"""The metrics of a run: metrics.csv with a row a step, metrics.json with the last of each.

No metric is of wall-clock time, so that a run that was broken off and resumed leaves the rows of one that never was.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from anyformer.errors import InputError, say
from anyformer.faults import writing
from anyformer.local_files import open_file
from anyformer.saving.atomic import write_whole
from anyformer.saving.run_folder import metrics_of

FIRST = ("step", "epoch")
"""The columns that stand in front; the others follow by name, whichever comes first."""

CALIBRATED = "calibrated/"
"""What the names of metrics begin with that are of the best model with its fitted temperatures."""


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
        self._digest = _RowsDigest()
        """Of the rows before it."""

    name = "lightning"
    version = ""

    def __getstate__(self) -> dict[str, Any]:
        # For processes that are spawned: a hash that is being taken cannot travel.
        return {name: value for name, value in vars(self).items() if name != "_digest"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._digest = _RowsDigest(read_rows(self.path)[: self.n_before] if self.n_before else (), self.columns)

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml has them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        step = 0 if step is None else step
        if self.row and self.row["step"] != step:
            self._digest.add(_as_read(self.row, self.columns), self.columns)
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
        self._digest = _RowsDigest(rows, self.columns)

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
        state = {"columns": self.columns, "row": dict(self.row), "n_before": self.n_before, "last": dict(self.last)}
        return state | {"sha256": self._digest.hexdigest()}

    def check(self, state: Mapping[str, Any]) -> None:
        """Raise InputError where the file has not the rows that it had at a checkpoint."""
        if "sha256" not in state:
            return
        rows = read_rows(self.path)[: state["n_before"]] if state["n_before"] else []
        # As they stood then: columns may have come since.
        if _RowsDigest(rows, state["columns"]).hexdigest() != state["sha256"]:
            raise InputError(
                f"{self.path} is damaged: its first {state['n_before']} rows are not those that it had at the "
                "checkpoint; copy the run anew, or train again with another --run_dir"
            )

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


class _RowsDigest:
    """A SHA-256 of rows as a JSON list of lists of texts, taken row by row: reading all at each checkpoint would
    take ever longer."""

    def __init__(self, rows: Iterable[Mapping[str, str]] = (), columns: Sequence[str] = ()) -> None:
        self._sha256, self._between = hashlib.sha256(b"["), b""
        for row in rows:
            self.add(row, columns)

    def add(self, row: Mapping[str, str], columns: Sequence[str]) -> None:
        cells = [row.get(name) or "" for name in columns]
        self._sha256.update(self._between + json.dumps(cells).encode())
        self._between = b", "

    def hexdigest(self) -> str:
        whole = self._sha256.copy()
        whole.update(b"]")
        return whole.hexdigest()


def _as_read(row: Mapping[str, Any], columns: Sequence[str]) -> dict[str, str]:
    """A row as it comes back from the file."""
    file = io.StringIO(newline="")
    csv.DictWriter(file, columns, lineterminator="\n").writerow(row)
    return next(csv.DictReader([file.getvalue()], columns))


def has_rows(path: Path) -> bool:
    """Whether a metrics.csv holds more than its columns."""
    if not path.exists():
        return False
    with open_file(path) as file:
        return len(file.read(2**20).splitlines()) > 1


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv; none where there is no file. Raises InputError for one that is damaged."""
    if not path.exists():
        return []
    try:
        with io.TextIOWrapper(open_file(path), encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} is damaged: {error}; copy the run anew") from None


def read_metrics(run: Path) -> dict[str, float]:
    """The metrics in a run's metrics.json; none where there is no file. Raises InputError for one that is damaged."""
    metrics = metrics_of(run)
    for name, value in metrics.items():
        if not isinstance(value, int | float | None):
            raise InputError(f"{run / 'metrics.json'} is damaged: {name!r} is no number; copy it anew, or remove it")
    return metrics


def write_metrics(run: Path, metrics: Mapping[str, float]) -> None:
    """Put metrics into a run's metrics.json, beside those it has. One that is not finite is written as null.

    A file that is damaged is set aside, and that is said.
    """
    path = run / "metrics.json"
    try:
        merged: dict[str, Any] = read_metrics(run)
    except InputError as error:
        os.replace(path, path.with_name("metrics.json.damaged"))
        say(f"{error}: set aside as metrics.json.damaged, and written anew")
        merged = {}
    merged |= {name: float(value) for name, value in metrics.items()}
    for name, value in merged.items():
        if value is None or not math.isfinite(value):
            merged[name] = None
        elif name.rpartition("/")[2] in FIRST:
            merged[name] = int(value)
    write_whole(path, json.dumps(merged, indent=2, sort_keys=True) + "\n")
