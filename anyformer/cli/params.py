"""`anyformer params`: parameters and FLOPs of a model whose weights are not made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml

from anyformer.cli.arguments import read_tokens
from anyformer.errors import InputError
from anyformer.front.parsers import params_parser, require_first
from anyformer.parsing.instantiate import instantiate
from anyformer.planning.parameters import measure, token_counts
from anyformer.planning.training import how_trained, show_training
from anyformer.runs.experiment import Unmade, parse
from anyformer.saving.base import locate_base
from anyformer.saving.model_folder import make, model_folder
from anyformer.saving.run_folder import split_run
from anyformer.tasks.base.starting.warm_start import adapt_encoders, freeze, has_encoders, inherit_tokenizers
from anyformer.tasks.start.encoders import open_encoders


def params_command(args: list[str]) -> None:
    parser = params_parser()
    require_first("config", "params CONFIG", args)
    own, overrides = parser.parse_known_args(args)
    task = _without_weights(Path(own.config), overrides, own.unsafe_imports, own.classes, own.base)
    print(measure(task, token_counts(task, read_tokens(own.tokens)), task.conditions))
    if rows := how_trained(task):
        print(f"\n{show_training(rows)}")


def _without_weights(
    config: Path, overrides: Sequence[str], unsafe: Sequence[str], n_classes: int | None, base: str | None
) -> Any:
    """The task of a config or a run, built. Its data is read only where nothing else says what must be known of it."""

    def build(task: Any, source: str | None) -> Any:
        if task.lora is None:
            with torch.device("meta"):
                task.build()
        else:
            # What is trained goes by what the base has.
            task.configure_model()
            if source is None and has_encoders(task):
                adapt_encoders(task)
            else:
                task.take_base(source)
        if task.frozen:
            freeze(task, task.frozen)
        return task

    run, _ = split_run(config)
    if run.is_dir():
        if overrides:
            raise InputError(f"a trained model's options can't be changed; give {overrides[0]} with a config")
        return build(make(config, unsafe_imports=unsafe), locate_base(model_folder(run), base))
    parsed = parse("params", [str(config)], overrides, unsafe, kind=Unmade)
    task = instantiate(yaml.safe_load(parsed.resolved)["model"], unsafe)
    if parsed.start is not None:
        parsed.start.prepare(task)
    elif task.lora is not None:
        inherit_tokenizers(task, task.init_from)
    open_encoders(task, unsafe)
    if n_classes is not None:
        if not any(hasattr(target, "classes") for target in task.targets.values()):
            raise InputError(f"--classes: {type(task).__name__} has no classes")
        names = tuple(map(str, range(n_classes)))
        task.targets = {
            name: replace(target, classes=names) if hasattr(target, "classes") else target
            for name, target in task.targets.items()
        }
    try:
        return build(task, task.init_from)
    except InputError as error:
        unknown = error
    try:
        experiment = parse("params", [str(config)], overrides, unsafe)
        experiment.datamodule.attach(experiment.model)
        experiment.datamodule.setup("fit")
        if task.lora is not None:
            inherit_tokenizers(experiment.model, task.init_from)
        experiment.model.fit_tokenizers(experiment.datamodule.sources["train"])
    except InputError as error:
        raise InputError(f"{unknown}; and the training data cannot be read: {error}") from error
    return build(experiment.model, task.init_from)
