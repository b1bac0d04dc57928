"""Several runs of one experiment, over the folds of its data, over seeds and settings: which they are, and what they
come to.

Knows no trainer; `cross_validation.py` trains them one after another.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from anyformer.errors import Caller, InputError
from anyformer.faults import writing
from anyformer.saving.atomic import write_whole
from anyformer.saving.run_folder import Metrics
from anyformer.text_tables import align

SHOWN = ("test/", "val/", "best/")
"""What the names of the metrics begin with that are summed up."""

Units = Mapping[str, Mapping[str, float | None]]
"""The metrics of each fold, or of each seed where there are no folds."""


class Trial(NamedTuple):
    """One of the runs."""

    fold: int | None
    """Which fold of the data is validation, or test where there are inner folds; None where nothing is dealt."""
    seed: int
    inner: int | None = None
    """Which inner fold of the other records is validation; None without inner folds."""
    setting: int | None = None
    """Which of the settings that one is chosen of; None where there are none."""

    @property
    def name(self) -> str:
        """Of its folder: `fold_0_seed_0`, `seed_0`, `fold_0_setting_1_inner_0_seed_0`."""
        parts = {"fold": self.fold, "setting": self.setting, "inner": self.inner, "seed": self.seed}
        return "_".join(f"{part}_{number}" for part, number in parts.items() if number is not None)

    @property
    def unit(self) -> str:
        """What its metrics are averaged within: the runs of one fold are held to the same data."""
        return f"seed_{self.seed}" if self.fold is None else f"fold_{self.fold}"


@Caller.on_command_line()
def list_trials(
    n_folds: int | None,
    n_seeds: int,
    first_seed: int = 0,
    n_inner: int | None = None,
    n_settings: int | None = None,
) -> list[Trial]:
    """All runs, in the sequence in which they are trained: every fold once, before any is trained with another seed.

    n_inner: of how many inner folds each is validation once; None without inner folds.
    n_settings: how many settings one is chosen of; None where there are none.
    Raises InputError for fewer than 2 folds, or no seed.
    """
    if n_folds is not None and n_folds < 2:
        raise InputError(f"--folds must be at least 2, got {n_folds}")
    if n_seeds < 1:
        raise InputError(f"--seeds must be at least 1, got {n_seeds}")
    folds, inner, settings = ([None] if n is None else range(n) for n in (n_folds, n_inner, n_settings))
    return [
        Trial(fold, seed, own, setting)
        for seed in range(first_seed, first_seed + n_seeds)
        for fold in folds
        for setting in settings
        for own in inner
    ]


def read_trial(name: str) -> Trial:
    """The run of a folder's name."""
    return Trial(**{"fold": None, **{part: int(number) for part, number in re.findall(r"([a-z]+)_(\d+)", name)}})


def write_trials(run: Path, metrics: Mapping[str, Metrics], units: Units, **more: Any) -> None:
    """Write the metrics of those that have come to their end as the folder's metrics.json, and what they come to:

    {"runs": {"fold_0_seed_0": {"val/loss": ...}, ...}, "mean": {"val/loss": ...}, "standard_error": {...}}

    metrics: by the names of the runs. more: what stands beside it.
    """
    with writing(run):
        run.mkdir(parents=True, exist_ok=True)
    columns = {name: [unit[name] for unit in units.values()] for name in _names(units)}
    content = {
        "runs": metrics,
        "mean": {name: mean(values) for name, values in columns.items()},
        "standard_error": {name: standard_error(values) for name, values in columns.items()},
        **more,
    }
    write_whole(run / "metrics.json", json.dumps(content, indent=2) + "\n")


def show_units(units: Units) -> str:
    """A table of the metrics: their mean, its standard error, and the value of each fold (of each seed without folds).

    The metrics of a fold are the means over its seeds, and the standard error is that over the folds.
    """
    if not (names := _names(units)):
        return "There are no metrics: all runs ended before their first validation; train for longer."
    rows = [["", "mean", "std. error", *units]]
    for name in names:
        values = [unit[name] for unit in units.values()]
        rows.append([name, *(_spelt(value) for value in (mean(values), standard_error(values), *values))])
    return "\n".join(align(rows))


def mean(values: Sequence[float | None]) -> float | None:
    """None where a value is not known."""
    return None if None in values else math.fsum(values) / len(values)


