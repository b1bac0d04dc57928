"""A warm start: tokenizers and weights taken over from another model before training, and weights that stay frozen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from anyformer.errors import InputError
from anyformer.model.anyformer import Anyformer
from anyformer.model.by_field import module_name, weight_name
from anyformer.model.heads import Head
from anyformer.model.lora import LoraConfig, adapters, is_adapter
from anyformer.model.losses.ctc import CTCHead
from anyformer.optim.optimizer import check_pattern
from anyformer.saving.base import Base, find_base
from anyformer.saving.model_folder import SavedTask, load, make
from anyformer.saving.run_folder import find_run
from anyformer.tasks.base.starting.agreement import check_agreement, check_places
from anyformer.tokenizers.pretrained import EncoderLift, Pretrained
from anyformer.tokens import Tokenizer
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


class Encoding(Protocol):
    """What is needed of a task with `Pretrained` fields."""

    model: Anyformer
    tokenizers: Mapping[str, Any]
    encoders: dict[str, dict[str, Tensor]]

    @property
    def members(self) -> Mapping[str, Self]: ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...


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
    check_agreement(task, other, source)
    if task.lora is not None:
        check_places(task, other, source)
    ours, theirs = task.learnt, other.learnt
    tensors, strange, notes = other.state_dict(), list(task.strange_weights(other)), []
    partial: set[str] = set()
    for name in ours.keys() & theirs.keys():
        rows = ours[name].rows_from(theirs[name])
        if rows is None:
            theirs[name].agree(ours[name], f"tokenizers.{name} and init_from {source}")
            continue
        of_ids = _of_ids(task, name.replace(".", "/"))
        moved = {each: _moved(task, tensors, each, rows) for each in of_ids & tensors.keys()}
        tensors |= {each: tensor for each, tensor in moved.items() if tensor is not None}
        # What has a row for each id and cannot be moved has a meaning that is gone.
        strange += [each for each, tensor in moved.items() if tensor is None]
        n = int((rows >= 0).sum())
        partial |= {each for each, tensor in moved.items() if tensor is not None and n < len(rows)}
        notes.append(f"another vocabulary of {name}: {n} tokens of the same spelling taken, {len(rows) - n} new")
    report = take(task, tensors, source, grids=joint_grids(other), strange=strange)
    return replace(report, notes=tuple(notes), partial=tuple(sorted(partial.intersection(report.taken))))


def _of_ids(task: nn.Module, field: str) -> set[str]:
    """The names of the tensors with a row for each id of a field of text: its table, and the layers that predict it."""
    lookup = task.model.embeddings.lifts[field]
    heads = {f"{at}.": part for at, part in task.named_modules() if isinstance(part, Head) and part.lookup is lookup}
    names = {f"{at}{name}" for at in heads for name in ("output.weight", "bias")}
    if heads:
        ctc = [at for at, part in task.named_modules() if isinstance(part, CTCHead)]
        names |= {f"{at}.output.{part}" for at in ctc for part in ("weight", "bias")}
    return {f"model.embeddings.lifts.{field}.table"} | names


def _moved(task: nn.Module, tensors: Mapping[str, Tensor], name: str, rows: Tensor) -> Tensor | None:
    """A tensor of a source with the rows of another vocabulary; None where it has others beside those of the ids.

    rows: for each id the row of it in the source, (v,), -1 for none: that is new, at the mean of those taken.
    """
    own, theirs, known = task.state_dict().get(name), tensors[name], rows >= 0
    if own is None or len(own) != len(rows) or own.shape[1:] != theirs.shape[1:]:
        return None
    new = own.to(theirs, copy=True)
    new[known] = taken = theirs[rows[known].to(theirs.device)]
    if len(taken):
        new[~known] = taken.mean(0)
    return new


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
    # What has new rows beside those of the base is trained, and saved, as a whole.
    task.of_base = frozenset((*report.taken, *report.resized)).difference(report.partial)
    for name, parameter in task.named_parameters():
        if name in task.of_base:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in task.parameters()):
        raise InputError(f"lora.on names no map, and {source} has all parts of the model: nothing is left to train")
    return report


@dataclass(frozen=True)
class Filled:
    """What became of the encoders of a task's `Pretrained` fields."""

    parameters: frozenset[Tensor]
    """Those that have been taken from their sources."""
    lines: tuple[str, ...]
    """What is to be said of it."""

    def __bool__(self) -> bool:
        return bool(self.parameters)


def take_encoders(task: Encoding, taken: Sequence[str]) -> Filled:
    """Give the encoders of `Pretrained` fields the weights of their sources, in place; the task holds these no longer.

    taken: the names of those that have been taken from the model of `init_from`, which stay.
    Raises InputError for an encoder whose weights are nowhere.
    """
    filled, lines, taken = set[Tensor](), [], frozenset(taken)
    for member, each in (task.members or {"": task}).items():
        path = f"tasks.{member}." if member else ""
        for field, lift in _encoders(each).items():
            source, weights = each.tokenizers[field].source, each.encoders.get(field)
            prefix = f"{path}model.embeddings.lifts.{module_name(field)}.encoder."
            own = {name: tensor for name, tensor in lift.encoder.state_dict().items() if not is_adapter(name)}
            if taken.issuperset(f"{prefix}{name}" for name in own):
                if weights is not None:
                    lines.append(f"weights of {path}{field}: those of init_from, and not of {source}")
                continue
            if weights is None:
                raise InputError(
                    f"model.{path}tokenizers.{field}: the weights of {source} are not at hand; train by anyformer.fit, "
                    "which opens it"
                )
            with torch.no_grad():
                for name, tensor in own.items():
                    tensor.copy_(weights[name])
            parameters = [p for name, p in lift.encoder.named_parameters() if not is_adapter(name)]
            filled.update(parameters)
            n = sum(parameter.numel() for parameter in parameters)
            lines.append(f"weights of {path}{field} from {source}: {len(weights)} tensors taken, {n:,} parameters")
        each.encoders.clear()
    return Filled(frozenset(filled), tuple(lines))


def adapt_encoders(task: Encoding) -> None:
    """Take the weights of encoders that have adapters out of training, in place; they are saved all the same.

    Raises InputError where an adapter is elsewhere, as what is not trained before has nothing to adapt.
    """
    parts = tuple(f"model.embeddings.lifts.{module_name(field)}.encoder." for field in _encoders(task))
    if others := [name for name in adapters(task) if not name.startswith(parts)]:
        raise InputError(
            f"lora.on: {others[0]} is new, and there is no init_from that it could be of; name the maps of a "
            f"Pretrained field alone, as {parts[0]}*.q"
        )
    for name, parameter in task.named_parameters():
        if name.startswith(parts) and not is_adapter(name):
            parameter.requires_grad_(False)


def has_encoders(task: Encoding) -> bool:
    """Whether a task has a field that is `Pretrained`."""
    return any(isinstance(tokenizer, Pretrained) for tokenizer in task.tokenizers.values())


def awaits_encoders(task: Encoding) -> bool:
    """Whether a task, or one of a mixture, holds weights that its encoders have not taken yet."""
    return any(each.encoders for each in (task.members or {"": task}).values())


def _encoders(task: Encoding) -> dict[str, EncoderLift]:
    """The lifts of a task's `Pretrained` fields, but for those that another lends its own."""
    lifts = {name: task.model.embeddings.lifts[name] for name in task.tokenizers if name in task.model.embeddings.lifts}
    return {name: lift for name, lift in lifts.items() if isinstance(lift, EncoderLift)}


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
