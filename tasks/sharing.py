"""What the tasks of a mixture have in common: fields by their names, and parameters that are one and the same.

A field of one name in several tasks is one field: it has one tokenizer, one lift, one type vector and one place in a
table of positions. The transformer is everybody's. All else (class tokens, heads) is a task's own.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from torch import nn

from anyformer.corpus import Documents
from anyformer.data import Source
from anyformer.embeddings import SharedLift
from anyformer.errors import InputError
from anyformer.tasks.sequence import SequenceToSequence
from anyformer.tasks.task import OF_TRAINING, Task, plain
from anyformer.tokenizers.text import Text
from anyformer.tokens import LearnedTokens, Tokenizer

STACKS = ("transformer", "encoder", "relative", "encoder_relative")
"""Modules of `Anyformer` that belong to no field."""
RELATIONS = ("relation_bias", "encoder_relation_bias")
"""And those that belong to the fields that have relations."""

OF_ALL = ("transformer", "encoder", "embedding", "optimizer")
"""Arguments that a mixture has for all of its tasks."""
FOLDERS = ("model", "checkpoints")
"""Names in a run's folder that no task may have, as its pictures stand in a folder of its name."""

Key = tuple[Any, ...]


def check_tasks(tasks: Mapping[str, Task]) -> None:
    """Raise InputError for tasks that no mixture can have: what it has for all of them none may have itself."""
    if not tasks:
        raise InputError("tasks must name at least one task, got none")
    for name, task in tasks.items():
        if not re.fullmatch(r"[\w-]+", name) or name in FOLDERS or hasattr(nn.ModuleDict(), name):
            raise InputError(f"tasks: {name!r} cannot be the name of a task; take a word of letters and digits")
        if task.members:
            raise InputError(f"tasks.{name} is a mixture itself; give its tasks here")
        signature = inspect.signature(type(task)).parameters
        for each in (*OF_ALL, *OF_TRAINING):
            # `freeze` is kept under another name, as a method of Lightning's has that.
            given = getattr(task, "frozen" if each == "freeze" else each, None)
            if each in signature and given != signature[each].default:
                raise InputError(f"tasks.{name}.{each}: a mixture has one for all of its tasks; give it there")


def has_encoder(task: Task) -> bool:
    return getattr(task, "architecture", None) == "encoder_decoder"


def read_fields(task: Task) -> dict[str, Tokenizer]:
    """The tokenizers of the fields that a task's model reads: an encoder alone writes text that it never reads."""
    names = task.inputs if getattr(task, "architecture", None) == "encoder" else task.tokenizers
    return {name: task.tokenizers[name] for name in names}


def named_fields(task: Task) -> dict[str, Tokenizer]:
    """The fields of a task that others may share: those that its config names, and not those that it finds itself."""
    return {} if task.finds_fields else task.tokenizers


def check_tokenizers(tasks: Mapping[str, Task]) -> None:
    """Raise InputError, with the first difference, where two tasks give a field of one name other tokenizers."""
    for (one, first), (other, second) in combinations(tasks.items(), 2):
        ours, theirs = named_fields(first), named_fields(second)
        for name in ours.keys() & theirs.keys():
            if ours[name] != theirs[name]:
                raise InputError(
                    f"tasks {one!r} and {other!r} disagree about the tokenizer of {name!r}, which is one field: "
                    f"{_difference(ours[name], theirs[name])}; make them the same, or give the field of one of them "
                    "another name (the columns of a Table)"
                )


def _difference(one: Tokenizer, other: Tokenizer) -> str:
    if type(one) is not type(other):
        return f"{type(one).__name__} and {type(other).__name__}"
    ours, theirs = plain(one)["init_args"], plain(other)["init_args"]
    for name, value in ours.items():
        if value != theirs[name]:
            shown = [text if len(text) < 60 else f"{text[:60]}..." for text in (str(value), str(theirs[name]))]
            return f"{name} is {shown[0]} and {shown[1]}"
    return "they are not equal"


def learn_shared(tasks: Mapping[str, Task], sources: Mapping[str, Source]) -> None:
    """Fit the tokenizers of fields that several tasks have on the training records of all of them, in place.

    Fields that one task gives one vocabulary or one lift learn together.
    """
    owners: dict[str, list[str]] = {}
    for name, task in tasks.items():
        for field in named_fields(task):
            owners.setdefault(field, []).append(name)
    together = [alike for task in tasks.values() for alike in _alike(task)]
    for fields in _components([[field] for field in owners] + together):
        held = [(name, field) for field in fields for name in owners.get(field, ())]
        if len({name for name, _ in held}) < 2:
            continue
        first = tasks[held[0][0]].tokenizers[held[0][1]]
        if type(first).fit is Tokenizer.fit:
            continue
        fitted = first.fit(value for name, field in held for value in _values(tasks[name], sources[name], field))
        for name, field in held:
            own = tasks[name].tokenizers[field]
            # Of another length or with other marks around it, it has the same words.
            tasks[name].tokenizers[field] = fitted if own == first else own.inherit(fitted)


def _alike(task: Task) -> list[list[str]]:
    """Fields of a task that have one vocabulary or one lift."""
    alike = [list(pair) for pair in task.fields.share.items()]
    if isinstance(task, SequenceToSequence) and task.shared_vocabulary:
        alike.append([name for name, tokenizer in task.tokenizers.items() if isinstance(tokenizer, Text)])
    return alike


def _values(task: Task, source: Source, field: str) -> Iterator[Any]:
    return source.texts() if isinstance(source, Documents) else task.values(source, field)


