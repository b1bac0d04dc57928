"""The parameters that tasks of a mixture have in common.

The transformer is everybody's. A field of one name has one lift, one type vector and one place in a table of positions.
All else (class tokens, heads) is a task's own, unless heads are shared by the tasks' names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from torch import nn

from anyformer.errors import InputError
from anyformer.model.by_field import field_name
from anyformer.model.learned_tokens import LearnedTokens
from anyformer.model.lifts import SharedLift
from anyformer.tasks.base.task import Task
from anyformer.tasks.mixture.shared_fields import join_groups, named_fields

STACKS = ("transformer", "encoder", "relative", "encoder_relative")
"""Modules of `Anyformer` that belong to no field."""
RELATIONS = ("relation_bias", "encoder_relation_bias")
"""And those that belong to the fields that have relations."""

HEADS = ("head.", "heads.", "ctc_head.")
"""What the names of a head's own weights begin with; how tokens are pooled goes with it."""

Key = tuple[Any, ...]


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


def check_heads(tasks: Mapping[str, Task], share_heads: Mapping[str, str]) -> None:
    """Raise InputError where the outputs of two heads that are to be one mean different things."""
    for name, owner in share_heads.items():
        place, one, other = f"share_heads: {name} and {owner}", tasks[name], tasks[owner]
        if one.text != other.text:
            raise InputError(f"{place} have other text, and cannot have one head")
        ours, theirs = one.targets, other.targets
        if ours.keys() != theirs.keys():
            raise InputError(
                f"{place} have other targets, {', '.join(ours)} and {', '.join(theirs)}, and cannot have one head; "
                "give them the same names"
            )
        for target in ours:
            if not ours[target].agrees(theirs[target]):
                raise InputError(f"{place} do not mean the same by targets.{target}, and cannot have one head")


def tie(tasks: Mapping[str, Task], share_heads: Mapping[str, str]) -> Common:
    """Make one parameter of those that tasks have in common, that of the first task that has it, in place.

    share_heads: task -> the one whose head, and whose class token, it uses.
    Raises InputError where what is to be one has different shapes, and where no weight of two heads is.
    """
    by_key: dict[Key, list[Held]] = {}
    groups = []
    for name, task in tasks.items():
        for path, parameter in task.named_parameters():
            if keys := list(_keys(name, task, path, share_heads)):
                for key in keys:
                    by_key.setdefault(key, []).append(Held(name, path, parameter))
                groups.append(keys)
    for name, owner in share_heads.items():
        if not any(
            len({each.task for each in held} & {name, owner}) == 2
            for key, held in by_key.items()
            if key[0] == "head" and key[-1].startswith(HEADS)
        ):
            raise InputError(
                f"share_heads: {name} and {owner} have no weights of heads that could be one (a head that is tied to "
                "the table of a field is shared with that); leave it out"
            )
    common, used = Common(), set()
    for keys in join_groups(groups):
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
                yield (bias, *related, *map(str, task.fields.links), *rest)
        case [first, *_] if first != "model" and name in {*share_heads, *share_heads.values()}:
            yield ("head", share_heads.get(name, name), path)


def _of_field(
    name: str, task: Task, kind: str, field: str, rest: Sequence[str], share_heads: Mapping[str, str]
) -> Iterator[Key]:
    """The key of a parameter that belongs to a field; a class token goes with the head that reads it."""
    is_own = isinstance(task.model.tokenizers[field_name(field)], LearnedTokens)
    if _is_named(task, field):
        yield (kind, field, *rest)
    elif is_own and name in {*share_heads, *share_heads.values()}:
        yield ("head", share_heads.get(name, name), kind, field, *rest)


def _is_named(task: Task, field: str) -> bool:
    """Whether a field of the model is of a tokenizer of the task's that others may have too."""
    field = field_name(field)
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
