"""Several runs of one experiment, over the folds of its data and over seeds: which they are, and what they come to.

Knows no trainer; `cross_validation.py` trains them one after another.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from anyformer.errors import InputError
from anyformer.faults import writing
from anyformer.saving.atomic import write_whole
from anyformer.saving.run_folder import Metrics

SHOWN = ("test/", "val/", "best/")
"""What the names of the metrics begin with that are summed up."""


class Trial(NamedTuple):
    """One of the runs."""

    fold: int | None
    """Which fold of the data is validation; None where there is validation data of its own."""
    seed: int

    @property
    def name(self) -> str:
        """Of its folder: `fold_0_seed_0`, or `seed_0`."""
        return f"seed_{self.seed}" if self.fold is None else f"fold_{self.fold}_seed_{self.seed}"

    @property
    def unit(self) -> str:
        """What its metrics are averaged within: the runs of one fold do not differ in the data."""
        return f"seed_{self.seed}" if self.fold is None else f"fold_{self.fold}"


def list_trials(n_folds: int | None, n_seeds: int, first_seed: int = 0) -> list[Trial]:
    """All runs, in the sequence in which they are trained: every fold once, before any is trained with another seed.

    Raises InputError for fewer than 2 folds, or no seed.
    """
    if n_folds is not None and n_folds < 2:
        raise InputError(f"--folds must be at least 2, got {n_folds}")
    if n_seeds < 1:
        raise InputError(f"--seeds must be at least 1, got {n_seeds}")
    folds = [None] if n_folds is None else range(n_folds)
    return [Trial(fold, seed) for seed in range(first_seed, first_seed + n_seeds) for fold in folds]


def read_trial(name: str) -> Trial:
    """The run of a folder's name."""
    *fold, seed = (int(part) for part in re.findall(r"\d+", name))
    return Trial(fold[0] if fold else None, seed)


def write_trials(run: Path, trials: Sequence[Trial], metrics: Mapping[str, Metrics]) -> None:
    """Write the metrics of those that have come to their end as the folder's metrics.json:

    {"runs": {"fold_0_seed_0": {"val/loss": ...}, ...}, "mean": {"val/loss": ...}, "standard_error": {...}}
    """
    with writing(run):
        run.mkdir(parents=True, exist_ok=True)
    units = _by_unit(trials, metrics)
    names = _names(metrics)
    content = {
        "runs": {trial.name: metrics[trial.name] for trial in trials if trial.name in metrics},
        "mean": {name: mean([unit[name] for unit in units.values()]) for name in names},
        "standard_error": {name: standard_error([unit[name] for unit in units.values()]) for name in names},
    }
    write_whole(run / "metrics.json", json.dumps(content, indent=2) + "\n")


def show_trials(trials: Sequence[Trial], metrics: Mapping[str, Metrics]) -> str:
    """A table of the metrics: their mean, its standard error, and the value of each fold (of each seed without folds).

    The metrics of a fold are the means over its seeds, and the standard error is that over the folds.
    """
    if not (names := _names(metrics)):
        return "There are no metrics: all runs ended before their first validation; train for longer."
    units = _by_unit(trials, metrics)
    rows = [["", "mean", "std. error", *units]]
    for name in names:
        values = [unit[name] for unit in units.values()]
        rows.append([name, *(_spelt(value) for value in (mean(values), standard_error(values), *values))])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return "\n".join(lines)


def mean(values: Sequence[float | None]) -> float | None:
    """None where a value is not known."""
    return None if None in values else math.fsum(values) / len(values)


def standard_error(values: Sequence[float | None]) -> float | None:
    """Of the mean, from the deviation of a sample: sqrt(sum (x - mean)^2 / (n (n - 1))); None for fewer than two."""
    if None in values or len(values) < 2:
        return None
    middle = mean(values)
    return math.sqrt(math.fsum((value - middle) ** 2 for value in values) / (len(values) * (len(values) - 1)))


def _by_unit(trials: Sequence[Trial], metrics: Mapping[str, Metrics]) -> dict[str, dict[str, float | None]]:
    """The metrics of each fold (or seed): means over the runs that have come to their end."""
    members: dict[str, list[Metrics]] = {}
    for trial in trials:
        if trial.name in metrics:
            members.setdefault(trial.unit, []).append(metrics[trial.name])
    return {
        unit: {name: mean([each[name] for each in own]) for name in _names(metrics)} for unit, own in members.items()
    }


def _names(metrics: Mapping[str, Metrics]) -> list[str]:
    """The metrics that all runs have."""
    first, *others = metrics.values() if metrics else [{}]
    names = [name for name in first if name.startswith(SHOWN) and name != "best/step"]
    return [name for name in sorted(names) if all(name in each for each in others)]


def _spelt(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
