"""The folder of a model alone: config, what is too large for it, weights, manifest."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Protocol, Self

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

from anyformer.errors import InputError, nearest
from anyformer.local_files import read_json, read_value
from anyformer.model.by_field import with_weight_names
from anyformer.parsing.instantiate import instantiate
from anyformer.parsing.large import Large, put_back, take_out
from anyformer.parsing.plain import plain
from anyformer.saving.atomic import write_tensors
from anyformer.saving.base import WEIGHTS, Base, locate_base, write_base
from anyformer.saving.manifest import MANIFEST, find_folder, listed, read_manifest, replace_folder
from anyformer.saving.run_folder import first_trial, holds_trials, split_run
from anyformer.saving.usage import USAGE

CONFIG = "config.json"
"""What every folder of a model holds beside its weights."""
FILES = "files"
"""The key of config.json under which stand the arguments that have a file of their own, and its name."""


class SavedTask(Protocol):
    """What a folder holds: a task, as far as it is saved, loaded and used."""

    @property
    def members(self) -> Mapping[str, Self]:
        """The tasks of a mixture, by name; none of any other."""

    @property
    def inputs(self) -> list[str]:
        """The fields that `predict` is given."""

    @property
    def link_columns(self) -> list[str]:
        """The columns beside them that it may be given."""

    @property
    def tokenizers(self) -> Mapping[str, Any]:
        """By field."""

    @property
    def options(self) -> Any:
        """The options of `predict`, a dataclass or one of it; None for none."""

    def config(self) -> dict[str, Any]:
        """The task as plain values, which make it again."""

    def configure_model(self) -> None:
        """Build the model, if that has not been done."""

    @property
    def base(self) -> Base | None:
        """What the model is an adapter on; None where it is whole."""

    def take_base(self, source: str) -> Any:
        """Take the weights of its base, in place."""

    def best_weights(self) -> dict[str, Tensor]:
        """The weights to keep; of an adapter without those of its base."""

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Take weights as `best_weights` gave them. Raises RuntimeError for those of another model."""

    def eval(self) -> Self:
        """The task in evaluation mode."""

    def predict(self, records: Sequence[Mapping[str, Any]], options: Any = None) -> list[dict[str, Any]]:
        """What the model says of records."""


class Undrawn(TorchFunctionMode):
    """While it lasts, initial values are not drawn: those of a large table cost more than to read the trained ones."""

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if function is Tensor.normal_:
            # `trunc_normal_` draws anew, for ever, what it finds out of bounds, as memory may be that nobody has set.
            return args[0].zero_()
        if function in (Tensor.uniform_, init.kaiming_uniform_):
            return args[0] if args else kwargs["tensor"]
        return function(*args, **(kwargs or {}))


def misfit(error: Exception) -> str | None:
    """What does not fit, where an error says that a state is of another model or optimiser."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines and "loading state_dict" in lines[0] and len(lines) > 1:
        return lines[1].rstrip(".") + (f", and {len(lines) - 2} more" if len(lines) > 2 else "")
    return str(error) if "loaded state dict" in str(error) else None


def load(run_dir: str | Path, *, unsafe_imports: Sequence[str] = (), base: str | Path | None = None) -> SavedTask:
    """The best model of a run, ready for `predict`; or what `save` wrote; `runs/all:digits` is one task of a mixture.

    base: of an adapter: where the model that it was trained on is now; where it was then, when left out.
    unsafe_imports: packages beside anyformer that the model's config may name classes of.
    Runs nothing that the folder holds. Raises InputError if there is no model or it is damaged, and for the base of an
    adapter that has moved or changed.
    """
    path, member = split_run(run_dir)
    folder = model_folder(path)
    source = locate_base(folder, base)
    task = instantiate(read_config(folder), unsafe_imports)
    with Undrawn():
        task.configure_model()
    if source is not None:
        task.take_base(source)
    read_weights(task, folder)
    return _member(task, path, member).eval()


def make(run_dir: str | Path, *, unsafe_imports: Sequence[str] = ()) -> SavedTask:
    """As `load`, but without its weights, and not built."""
    path, member = split_run(run_dir)
    return _member(instantiate(read_config(model_folder(path)), unsafe_imports), path, member)


def _member(task: SavedTask, path: Path, name: str) -> SavedTask:
    """A task of a mixture by its name; the task itself for ""."""
    if name and name not in task.members:
        what = f"there are {', '.join(task.members)}" if task.members else "it is no mixture"
        raise InputError(f"{path} holds no task {name!r}; {what}{nearest(name, task.members)}")
    return task.members[name] if name else task


def model_folder(run: Path) -> Path:
    """The folder of a run's best model, or of a model alone. Raises InputError if there is none or it is damaged."""
    folder = find_folder(run / "model") or find_folder(run)
    if folder is None and (run / "model").exists():
        raise InputError(f"{run / 'model' / MANIFEST} is missing; train again, or copy the folder anew")
    if folder is None:
        if holds_trials(run):
            raise InputError(f"{run} holds the runs of several folds or seeds; name one of them, {first_trial(run)}")
        if not run.exists():
            near = nearest(run.name, [each.name for each in run.parent.iterdir()] if run.parent.is_dir() else [])
            raise InputError(f"there is no folder {run}{near}")
        raise InputError(f"{run} holds no model: neither model/{MANIFEST} nor {MANIFEST} is there; train one with fit")
    for name in dict.fromkeys([CONFIG, WEIGHTS, *(line["file"] for line in read_manifest(folder))]):
        listed(folder, name)
    return folder


