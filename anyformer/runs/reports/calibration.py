"""Calibration of a run's best model on its validation records, see `tasks.targets.calibration`; kept in its folder."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from anyformer.errors import say
from anyformer.runs.metrics_file import CALIBRATED, read_metrics, write_metrics
from anyformer.saving.model_folder import save
from anyformer.tasks.base.task import Task


def calibrate(task: Task, run: Path, validate: Callable[[Path | None], Mapping[str, float]]) -> None:
    """Fit the temperature of every target that asks for one, write the model with them, and say what that changes.

    task: with the best weights. validate: evaluates the task on the validation records, and draws into a folder it is
    given; returns the metrics.
    """
    task.begin_calibration()
    before = validate(None)
    fitted = task.end_calibration()
    after = validate(run)
    if rank_zero_only.rank != 0:
        # Of several processes, which have fitted the same, the first writes for all.
        return
    save(task, run / "model")
    found = {name: temperature for name, temperature in fitted.items() if not isinstance(temperature, str)}
    kept = {f"temperature/{name.rpartition('/')[0]}".rstrip("/"): t for name, t in found.items()}
    metrics = after if found else {}
    # Of a run that has gone on: what was written of the model before is not of this one.
    earlier = {name: math.nan for name in read_metrics(run) if name.startswith(CALIBRATED)}
    write_metrics(run, earlier | {f"{CALIBRATED}{name}": value for name, value in {**metrics, **kept}.items()})
    for name, temperature in fitted.items():
        if isinstance(temperature, str):
            say(f"not calibrated: {temperature} (val/{name})")
        else:
            # The loss is what the temperature is fitted by.
            said = [
                f"val/{each} {before[f'val/{each}']:.4f} before, {after[f'val/{each}']:.4f} after"
                for each in (name, f"{name.removesuffix('ece')}loss")
                if f"val/{each}" in before
            ]
            say(f"calibrated: {'; '.join(said)}, by a temperature of {temperature:.3g}, which is the best for the loss")
