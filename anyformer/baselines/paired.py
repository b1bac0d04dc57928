"""Runs of several folds beside the best simple model of each, on the same records."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from anyformer.baselines.report import Best, Report, by_unit
from anyformer.runs.trials import Units, mean, read_trial, standard_error
from anyformer.runs.trials import by_unit as run_units
from anyformer.saving.run_folder import metrics_of, read_trials
from anyformer.tasks.base.evaluation import of_task


@dataclass(frozen=True)
class Paired:
    """A metric of runs and of the best simple model, by fold (by seed, where there are no folds)."""

    metric: str
    """Of the runs: test/accuracy where inner folds chose the step, else val/accuracy at the end of training."""
    mode: str
    """Whether max or min is best."""
    ours: dict[str, float]
    theirs: dict[str, float]

    @property
    def differences(self) -> list[float]:
        """Ours less theirs."""
        return [value - self.theirs[unit] for unit, value in self.ours.items()]

    def plain(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        found = self.differences
        return asdict(self) | {"difference": mean(found), "standard_error": standard_error(found)}

    def __str__(self) -> str:
        found = self.differences
        better = sum((each > 0) if self.mode == "max" else (each < 0) for each in found)
        what = "folds" if next(iter(self.ours)).startswith("fold") else "seeds"
        return (
            f"The runs less the best of these: {self.metric} {_spelt(found, '+')} ({_spelt([*self.ours.values()])} "
            f"against {_spelt([*self.theirs.values()])}), better in {better} of {len(found)} {what}"
        )


def runs_in(folder: Path) -> tuple[Units, str]:
    """The metrics of the folds (or seeds) of the runs in a folder, and the part that they are of: "test/" where inner
    folds chose the step, else "val/"."""
    done, content = read_trials(folder), metrics_of(folder)
    if "folds" in content:
        return content["folds"], "test/"
    return run_units([read_trial(name) for name in done], done), "val/"


def pair(best: Best, mode: str, runs: Units, part: str, task: str = "") -> Paired | None:
    """The metric that chooses, of runs and of the best simple model; None where they have no fold or metric in common.

    mode: whether "max" or "min" is best. runs, part: as `runs_in` gives them. task: its name in a mixture.
    """
    # A fold that is the test part of a run is what simple models are validated on.
    called = f"{best.target and f'{best.target}/'}{best.metric.rpartition('/')[2]}"
    theirs = by_unit(best.outcomes, f"val/{called}") if f"val/{called}" in best.outcomes[0].metrics else {}
    name = of_task(f"{part}{called}", task) if task else f"{part}{called}"
    ours = {unit: own[name] for unit, own in runs.items() if unit in theirs and own.get(name) is not None}
    return Paired(name, mode, ours, {unit: theirs[unit] for unit in ours}) if ours else None


def pair_all(report: Report, runs: Units, part: str) -> dict[str, list[Paired]]:
    """The same of every target, by the task."""
    return {
        section.task: [
            paired
            for best in section.best()
            if (paired := pair(best, section.metrics[best.target][1], runs, part, section.task)) is not None
        ]
        for section in report.sections
    }


def _spelt(values: list[float], sign: str = "") -> str:
    error = standard_error(values)
    return f"{mean(values):{sign}.4f}" + (f" ±{error:.4f}" if error is not None else "")
