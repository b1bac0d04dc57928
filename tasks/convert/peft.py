"""Adapters of peft as runs of ours, bound to the run of their base, and back."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from torch import nn

from anyformer.data.files import find_file
from anyformer.errors import InputError
from anyformer.faults import writing
from anyformer.saving.atomic import PART, sync_file, sync_folder, write_tensors
from anyformer.saving.model_folder import load, make
from anyformer.tasks.base.task import Task
from anyformer.tasks.convert.huggingface import family_of
from anyformer.weights.huggingface import Settings
from anyformer.weights.peft import (
    CONFIG,
    WEIGHTS,
    matrices,
    other_weights,
    peft_files,
    read_peft,
    set_adapters,
    shared_config,
    take_adapters,
)


def is_peft(folder: str | Path) -> bool:
    """Whether a folder holds an adapter as peft writes it."""
    try:
        return (Path(find_file(folder)) / CONFIG).is_file()
    except InputError:
        return False


def from_peft(folder: str | Path, base: str | Path | None) -> tuple[Task, str]:
    """The task of an adapter that peft's `save_pretrained` wrote, of LoRA, on a run that was imported; with what is to
    be said of it.

    base: the run. Raises InputError where it is of another architecture, and for more than A and B of linear maps.
    """
    place = Path(find_file(folder))
    if base is None:
        raise InputError(f"{folder} is an adapter of peft; import its base first, and name that run: --base RUN")
    settings, tensors = read_peft(place)
    whole: Task = load(base)  # type: ignore[assignment]
    family, field, _, values = family_of(whole)
    linears = {name: tuple(part.weight.shape) for name, part in whole.named_modules() if isinstance(part, nn.Linear)}
    found, others = take_adapters(settings, tensors, matrices(family, whole, field), linears)
    trained = other_weights(family, whole, field, others, Settings(values, settings.path))
    task: Task = make(base)  # type: ignore[assignment]
    task.lora = shared_config(found, settings, list(linears))
    task.configure_model()
    task.take_base(base)
    set_adapters(task, found)
    task.of_base -= trained.keys()
    task.load_weights(task.best_weights() | trained)
    said = f"adapters from {folder}: {len(found)} linear maps, of rank {task.lora.rank}"
    return task.eval(), said + (f"; {len(trained)} more tensors that were trained" if trained else "")


def to_peft(task: Task, folder: str | Path) -> None:
    """Write the adapters of a task as a new folder that peft's `PeftModel.from_pretrained` loads onto the base's model
    of transformers. It appears whole or not at all.

    Raises InputError for a task without adapters, or of no family of transformers, and if there is such a folder.
    """
    folder = Path(folder)
    if folder.exists():
        raise InputError(f"{folder} is there already; choose another folder")
    if task.lora is None or not task.lora.on:
        raise InputError("peft: the run has no adapters; train it with lora, or leave --peft out")
    if task.lora.only_with:
        raise InputError("peft: it does not support adapters that act in some samples alone (lora.only_with)")
    family, field, _, _ = family_of(task)
    values, tensors = peft_files(task, family, field)
    part = folder.with_name(folder.name + PART)
    shutil.rmtree(part, ignore_errors=True)
    try:
        with writing(folder):
            part.mkdir(parents=True)
            (part / CONFIG).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
            write_tensors(part / WEIGHTS, tensors, {"format": "pt"})
            for path in part.iterdir():
                sync_file(path)
            os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    sync_folder(folder.absolute().parent)
