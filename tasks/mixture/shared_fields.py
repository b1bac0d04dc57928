"""What the tasks of a mixture have in common: which they may be, and fields, by their names.

A field of one name in several tasks is one field, be it read or written: it has one tokenizer, which learns from the
records of all. What of the weights is one and the same is in `shared_weights.py`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from torch import nn

from anyformer.data.source import Source
from anyformer.errors import InputError
from anyformer.parsing.plain import plain
from anyformer.tasks.base.task import NOT_SAVED, Task
from anyformer.tokens import Tokenizer

OF_ALL = ("transformer", "encoder", "embedding", "optimizer")
"""Arguments that a mixture has for all of its tasks."""
FOLDERS = ("model", "checkpoints")
"""Names in a run's folder that no task may have, as its pictures stand in a folder of its name."""


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
        for each in (*OF_ALL, *NOT_SAVED, "lora"):
            if each not in signature:
                continue
            # `freeze` is kept under another name, as a method of Lightning's has that.
            if getattr(task, "frozen" if each == "freeze" else each) != signature[each].default:
                instead = "a mixture has one for all of its tasks; give it there"
                if each == "pretrain":
                    instead = "a mixture is not pretrained; train one task alone with it, and give its run as init_from"
                if each == "lora":
                    instead = "a mixture has no adapters; adapt one task alone, and leave it out here"
                raise InputError(f"tasks.{name}.{each}: {instead}")


def named_fields(task: Task) -> dict[str, Tokenizer]:
    """The fields of a task that others may share: those that its config names, those of targets that are written among
    them, and not those that it finds itself."""
    return {} if task.finds_fields else task.learnt


def check_tokenizers(tasks: Mapping[str, Task]) -> None:
    """Raise InputError, with the first difference, where two tasks give a field of one name other tokenizers."""
    for (one, first), (other, second) in combinations(tasks.items(), 2):
        ours, theirs = named_fields(first), named_fields(second)
        for name in [name for name in ours if name in theirs]:
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
    together = [alike for task in tasks.values() for alike in task.alike]
    for fields in join_groups([[field] for field in owners] + together):
        held = [(name, field) for field in fields for name in owners.get(field, ())]
        if len({name for name, _ in held}) < 2:
            continue
        first = named_fields(tasks[held[0][0]])[held[0][1]]
        if type(first).fit is Tokenizer.fit:
            continue
        fitted = first.fit(value for name, field in held for value in _values(tasks[name], sources[name], field))
        for name, field in held:
            own = named_fields(tasks[name])[field]
            # Of another length or with other marks around it, it has the same words.
            _put(tasks[name], field, fitted if own == first else own.inherit(fitted))


def _put(task: Task, field: str, tokenizer: Tokenizer) -> None:
    if field in task.tokenizers:
        task.tokenizers[field] = tokenizer
    else:
        task.targets[field] = task.targets[field].with_learnt(tokenizer)


def _values(task: Task, source: Source, field: str) -> Iterable[Any]:
    if field not in task.tokenizers:
        return task.targets[field].texts(field, source)
    return task.values(source, field)


def join_groups(groups: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Joins groups that have a member in common, in the sequence of their first members."""
    component: dict[Any, list[Any]] = {}
    for group in groups:
        joined = list(dict.fromkeys(member for each in group for member in component.get(each, [each])))
        for each in joined:
            component[each] = joined
    return list({id(each): each for each in component.values()}.values())
