"""Making one model of an adapter and the model that it was trained on, in a folder that is used like a run's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from anyformer.errors import InputError
from anyformer.faults import writing
from anyformer.parsing.scalars import dump_yaml
from anyformer.runs.averaging.config import read_config
from anyformer.saving.atomic import write_whole
from anyformer.saving.model_folder import load, save
from anyformer.saving.run_folder import run_folder, split_run
from anyformer.tasks.base.task import NOT_SAVED

NOT_MERGED = ("lora", *NOT_SAVED)
"""Arguments of the model that a merged one has no use for."""


def merge(
    run: str | Path, output: str | Path, *, base: str | Path | None = None, unsafe_imports: Sequence[str] = ()
) -> None:
    """Make one model of an adapter and its base, in a folder of its own; it predicts what the two together do.

    run: the folder of the adapter. output: the folder to make: model/, and config.yaml where the run has one.
    base: where the model that it was trained on is now; where it was then, when left out.
    Raises InputError for a run that is no adapter, a base that has moved or changed, and adapters that act in some
    samples alone.
    """
    folder = run_folder(output)
    if folder.exists():
        raise InputError(f"{folder} is there already; choose another folder")
    task = load(run, unsafe_imports=unsafe_imports, base=base)
    if task.lora is None:
        raise InputError(f"{run} holds a whole model and no adapter; there is nothing to merge")
    task.merge()
    save(task, folder / "model")
    config = read_config(split_run(run)[0])
    if config is not None:
        arguments = config["model"].get("init_args", {})
        config["model"]["init_args"] = {name: arguments[name] for name in arguments if name not in NOT_MERGED}
        with writing(folder):
            write_whole(folder / "config.yaml", f"# {run} and its base. Made by: anyformer merge\n{dump_yaml(config)}")
