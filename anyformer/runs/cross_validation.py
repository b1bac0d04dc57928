"""Trains the runs of one experiment, one after another: over the folds of its data, and over seeds."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from anyformer.errors import InputError, say
from anyformer.parsing.plain import differences
from anyformer.runs.experiment import Experiment, Unmade, parse
from anyformer.runs.fit import fit
from anyformer.runs.trainer import OF_A_STEP
from anyformer.runs.trials import Trial, list_trials, read_trial, show_trials, write_trials
from anyformer.saving.manifest import has_checkpoints
from anyformer.saving.run_folder import read_trials
from anyformer.saving.run_lock import locked
from anyformer.tasks.base.records import Records
from anyformer.tasks.base.resume import is_below


def fit_trials(own: argparse.Namespace, overrides: Sequence[str], run: Path) -> None:
    """Train a run for each fold and seed into a folder of its own, and write what all in the folder come to.

    A run that has come to its end is not trained again, and one that has not goes on.
    own: the options of `fit`. Raises InputError, before anything is written, where the folder holds runs of another
    config; and where another process trains them.
    """
    if (run / "metrics.csv").exists():
        raise InputError(f"{run} already holds a run; choose another --run_dir for folds and seeds")
    with locked(run):
        _fit_trials(own, overrides, run)


def _fit_trials(own: argparse.Namespace, overrides: Sequence[str], run: Path) -> None:
    # In one process each, which its tests and the loop over the runs need.
    overrides = [*overrides, "--trainer.devices=1"]

    def experiment(trial: Trial, kind: type[Experiment]) -> Experiment:
        options = [*overrides, f"--seed_everything={trial.seed}"]
        if own.folds is not None:
            options += [f"--data.folds={own.folds}", f"--data.fold={trial.fold}"]
        return parse("fit", own.config, options, own.unsafe_imports, run / trial.name, kind)

    config = parse("fit", own.config, overrides, own.unsafe_imports, kind=Unmade).config
    if config["trainer"]["fast_dev_run"]:
        raise InputError("trainer.fast_dev_run tries a few batches and keeps nothing; give it without folds and seeds")
    first = config["seed_everything"]
    asked = list_trials(own.folds, 1 if own.seeds is None else own.seeds, first)
    done = read_trials(run)
    # Those of an earlier command that are not asked for now stay, and count.
    every = list(dict.fromkeys([*map(read_trial, done), *asked]))
    for trial in every:
        folder = run / trial.name
        if (trial.fold is None) != (own.folds is None):
            raise InputError(f"{folder} is {'no' if trial.fold is None else 'a'} fold; choose another --run_dir")
        # What broke off before anything was learned is no run.
        if trial.name in done or has_checkpoints(folder / "checkpoints"):
            before = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
            _check_changes(folder, before, experiment(trial, Experiment), trial.name in done)
    every.sort(key=lambda trial: (trial.seed, trial.fold or 0))
    write_trials(run, every, done)
    for number, trial in enumerate(asked, 1):
        if trial.name in done:
            continue
        folder, made = run / trial.name, experiment(trial, Experiment)
        say(f"{folder}: run {number} of {len(asked)}")
        done[trial.name] = fit(
            made.model,
            made.datamodule,
            folder,
            resume=(folder / "metrics.csv").exists(),
            config=made.resolved,
            saving=made.config_init["checkpoints"],
            **made.options,
        )
        write_trials(run, every, done)
    print(show_trials(every, done))
    print(
        "\nval/ is at the end of training, best/val/ at its best, which the same records chose; the standard error is "
        f"over the {'seeds' if own.folds is None else 'folds'}.\n"
        f"The runs are in {run}, their metrics in its metrics.json"
    )


def _check_changes(folder: Path, before: Mapping[str, Any], now: Experiment, is_done: bool) -> None:
    """Raise InputError where a trial cannot have the config that it is asked for now.

    One that goes on may change what every resume may. Of one that is done only what changes no result, as its metrics
    stand beside those of the others.
    """
    for place, how in differences(dict(before), yaml.safe_load(now.resolved)):
        section, _, path = place.replace("init_args.", "").partition(".")
        may_change = {
            "checkpoints": lambda _: True,
            "data": lambda path: path.rpartition(".")[2] in Records.free if is_done else now.datamodule.is_free(path),
            "model": lambda path: not is_done and now.model.is_free(path),
            "trainer": lambda path: not is_done and not is_below(path, *OF_A_STEP),
        }.get(section)
        if may_change is None or not may_change(path):
            raise InputError(f"{folder} was trained with another config: {place} {how}; choose another --run_dir")