def _components(groups: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Joins groups that have a member in common, in the sequence of their first members."""
    component: dict[Any, list[Any]] = {}
    for group in groups:
        joined = list(dict.fromkeys(member for each in group for member in component.get(each, [each])))
        for each in joined:
            component[each] = joined
    return list({id(each): each for each in component.values()}.values())


# Parameters


class Held(NamedTuple):
    """A parameter where a task has it."""

    task: str
    path: str
    parameter: nn.Parameter


class Common(nn.Module):
    """What the tasks share, by the names that it has in a task alone: `transformer.blocks.0.attention.q.weight`."""

    def put(self, path: str, parameter: nn.Parameter) -> None:
        *names, last = path.split(".")
        module: nn.Module = self
        for name in names:
            if name not in module._modules:
                module.add_module(name, nn.Module())
            module = module._modules[name]
        module.register_parameter(last, parameter)


def tie(tasks: Mapping[str, Task], share_heads: Mapping[str, str]) -> Common:
    """Make one parameter of those that tasks have in common, that of the first task that has it, in place.

    share_heads: task -> the one whose head, and whose class token, it uses.
    Raises InputError where what is to be one has different shapes.
    """
    by_key: dict[Key, list[Held]] = {}
    groups = []
    for name, task in tasks.items():
        for path, parameter in task.named_parameters():
            if keys := list(_keys(name, task, path, share_heads)):
                for key in keys:
                    by_key.setdefault(key, []).append(Held(name, path, parameter))
                groups.append(keys)
    common, used = Common(), set()
    for keys in _components(groups):
        held = list(dict.fromkeys(each for key in keys for each in by_key[key]))
        first = held[0]
        _check(held)
        for each in held[1:]:
            module, _, last = each.path.rpartition(".")
            setattr(tasks[each.task].get_submodule(module), last, first.parameter)
        path = _common_path(tasks[first.task], first.path)
        if path is not None and path not in used:
            used.add(path)
            common.put(path, first.parameter)
    return common


def _check(held: Sequence[Held]) -> None:
    first, paths = held[0], dict[str, str]()
    for each in held:
        if each.task in paths:
            raise InputError(
                f"tasks.{each.task} keeps {paths[each.task]} and {each.path} apart, which another task has as one; "
                "share these fields in all tasks or in none"
            )
        paths[each.task] = each.path
        if each.parameter.shape != first.parameter.shape:
            raise InputError(
                f"{each.path} is {tuple(each.parameter.shape)} in tasks.{each.task} and "
                f"{tuple(first.parameter.shape)} in tasks.{first.task}, and cannot be one"
            )


def _keys(name: str, task: Task, path: str, share_heads: Mapping[str, str]) -> Iterator[Key]:
    """What a parameter is, of which all that are the same are one; nothing where it is a task's own."""
    embeddings = task.model.embeddings
    match path.split("."):
        case ["model", stack, *_] if stack in STACKS:
            yield (path,)
        case ["model", "embeddings", "norm" | "offset", *_]:
            yield (path,)
        case ["model", "embeddings", "lifts", key, *rest]:
            lift = embeddings.lifts[key]
            for field, each in embeddings.lifts.items():
                if (each.owner if isinstance(each, SharedLift) else each) is lift:
                    yield from _of_field(name, task, "lifts", field, rest, share_heads)
        case ["model", "embeddings", "types" | "masks" as kind, field, *rest]:
            yield from _of_field(name, task, kind, field, rest, share_heads)
        case ["model", "embeddings", "positions", number, *rest]:
            config = embeddings.placed[int(number)]
            for field, axes in embeddings.axes.items():
                if set(config.axes) <= set(axes) and _is_named(task, field):
                    yield ("positions", config.axes, config.scheme, field, *rest)
        case ["model", bias, *rest] if bias in RELATIONS:
            related = [field for field, tokenizer in task.model.tokenizers.items() if tokenizer.n_relations]
            if all(_is_named(task, field) for field in related):
                yield (bias, *related, *rest)
        case [first, *_] if first != "model" and name in {*share_heads, *share_heads.values()}:
            yield ("head", share_heads.get(name, name), path)


def _of_field(
    name: str, task: Task, kind: str, field: str, rest: Sequence[str], share_heads: Mapping[str, str]
) -> Iterator[Key]:
    """The key of a parameter that belongs to a field; a class token goes with the head that reads it."""
    is_own = isinstance(task.model.tokenizers[field.replace("/", ".")], LearnedTokens)
    if _is_named(task, field):
        yield (kind, field, *rest)
    elif is_own and name in {*share_heads, *share_heads.values()}:
        yield ("head", share_heads.get(name, name), kind, field, *rest)


def _is_named(task: Task, field: str) -> bool:
    """Whether a field of the model is of a tokenizer of the task's that others may have too."""
    field = field.replace("/", ".")
    return any(field == name or field.startswith(f"{name}.") for name in named_fields(task))


def _common_path(task: Task, path: str) -> str | None:
    """The name in `Common`; None for what stays where it is, because several tasks have their own of that name."""
    match path.split("."):
        case ["model", "embeddings", "positions", number, *rest]:
            # Each task numbers its own.
            return ".".join(
                ["embeddings", "positions", "_".join(task.model.embeddings.placed[int(number)].axes), *rest]
            )
        case ["model", "embeddings", "lifts" | "types" | "masks", field, *_] if not _is_named(task, field):
            return None
        case ["model", *rest]:
            return ".".join(rest)
    return None