def standard_error(values: Sequence[float | None]) -> float | None:
    """Of the mean, from the deviation of a sample: sqrt(sum (x - mean)^2 / (n (n - 1))); None for fewer than two."""
    if None in values or len(values) < 2:
        return None
    middle = mean(values)
    return math.sqrt(math.fsum((value - middle) ** 2 for value in values) / (len(values) * (len(values) - 1)))


def by_unit(trials: Sequence[Trial], metrics: Mapping[str, Metrics]) -> Units:
    """The metrics of each fold (or seed): means over the runs that have come to their end, of what all of them have."""
    done = [trial for trial in trials if trial.name in metrics]
    names = [
        name
        for name in _shared(metrics[trial.name] for trial in done)
        if name.startswith(SHOWN) and name != "best/step"
    ]
    members: dict[str, list[Metrics]] = {}
    for trial in sorted(done, key=lambda trial: (trial.seed, trial.fold or 0)):
        members.setdefault(trial.unit, []).append(metrics[trial.name])
    return {unit: _means(own, sorted(names)) for unit, own in members.items()}


class Choice(NamedTuple):
    """What an outer fold comes to."""

    setting: int | None
    """The one that inner validation found best; None where there is nothing to choose."""
    scores: Mapping[int | None, float | None]
    """The metric that chose it, of every setting: the mean over inner folds and seeds."""
    metrics: Mapping[str, float | None]
    """Of that setting: `best/val/accuracy` of inner validation at its best step, which chose it; `test/accuracy` of the
    outer fold, which chose nothing; and `gap/accuracy`, test less validation."""


def choose(trials: Sequence[Trial], metrics: Mapping[str, Metrics], name: str, best: str) -> dict[str, Choice]:
    """What each outer fold comes to, by the names of the folds.

    A fold counts once there is a run of every setting with the same inner fold and seed, and settings are compared by
    those alone. Of equals the first is chosen.
    name: the metric that chooses, as `val/accuracy`. best: whether "max" or "min" is best.
    """
    done = [trial for trial in trials if trial.name in metrics]
    known = _shared(metrics[trial.name] for trial in done)
    if f"best/{name}" not in known:
        return {}
    shown = [f"test/{metric}" for each in known if (metric := each.removeprefix("test/")) != each]
    shown.sort(key=lambda each: (each != name.replace("val/", "test/", 1), each))
    settings = list(dict.fromkeys(sorted((trial.setting for trial in trials), key=lambda each: each or 0)))
    chosen = {}
    for fold in sorted({trial.fold for trial in trials}):
        runs: dict[int | None, dict[tuple, Metrics]] = {setting: {} for setting in settings}
        for trial in done:
            if trial.fold == fold:
                runs[trial.setting][trial.inner, trial.seed] = metrics[trial.name]
        shared = set.intersection(*(set(own) for own in runs.values()))
        if not shared:
            continue
        means = {setting: _means([own[each] for each in shared], known) for setting, own in runs.items()}
        scores = {setting: own[f"best/{name}"] for setting, own in means.items()}
        first, *others = settings
        for other in others:
            if _is_better(scores[other], scores[first], best):
                first = other
        chosen[f"fold_{fold}"] = Choice(first, scores, _with_gaps(means[first], shown))
    return chosen


def _is_better(value: float | None, than: float | None, best: str) -> bool:
    if value is None or than is None:
        return value is not None
    return value > than if best == "max" else value < than


def _with_gaps(metrics: Mapping[str, float | None], shown: Sequence[str]) -> dict[str, float | None]:
    found = {}
    for test in shown:
        validation, gap = test.replace("test/", "best/val/", 1), test.replace("test/", "gap/", 1)
        if validation in metrics:
            values = metrics[validation], metrics[test]
            found[validation], found[test] = values
            found[gap] = None if None in values else values[1] - values[0]
        else:
            found[test] = metrics[test]
    return found


def _means(members: Sequence[Metrics], names: Iterable[str]) -> dict[str, float | None]:
    return {name: mean([each[name] for each in members]) for name in names}


def _shared(metrics: Iterable[Metrics]) -> list[str]:
    """The names that all have."""
    first, *others = [*metrics] or [{}]
    return [name for name in first if all(name in each for each in others)]


def _names(units: Units) -> list[str]:
    return list(next(iter(units.values()), {}))


def _spelt(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
