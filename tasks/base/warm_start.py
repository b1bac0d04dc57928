"""A warm start: tokenizers and weights taken over from another model before training, and weights that stay frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from anyformer.errors import InputError, nearest
from anyformer.model.lora import LoraConfig
from anyformer.saving.base import Base, find_base
from anyformer.saving.model_folder import SavedTask, load, make
from anyformer.saving.run_folder import find_run
from anyformer.tokens import Tokenizer
from anyformer.weights.huggingface import OF_TRAINING, plain_stack
from anyformer.weights.tensors import Report, joint_grids, take
from anyformer.weights.timm_vit import load_timm

NO_BASE = "lora adapts a trained model; name it in init_from, or leave lora out"


class Startable(SavedTask, Protocol):
    """What a warm start needs of a task."""

    @property
    def learnt(self) -> Mapping[str, Tokenizer]: ...

    @property
    def packages(self) -> list[str]: ...

    lora: LoraConfig | None
    base: Base | None
    of_base: frozenset[str]

    def merge(self) -> None: ...

    def inherit_from(self, other: Any) -> None: ...

    def take_over(self, other: Any, source: str) -> Report: ...

    def strange_weights(self, other: Any) -> Sequence[str]: ...


def inherit_tokenizers(task: Startable, source: str | None) -> None:
    """Take over what the tokenizers have learnt of the run `source`, whose weights are taken later."""
    if source is None or "://" in source:
        return
    try:
        path, member = find_run(source)
    except InputError:
        # A run that goes on need not have it any more; one that begins is told by `start_from`.
        return
    if path.is_dir():
        task.inherit_from(make(f"{path}{member}", unsafe_imports=task.packages))


def start_from(task: Startable, source: str | Path) -> Report:
    """Take the weights of another model, in place; see `Task.start_from`."""
    if "://" in str(source):
        raise InputError(f"init_from is a local file or folder; nothing is loaded from the network, got {source}")
    path, member = find_run(source)
    if not path.is_dir():
        if task.members:
            raise InputError(f"init_from of a mixture is a run folder, got {source}")
        return load_timm(task, path)
    task.configure_model()
    other = load(f"{path}{member}", unsafe_imports=task.packages)
    if other.base is not None:
        try:
            other.merge()
        except InputError as error:
            raise InputError(f"init_from {source}: {error}") from None
    return task.take_over(other, str(source))


def take_weights(task: Startable, other: Startable, source: str) -> Report:
    """Take the weights of another task that fit by name and shape, once the tokenizers of both agree."""
    if other.members:
        names = " or ".join(f"{source}:{name}" for name in other.members)
        raise InputError(f"init_from: {source} is a mixture; name one of its tasks: {names}")
    if task.lora is not None:
        _check_alike(task, other, source)
    ours, theirs = task.learnt, other.learnt
    for name in ours.keys() & theirs.keys():
        theirs[name].agree(ours[name], f"tokenizers.{name} and init_from {source}")
    strange = task.strange_weights(other)
    return take(task, other.state_dict(), source, grids=joint_grids(other), strange=strange)


def take_base(task: Startable, source: str | Path | None) -> Report:
    """Take the weights that adapters are added to, in place: they are not trained, nor saved with what is.

    Raises InputError where there are none, the two models differ in more than their fields, or nothing is to be
    trained.
    """
    if source is None:
        raise InputError(NO_BASE)
    try:
        task.base = find_base(source)
    except InputError as error:
        raise InputError(
            f"init_from: lora needs the model that it adapts, where a run goes on too: {error}; say where it is by "
            "--model.init_from"
        ) from None
    report = task.start_from(source)
    task.of_base = frozenset((*report.taken, *report.resized))
    for name, parameter in task.named_parameters():
        if name in task.of_base:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in task.parameters()):
        raise InputError(f"lora.on names no map, and {source} has all parts of the model: nothing is left to train")
    return report


def _check_alike(task: Startable, other: Startable, source: str) -> None:
    """Raise InputError where a model and the base of its adapters differ by what no shape of a tensor shows."""
    stacks = [
        {name: stack.config for name, stack in (("transformer", m.transformer), ("encoder", m.encoder)) if stack}
        for m in (task.model, other.model)
    ]
    for name in stacks[0].keys() & stacks[1].keys():
        ours, theirs = (plain_stack(each[name]) for each in stacks)
        for option, value in theirs.items():
            if option not in OF_TRAINING and ours[option] != value:
                raise InputError(
                    f"{name}.{option} is {ours[option]!r}, and that of init_from {source}, which lora adapts, "
                    f"{value!r}; take that"
                )
    for option in ("types", "scale", "norm", "offset"):
        ours, theirs = (getattr(each.embedding, option) for each in (task, other))
        if ours != theirs:
            raise InputError(
                f"embedding.{option} is {ours}, and that of init_from {source}, which lora adapts, {theirs}; take that"
            )
    placed = [[each.axes for each in part.model.embeddings.placed] for part in (task, other)]
    for i, (ours, theirs) in enumerate(zip(*placed, strict=False)):
        if ours != theirs:
            raise InputError(
                f"embedding.positions.{i} are on {', '.join(ours)}, and those of init_from {source}, which lora "
                f"adapts, on {', '.join(theirs)}; name new fields, and new positions, behind those that it has"
            )


def freeze(module: nn.Module, patterns: Sequence[str]) -> None:
    """Take parameters out of training, by patterns of their names as the shell has them.

    Raises InputError for a pattern that is the name of none, and where nothing is left to train.
    """
    names = [name for name, _ in module.named_parameters()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            words = [name.split(".") for name in names]
            near = {".".join(parts[:n]) + ".*" for parts in words for n in range(1, len(parts))}
            raise InputError(f"freeze: no parameter is named {pattern!r}{nearest(pattern, sorted({*near, *names}))}")
    for name, parameter in module.named_parameters():
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise InputError(f"freeze: {', '.join(patterns)} leaves no parameter to train; leave some out")
