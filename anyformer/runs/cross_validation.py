"""Trains the runs of one experiment, one after another: over the folds of its data, over seeds, and over settings."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from anyformer.errors import Caller, InputError, say
from anyformer.parsing.plain import differences
from anyformer.runs.experiment import Experiment, Unmade, parse
from anyformer.runs.fit import fit
from anyformer.runs.metrics_file import read_rows
from anyformer.runs.trainer import OF_A_STEP
from anyformer.runs.trials import Trial, by_unit, choose, list_trials, read_trial, show_units, write_trials
from anyformer.saving.manifest import has_checkpoints
from anyformer.saving.run_folder import Metrics, read_trials
from anyformer.saving.run_lock import locked
from anyformer.tasks.base.records import Records
from anyformer.tasks.base.resume import is_below

N_INNER = 5
"""Inner folds where none are asked for, of which one validates: a fifth of what is outside the outer fold. With fewer
records a small set's best step is chosen by chance; with more there are fewer to learn from."""
DEALING = (
    *("data.train", "data.validation", "data.test", "data.unlabelled"),
    *("data.stratify", "data.group", "data.group_pattern", "data.split_seed", "data.seed"),
    *("data.folds", "data.fold", "data.inner_folds", "data.inner_fold", "trainer.devices"),
)
"""Options that decide which records are where, or that are the same for all runs anyway."""


@Caller.on_command_line()
def fit_trials(own: argparse.Namespace, overrides: Sequence[str], run: Path) -> None:
    """Train a run for each fold, setting and seed into a folder of its own, and write what all in the folder come to.

    A run that has come to its end is not trained again, and one that has not goes on.
    own: the options of `fit`. Raises InputError, before anything is written, where the folder holds runs of another
    config; and where another process trains them.
    """
    _check_options(own)
    if (run / "metrics.csv").exists():
        raise InputError(f"{run} already holds a run; choose another --run_dir for folds and seeds")
    with locked(run):
        Trials(own, overrides, run).train()


def _check_options(own: argparse.Namespace) -> None:
    """Raise InputError where options of nested folds do not go together."""
    if not own.nested:
        for name in ("inner", "inner_runs", "over"):
            if getattr(own, name) not in (None, []):
                raise InputError(f"--{name} is for folds that nothing is chosen by; give --folds K --nested too")
        return
    if own.folds is None:
        raise InputError("--nested needs the number of outer folds; give --folds 5, say")
    if own.inner is not None and own.inner < 2:
        raise InputError(f"--inner must be at least 2, got {own.inner}")
    n_inner = own.inner or N_INNER
    if own.inner_runs is not None and not 1 <= own.inner_runs <= n_inner:
        raise InputError(
            f"--inner_runs must be 1 to {n_inner}, as many as there are inner folds (--inner), got {own.inner_runs}"
        )


