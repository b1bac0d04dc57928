"""A warm start: tokenizers and weights taken over from another model before training, and weights that stay frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from anyformer.errors import InputError
from anyformer.model.by_field import weight_name
from anyformer.model.heads import Head
from anyformer.optim.optimizer import check_pattern
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
    tensors, notes = other.state_dict(), []
    for name in ours.keys() & theirs.keys():
        rows = ours[name].rows_from(theirs[name])
        if rows is None:
            theirs[name].agree(ours[name], f"tokenizers.{name} and init_from {source}")
            continue
        is_target = name == getattr(task, "target", name) == getattr(other, "target", name)
        moved = move_rows(task, tensors, name.replace(".", "/"), rows, is_target)
        n = int((rows >= 0).sum())
        notes.append(f"another vocabulary of {name}: {n} tokens of the same spelling taken, {len(rows) - n} new")
        tensors |= moved
    strange = task.strange_weights(other)
    report = take(task, tensors, source, grids=joint_grids(other), strange=strange)
    return replace(report, notes=tuple(notes))


def move_rows(
    task: nn.Module, tensors: Mapping[str, Tensor], field: str, rows: Tensor, is_target: bool
) -> dict[str, Tensor]:
    """The tensors of a source that have a row for each id of a field's vocabulary, as those of another vocabulary.

    rows: for each id the row of it in the source, (v,), -1 for none: that is new, at the mean of those taken.
    is_target: whether the output layers over a vocabulary are of this field.
    """
    own = task.state_dict()
    heads = {
        f"{at}.{name}" for at, part in task.named_modules() if isinstance(part, Head) for name in part.state_dict()
    }
    moved, known = {}, rows >= 0
    for name in own.keys() & tensors.keys():
        of_field = name.startswith(f"model.embeddings.lifts.{field}.") or (is_target and name in heads)
        if not of_field or len(own[name]) != len(rows) or own[name].shape[1:] != tensors[name].shape[1:]:
            continue
        taken = tensors[name][rows[known].to(tensors[name].device)]
        new = own[name].to(taken, copy=True)
        new[known] = taken
        if len(taken):
            new[~known] = taken.mean(0)
        moved[name] = new
    return moved


def freeze(module: nn.Module, patterns: Sequence[str]) -> None:
    """Take parameters out of training, by patterns of their names as the shell has them.

    Raises InputError for a pattern that is the name of none, and where nothing is left to train.
    """
    names = [name for name, _ in module.named_parameters()]
    patterns = [weight_name(pattern) for pattern in patterns]
    for pattern in patterns:
        check_pattern(pattern, names, "freeze")
    for name, parameter in module.named_parameters():
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise InputError(f"freeze: {', '.join(patterns)} leaves no parameter to train; leave some out")
