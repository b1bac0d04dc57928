"""A config that names a model to start from, completed: what it leaves out of the model is taken over from there.

It works on plain values, before anything is made of them, so that the saved config of a run needs no source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anyformer.errors import InputError, nearest
from anyformer.parsing.classes import find_class, parameters
from anyformer.parsing.large import take_out
from anyformer.tasks.base.starting.agreement import are_family, shown
from anyformer.tasks.base.task import NOT_SAVED, Task

OF_THE_DATA = (
    *("optimizer", "lora", "label_smoothing", "mix", "views", "choose", "weights", "cache"),
    *("classes", "class_weights", "calibrate", "temperature", "n", "mean", "std", "known_returns"),
)
"""Arguments of tasks and of their targets that say how and on which data a model is trained, or that the data decided;
no source decides them."""
UNLEARNED = {"decoding": ("time_id",)}
"""By the argument, options for what a model forgets where it is trained on without: 64 steps of transcripts, which have
no times, were enough for a Whisper."""
OF_EVERY_TASK = (
    *("tokenizers", "transformer", "embedding"),
    *("read", "place_class", "n_registers", "pool_norm", "pool_dense", "head_dropout"),
)
"""What one task takes over from another of a different class."""
OF_A_FAMILY = (*OF_EVERY_TASK, "context", "output")
"""And from one of a class that it is made from, or that is made from it."""


@dataclass(frozen=True)
class Completed:
    """The `model` of a config, with what was left out."""

    model: dict[str, Any]
    taken: tuple[str, ...]
    """What the source gave, by its dotted path."""
    changed: tuple[str, ...]
    """Arguments of tokenizers that are others than the source's, with both values."""
    added: tuple[str, ...] = ()
    """Fields of the source that the config does not name."""


def complete(model: Mapping[str, Any], source: Task, name: str) -> Completed:
    """Fill in what the `model` of a config leaves out.

    model: `{"class_path": ..., "init_args": {...}}`, the class that of the source where it is left out. An entry of its
        tokenizers without a class_path changes arguments of the source's tokenizer of that field, null leaves it out;
        where all have one, the source adds no other field.
    name: of the source, for messages.
    Raises InputError for a field without a class_path that the source does not have.
    """
    theirs, _ = take_out(source.config())
    class_path = model.get("class_path") or theirs["class_path"]
    cls = find_class(class_path, [Task])
    given = dict(model.get("init_args") or {})
    if cls is None:  # Another message says so.
        return Completed(dict(model), (), ())
    same = cls is type(source)
    shared = OF_A_FAMILY if are_family(cls, type(source)) else OF_EVERY_TASK
    known = parameters(cls) or {}
    args, taken = {}, []
    for key, value in theirs["init_args"].items():
        if key not in known or key in (*NOT_SAVED, *OF_THE_DATA) or not (same or key in shared):
            continue
        if key == "targets":
            # What is given is all that there is: a target of the same name may be of other data.
            if key in given:
                continue
            value = {target: _untrained(each) for target, each in value.items()}
        if key in UNLEARNED:
            value = value | dict.fromkeys(UNLEARNED[key])
        if key == "tokenizers":
            fields = _fields(given, source, theirs, same)
            args[key], inner = _tokenizers(given.get(key) or {}, fields, source, name)
        else:
            args[key], inner = _merged(value, given.get(key, _LEFT_OUT), key)
        taken += inner
    args |= {key: value for key, value in given.items() if key not in args}
    changed = list(_changes(args.get("tokenizers") or {}, theirs["init_args"].get("tokenizers") or {}))
    added = args.get("tokenizers", {}).keys() - (given.get("tokenizers") or {}).keys()
    return Completed({"class_path": class_path, "init_args": args}, tuple(taken), tuple(changed), tuple(sorted(added)))


_LEFT_OUT = object()


def _untrained(target: Mapping[str, Any]) -> dict[str, Any]:
    """A target of a source without what its data decided."""
    return {**target, "init_args": {key: each for key, each in target["init_args"].items() if key not in OF_THE_DATA}}


def names_in_full(tokenizers: Any) -> bool:
    """Whether a config says itself which fields there are: each of its tokenizers has a class."""
    entries = tokenizers.values() if isinstance(tokenizers, Mapping) else []
    return bool(entries) and all(isinstance(each, str) or "class_path" in (each or {}) for each in entries)


def _fields(given: Mapping[str, Any], source: Task, theirs: Mapping[str, Any], same: bool) -> list[str]:
    """The fields of a source that a task reads or writes too, if nothing else is said."""
    if names_in_full(given.get("tokenizers")):
        return []
    names = list(theirs["init_args"]["tokenizers"])
    target = theirs["init_args"].get("target")
    if not same:
        return [name for name in names if name in source.inputs]
    return [name for name in names if name != target or given.get("target", target) == target]


def _merged(theirs: Any, given: Any, path: str) -> tuple[Any, list[str]]:
    """A value of the source, with what is given in its place, and the paths of what is taken."""
    if given is _LEFT_OUT:
        return theirs, [path]
    if not isinstance(given, Mapping) or not isinstance(theirs, Mapping):
        return given, []
    if given.get("class_path", theirs.get("class_path")) != theirs.get("class_path"):
        return dict(given), []
    merged, taken = {}, []
    for key in [*theirs, *(key for key in given if key not in theirs)]:
        merged[key], inner = _merged(theirs.get(key), given.get(key, _LEFT_OUT), f"{path}.{key}")
        taken += inner
    # One word for all where nothing was given.
    return merged, taken if any(key in given for key in theirs) else [path]


def _tokenizers(
    given: Mapping[str, Any], fields: Sequence[str], source: Task, name: str
) -> tuple[dict[str, Any], list[str]]:
    theirs = take_out(source.config())[0]["init_args"]["tokenizers"]
    made, taken = {}, []
    for field in [*fields, *(field for field in given if field not in fields)]:
        entry, path = given.get(field, _LEFT_OUT), f"tokenizers.{field}"
        if entry is None:
            continue
        if isinstance(entry, Mapping) and "class_path" not in entry and field not in theirs:
            raise InputError(
                f"model.tokenizers.{field} has no class_path, and init_from {name} has no such field to take it from"
                f"{nearest(field, list(theirs))}"
            )
        if field not in theirs:
            made[field] = entry
            continue
        made[field], inner = _merged(_kept(theirs[field], entry, source, field), entry, path)
        taken += [each.replace(".init_args", "") for each in inner if not each.endswith(".class_path")]
    return made, taken


def _kept(theirs: Mapping[str, Any], entry: Any, source: Task, field: str) -> dict[str, Any]:
    """A tokenizer of the source, without the arguments that go together of which one is given otherwise."""
    own = dict(theirs["init_args"])
    given = entry.get("init_args") or {} if isinstance(entry, Mapping) else {}
    for group in source.tokenizers[field].together:
        if any(key in given and given[key] != own.get(key) for key in group):
            own = {key: value for key, value in own.items() if key not in group}
    return {**theirs, "init_args": own}


def _changes(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """The arguments that tokenizers of both have, and have otherwise."""
    found = []
    for field in ours.keys() & theirs.keys():
        one, other = ours[field], theirs[field]
        if isinstance(one, Mapping) and one.get("class_path") == other["class_path"]:
            args = one.get("init_args") or {}
            found += [
                f"tokenizers.{field}.{key} from {shown(value)} to {shown(args[key])}"
                for key, value in other["init_args"].items()
                if key in args and _plain(args[key]) != _plain(value)
            ]
    return found


def _plain(value: Any) -> Any:
    return list(map(_plain, value)) if isinstance(value, list | tuple) else value