class Trials:
    """The runs in a folder."""

    def __init__(self, own: argparse.Namespace, overrides: Sequence[str], run: Path) -> None:
        """As for `fit_trials`. Raises InputError where the folder holds runs of another config."""
        self.own, self.run = own, run
        # In one process each, which its tests and the loop over the runs need.
        self.overrides = [*overrides, "--trainer.devices=1"]
        self.settings = read_settings(own.over, overrides)
        config = parse("fit", own.config, self.overrides, own.unsafe_imports, kind=Unmade).config
        if config["trainer"]["fast_dev_run"]:
            raise InputError(
                "trainer.fast_dev_run tries a few batches and keeps nothing; give it without folds and seeds"
            )
        self.asked = list_trials(
            own.folds,
            1 if own.seeds is None else own.seeds,
            config["seed_everything"],
            (own.inner_runs or 1) if own.nested else None,
            len(self.settings) or None,
        )
        self.done: dict[str, Metrics] = read_trials(run)
        # Those of an earlier command that are not asked for now stay, and count.
        self.every = list(dict.fromkeys([*map(read_trial, self.done), *self.asked]))
        self.chosen_by = self._metric() if own.nested else ("", "")
        self._check_folder()

    def experiment(self, trial: Trial, kind: type[Experiment] = Experiment) -> Experiment:
        options = [*self.overrides, f"--seed_everything={trial.seed}"]
        if trial.fold is not None:
            options += [f"--data.folds={self.own.folds}", f"--data.fold={trial.fold}"]
        if trial.inner is not None:
            options += [f"--data.inner_folds={self.own.inner or N_INNER}", f"--data.inner_fold={trial.inner}"]
        if trial.setting is not None:
            options += [f"--{option}" for option in self.settings[trial.setting]]
        return parse("fit", self.own.config, options, self.own.unsafe_imports, self.run / trial.name, kind)

    def _metric(self) -> tuple[str, str]:
        """What chooses among steps and settings, and whether "max" or "min" is best; all settings can be made."""
        of_settings = {trial.setting: trial for trial in self.asked}.values()
        first, *others = dict.fromkeys(self.experiment(trial).model.metric for trial in of_settings)
        if others:
            raise InputError(
                f"--over: settings that choose by different metrics, {first[0]} and {others[0][0]}, cannot be compared"
            )
        return first

    def _check_folder(self) -> None:
        """Raise InputError where the folder holds runs of another config than is asked for now."""
        for trial in self.every:
            folder = self.run / trial.name
            for what, is_none, is_asked in (
                ("fold", trial.fold is None, self.own.folds is not None),
                ("run of --nested", trial.inner is None, self.own.nested),
                ("setting of --over", trial.setting is None, bool(self.settings)),
            ):
                if is_none == is_asked:
                    raise InputError(f"{folder} is {'no' if is_none else 'a'} {what}; choose another --run_dir")
            if (trial.setting or 0) >= max(len(self.settings), 1):
                raise InputError(f"{folder} is of a setting that --over lacks; add it, or choose another --run_dir")
            # What broke off before anything was learned is no run.
            if trial.name in self.done or has_checkpoints(folder / "checkpoints"):
                before = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
                _check_changes(folder, before, self.experiment(trial), trial.name in self.done)

    def train(self) -> None:
        self._write()
        for number, trial in enumerate(self.asked, 1):
            if trial.name in self.done:
                continue
            folder, made = self.run / trial.name, self.experiment(trial)
            what = f" ({' '.join(self.settings[trial.setting])})" if self.settings else ""
            say(f"{folder}: run {number} of {len(self.asked)}{what}")
            metrics = fit(
                made.model,
                made.datamodule,
                folder,
                resume=(folder / "metrics.csv").exists(),
                config=made.resolved,
                saving=made.config_init["checkpoints"],
                **made.options,
            )
            self.done[trial.name] = at_the_best(folder, metrics) | metrics if self.own.nested else metrics
            self._write()
        self._show()

    def _write(self) -> None:
        if not self.own.nested:
            write_trials(self.run, self.done, by_unit(self.every, self.done))
            return
        chosen = choose(self.every, self.done, *self.chosen_by)
        more: dict[str, Any] = {"folds": {name: dict(choice.metrics) for name, choice in chosen.items()}}
        if self.settings:
            more["settings"] = [" ".join(setting) for setting in self.settings]
            more["chosen"] = {name: choice.setting for name, choice in chosen.items()}
        write_trials(self.run, self.done, {name: choice.metrics for name, choice in chosen.items()}, **more)

    def _show(self) -> None:
        print(self._nested_report() if self.own.nested else self._report())
        print(f"The runs are in {self.run}, their metrics in its metrics.json")

    def _report(self) -> str:
        units = by_unit(self.every, self.done)
        tested = any(name.startswith("test/") for unit in units.values() for name in unit)
        return "\n".join(
            [
                show_units(units),
                "",
                *(["test/ chose nothing: it is the figure to go by."] if tested else []),
                "val/ is at the end of training: it chose nothing, unless a callback ended the training by it or "
                "settings were tuned on these records.",
                "best/val/ is at its best step, which the same records chose: it is too good.",
                f"The standard error is over the {'seeds' if self.own.folds is None else 'folds'}. Folds that choose "
                "nothing at all: --folds K --nested.",
            ]
        )

    def _nested_report(self) -> str:
        chosen = choose(self.every, self.done, *self.chosen_by)
        if not chosen:
            return "There are no metrics: runs ended before their first validation; train for longer."
        lines = [show_units({name: choice.metrics for name, choice in chosen.items()}), ""]
        for number, setting in enumerate(self.settings):
            folds = ", ".join(name for name, choice in chosen.items() if choice.setting == number)
            scores = [choice.scores[number] for choice in chosen.values()]
            shown = ", ".join("-" if score is None else f"{score:.4f}" for score in scores)
            where = f"chosen in {folds}" if folds else "chosen nowhere"
            lines.append(f"{' '.join(setting)}: {where}; best/{self.chosen_by[0]} by fold {shown}")
        what = "the step and the setting" if self.settings else "the step"
        return "\n".join(
            [
                *lines,
                "test/ is of the outer folds, which chose nothing here: it is the figure to go by, unless settings "
                "of the config were tuned on these records before.",
                f"best/val/ is of inner validation, one of {self.own.inner or N_INNER} inner folds, at its best step; "
                f"it chose {what}. gap/ is test/ less best/val/.",
                "The standard error is over the outer folds.",
            ]
        )


