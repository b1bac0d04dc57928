"""`anyformer validate` and `anyformer test`: the best model's metrics on records."""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from anyformer.cli.outputs import show_metrics
from anyformer.errors import InputError, say
from anyformer.front.parsers import evaluate_parser, require_first
from anyformer.runs.experiment import config_of, parse
from anyformer.runs.fit import evaluate
from anyformer.runs.metrics_file import write_metrics
from anyformer.runs.predictions.predictions import keep_predictions
from anyformer.runs.reports.classes import rows_of, show_classes
from anyformer.runs.reports.ending import of_the_whole
from anyformer.runs.reports.subsets import show_subsets, subsets_in, write_subsets
from anyformer.saving.model_folder import load
from anyformer.saving.run_folder import split_run
from anyformer.saving.run_lock import locked


def validate_command(args: list[str]) -> None:
    _evaluate("validate", args)


def test_command(args: list[str]) -> None:
    _evaluate("test", args)


def _evaluate(stage: str, args: list[str]) -> None:
    part = "validation" if stage == "validate" else "test"
    parser = evaluate_parser(stage)
    require_first("run's folder", f"{stage} RUN", args)
    own, overrides = parser.parse_known_args(args)
    run, member = split_run(own.run)
    task = load(own.run, unsafe_imports=own.unsafe_imports, base=own.base)
    if own.views is not None:
        if "views" not in task.inference_args:
            raise InputError(f"--views: {type(task).__name__} does not average over views of a record; leave it out")
        overrides.append(f"--model.views={own.views}")
    allowed = tuple(f"--model.{name}" for name in task.inference_args)
    for option in overrides:
        if option.startswith("--model") and not option.startswith(allowed):
            raise InputError(f"{option.partition('=')[0]}: a trained model's options can't be changed; leave it out")
    # Metrics of other data, or of a part of it, are shown, and the run keeps its own.
    kept = stage == "test" and not overrides
    if stage == "test" and any(option.startswith("--data.test") for option in overrides):
        # Of a run of nested folds the outer fold would be the test part, whatever is given.
        overrides = [*overrides, "--data.inner_folds=null", "--data.inner_fold=0"]
    if member:
        overrides = [re.sub("^--data[.]", f"--data.parts.{member}.", option) for option in overrides]
        overrides = [re.sub("^--model[.]", f"--model.tasks.{member}.init_args.", option) for option in overrides]
    experiment = parse(stage, [config_of(run)], overrides, own.unsafe_imports, starts=False)
    model, data, folder = experiment.model, experiment.datamodule, run
    if member:
        model, data, folder = model.members[member], data.parts[member], run / member
    task.use_as(model)
    with locked(run) if kept else nullcontext():
        metrics = evaluate(task, data, stage, folder if kept else None, **experiment.options)
        if kept:
            named = {name.replace("/", f"/{member}/", 1): value for name, value in metrics.items()}
            write_metrics(run, named if member else metrics)
            write_subsets(run, task.grouped_by)
        # Of a part of the records alone there are no predictions of all.
        limit = "limit_test_batches" if stage == "test" else "limit_val_batches"
        if own.predictions and not overrides and not experiment.options.get(limit):
            for name, one in (task.members or {member: task}).items():
                _keep_predictions(one, data.parts[name] if task.members else data, part, run / name)
    by = model.grouped_by
    show_metrics(of_the_whole(metrics, by))
    tables = [show_subsets(table) for table in subsets_in(metrics, by).values()]
    for table in filter(None, [*tables, show_classes(rows_of(task, part))]):
        print(f"\n{table}")


def _keep_predictions(task: Any, data: Any, part: str, folder: Path) -> None:
    """Write what the model predicts of the records that it was evaluated on."""
    if (source := data.sources.get(part)) is None:
        return
    if (path := keep_predictions(task, source, folder, data.on_bad_sample == "skip")) is not None:
        say(f"the predictions of the {len(source):,} {part} records are in {path}")