def read_config(folder: Path) -> dict[str, Any]:
    """The config that a folder holds, with what `save` wrote beside it. Raises InputError for a file not listed."""
    config, values = read_json(folder / CONFIG), dict[str, Any]()
    try:
        for line in config.pop(FILES, []):
            at, file = tuple(line["at"]), line["file"]
            if file not in values:
                values[file] = read_value(listed(folder, file))
            put_back(config, [Large(at, values[file])])
    except (AttributeError, KeyError, IndexError, TypeError):
        raise InputError(
            f"{folder / CONFIG} is damaged: {FILES} must say where the values of files stand; copy the folder anew"
        ) from None
    return config


def read_weights(task: SavedTask, folder: Path) -> None:
    path = folder / WEIGHTS
    try:
        weights = with_weight_names(load_file(path))
    except SafetensorError as error:
        raise InputError(f"{path} is no safetensors file ({error}); train again, or copy the folder anew") from None
    try:
        task.load_weights(weights)
    except RuntimeError as error:
        raise InputError(f"{path} does not fit {CONFIG}: {misfit(error)}") from None


def save(task: SavedTask, folder: str | Path) -> None:
    """Write a task with its best weights into a folder of its own: config.json, usage.json, weights.safetensors and
    manifest.jsonl.

    Of an adapter these are the weights that were trained, and base.json says what they belong to.
    Large values of the config are files of their own, the same value one file: `vocabulary.json`, `classes.json`, ...
    """

    def write(part: Path) -> None:
        config, large = take_out(task.config())
        files: dict[str, str] = {}
        for at, value, _ in large:
            text = json.dumps(value) + "\n"
            if text not in files:
                files[text] = _free_name(str(at[-1]), files.values())
                (part / files[text]).write_text(text, encoding="utf-8")
            config.setdefault(FILES, []).append({"at": at, "file": files[text]})
        (part / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (part / USAGE).write_text(json.dumps(_usage(task), indent=2) + "\n", encoding="utf-8")
        # Tied weights share their memory, which the format does not support.
        weights = {name: value.detach().cpu().contiguous().clone() for name, value in task.best_weights().items()}
        write_tensors(part / WEIGHTS, weights)
        if task.base is not None:
            write_base(task.base, part)

    replace_folder(Path(folder), write)


def _usage(task: SavedTask) -> dict[str, Any]:
    if task.members:
        return {"members": {name: _usage(member) for name, member in task.members.items()}}
    options, described = task.options, None
    if options is not None:
        values = {} if isinstance(options, type) else plain(options)
        described = {"name": (options if isinstance(options, type) else type(options)).__name__, "values": values}
    inputs = {name: {"endings": list(task.tokenizers[name].endings)} for name in task.inputs}
    inputs |= {name: {"endings": []} for name in task.link_columns}
    return {"inputs": inputs, "options": described}


def _free_name(argument: str, taken: Collection[str]) -> str:
    names = (f"{argument}{f'_{i}' if i > 1 else ''}.json" for i in count(1))
    return next(name for name in names if name not in {CONFIG, USAGE, *taken})