def at_the_best(folder: Path, metrics: Metrics) -> dict[str, float | None]:
    """All metrics of validation at the step that the best model is of: {"best/val/loss": ...}."""
    found: dict[str, float | None] = {}
    for row in read_rows(folder / "metrics.csv"):
        if row["step"] == str(metrics.get("best/step")):
            values = {name: float(text) for name, text in row.items() if name.startswith("val/") and text}
            found = {f"best/{name}": value if math.isfinite(value) else None for name, value in values.items()}
    return found


def read_settings(over: Sequence[str], overrides: Sequence[str] = ()) -> list[list[str]]:
    """The settings that one is chosen of, each as options: every combination of the values.

    over: KEY=a,b,c; a comma within brackets, braces or quotes does not part. Raises InputError for what is no such
    text, for a key that decides the folds, and for one that is given among the overrides too.

    >>> read_settings(["model.transformer.depth=2,3"])
    [['model.transformer.depth=2'], ['model.transformer.depth=3']]
    """
    choices: dict[str, list[str]] = {}
    for text in over:
        key, _, values = text.partition("=")
        each = _parted(values)
        if "." not in key or len(each) < 2 or not all(each):
            raise InputError(
                f"--over {text}: give an option of the config and two values or more to choose from, as in "
                "--over model.transformer.depth=2,3"
            )
        if key in choices or len({*each}) < len(each):
            raise InputError(f"--over {text}: {key if key in choices else 'a value'} is given twice")
        if any(option.partition("=")[0] == f"--{key}" for option in overrides):
            raise InputError(f"--over {text}: {key} is given as an option too; leave out one of the two")
        if is_below(key.replace("init_args.", ""), *DEALING):
            raise InputError(f"--over {text}: {key} must be the same in all runs, or they cannot be compared")
        choices[key] = each
    if not choices:
        return []
    return [
        [f"{key}={value}" for key, value in zip(choices, values, strict=True)] for values in product(*choices.values())
    ]


def _parted(text: str) -> list[str]:
    """A text at its commas, but for those in brackets, braces and quotes."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        else:
            depth += (character in "[{(") - (character in ")}]")
            if character == "," and depth == 0:
                parts.append("")
                continue
        parts[-1] += character
    return [part.strip() for part in parts]


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
