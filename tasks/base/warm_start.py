"""A warm start: tokenizers and weights taken over from another model before training, and weights that stay frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from anyformer.errors import InputError, nearest
from anyformer.model.by_field import weight_name
from anyformer.saving.model_folder import SavedTask, load, make
from anyformer.saving.run_folder import find_run
from anyformer.tokens import Tokenizer
from anyformer.weights.tensors import Report, joint_grids, take
from anyformer.weights.timm_vit import load_timm


class Startable(SavedTask, Protocol):
    """What a warm start needs of a task."""

    @property
    def learnt(self) -> Mapping[str, Tokenizer]: ...

    @property
    def packages(self) -> list[str]: ...

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
    return task.take_over(load(f"{path}{member}", unsafe_imports=task.packages), str(source))


def take_weights(task: Startable, other: Startable, source: str) -> Report:
    """Take the weights of another task that fit by name and shape, once the tokenizers of both agree."""
    if other.members:
        names = " or ".join(f"{source}:{name}" for name in other.members)
        raise InputError(f"init_from: {source} is a mixture; name one of its tasks: {names}")
    ours, theirs = task.learnt, other.learnt
    for name in ours.keys() & theirs.keys():
        theirs[name].agree(ours[name], f"tokenizers.{name} and init_from {source}")
    strange = task.strange_weights(other)
    return take(task, other.state_dict(), source, grids=joint_grids(other), strange=strange)


def freeze(module: nn.Module, patterns: Sequence[str]) -> None:
    """Take parameters out of training, by patterns of their names as the shell has them.

    Raises InputError for a pattern that is the name of none, and where nothing is left to train.
    """
    names = [name for name, _ in module.named_parameters()]
    patterns = [weight_name(pattern) for pattern in patterns]
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
