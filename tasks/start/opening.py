"""The model that `init_from` names, of whatever library: a run of ours, or a checkpoint that can be brought in.

What can be opened is listed once, in `_foreign`; all that starts from a model comes through here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from anyformer.data.files import find_beside
from anyformer.errors import InputError
from anyformer.saving.manifest import find_folder
from anyformer.saving.model_folder import Undrawn, load, make
from anyformer.saving.run_folder import find_run
from anyformer.tasks.base.task import Task
from anyformer.tasks.convert.huggingface import open_folder, openai_file, take_in
from anyformer.tasks.convert.timm import is_timm, open_timm
from anyformer.weights.huggingface import CONFIG
from anyformer.weights.tensors import Report


def describe_model(source: str | Path, packages: Sequence[str] = ()) -> Task | None:
    """The task of a source, neither built nor with its weights; None for a timm file that has no config.json beside it,
    whose sizes nothing tells.

    packages: beside anyformer, that a run's config may name classes of.
    Raises InputError where there is no model, or one that cannot be brought in.
    """
    path, member = _find(source)
    if opener := _foreign(path):
        return opener(path)[0]
    return make(f"{path}{member}", unsafe_imports=packages) if path.is_dir() else None  # type: ignore[return-value]


def open_model(source: str | Path, packages: Sequence[str] = ()) -> Task | None:
    """As `describe_model`, with its weights."""
    path, member = _find(source)
    if opener := _foreign(path):
        task, fill = opener(path)
        with Undrawn():
            task.build()
        fill()
        return task
    return load(f"{path}{member}", unsafe_imports=packages) if path.is_dir() else None  # type: ignore[return-value]


def bring_in(
    source: str | Path, language: str | None = None, pad: bool | None = None, environment: str | None = None
) -> tuple[Task, Report]:
    """The model of a checkpoint of another library, with its weights, and what became of every tensor.

    language, pad, environment: see `from_transformers`.
    """
    path = Path(find_beside(source)) if "://" not in str(source) else Path(source)
    if not is_timm(path):
        if path.suffix == ".safetensors":
            raise InputError(
                f"{source} does not say of which model it is; put timm's config.json beside it, as in "
                '{"architecture": "vit_tiny_patch16_224", "num_classes": 10}'
            )
        return take_in(source, language, pad, environment)
    if (language, pad, environment) != (None, None, None):
        raise InputError(f"{source} is of timm; --language, --pad and --env are for others")
    task, fill = open_timm(path)
    with Undrawn():
        task.build()
    return task.eval(), fill()


def hand_over(task: Task) -> None:
    """Open the checkpoint of another library that a task's `init_from` names, for training to start from."""
    source = task.init_from
    if task.has_started:
        return
    if task.pretrained is None and source is not None and "://" not in source and _foreign(_find(source)[0]):
        if task.lora is not None:
            raise InputError(
                f"init_from: lora adapts a run, whose weights it can be bound to; make one of {source} first, by "
                f"anyformer import {source} runs/base, and name that"
            )
        task.origin = (open_model(source),)


def _find(source: str | Path) -> tuple[Path, str]:
    if "://" in str(source):
        raise InputError(f"init_from is a local file or folder; nothing is loaded from the network, got {source}")
    return find_run(source)


def _foreign(path: Path) -> Callable[[Path], tuple[Task, Callable[[], Report]]] | None:
    """What opens a checkpoint of another library: as a task, and what fills it. None for what is none."""
    if is_timm(path):
        return open_timm
    is_run = path.is_dir() and (find_folder(path / "model") or find_folder(path)) is not None
    if not is_run and (openai_file(path) is not None or (path / CONFIG).is_file()):
        return open_folder
    return None
