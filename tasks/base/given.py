"""What a Python program gives `predict`: records in many forms, and options by their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import wraps
from typing import Any

from anyformer.data.python_records import as_source, is_frame
from anyformer.data.source import Source, join_files
from anyformer.errors import InputError, suggest


def takes_records(predict: Callable[..., list[Any]]) -> Callable[..., Any]:
    """Let a task's `predict` of a list of records take what else holds some, and its options as keywords.

    Instead of the list: a source, a DataFrame, a dataset; one record, or where the task has one input its value alone,
    of which the one result comes back.
    """

    @wraps(predict)
    def taking(self: Any, records: Any, options: Any = None, **keywords: Any) -> Any:
        given, is_one = read_records(self, records)
        options, others = _read_keywords(self, options, keywords)
        results = predict(self, given, options, **others)
        return results[0] if is_one else results

    return taking


def read_records(task: Any, given: Any) -> tuple[list[dict[str, Any]], bool]:
    """The records, and whether it is one that stood alone. Raises InputError for what holds none.

    A file name in a source starts from its folder, as in training; one in a dict is a path.
    """
    names = task.inputs
    if isinstance(given, Mapping) and (len(names) != 1 or given.keys() & {*names}):
        return [dict(given)], True
    if isinstance(given, Source):
        found = (({n: v for n, v in given[i].items() if n in names}, given.folder_of(i)) for i in range(len(given)))
        return [join_files(record, folder, task.tokenizers) for record, folder in found], False
    if isinstance(given, list | tuple):
        if len(names) == 1 and _is_value(given):
            return [{names[0]: given}], True
        return [_record(names, each, i) for i, each in enumerate(given)], False
    if is_frame(given) or _is_dataset(given):
        source = as_source(given, "records")
        return [source[i] for i in range(len(source))], False
    return [_record(names, given, None)], True


def _is_value(given: Any) -> bool:
    """Whether a list is the value of a field, as numbers are, and none of records or values."""
    return bool(given) and all(isinstance(each, int | float) for each in given)


def _is_dataset(given: Any) -> bool:
    """Whether it is gone through, and is no value itself: a text, an array, a picture."""
    if isinstance(given, str | bytes | Mapping) or hasattr(given, "dtype"):
        return False
    return hasattr(given, "__iter__") or (hasattr(given, "__getitem__") and hasattr(given, "__len__"))


def _record(names: list[str], value: Any, i: int | None) -> dict[str, Any]:
    if isinstance(value, Mapping) and (len(names) != 1 or value.keys() & {*names}):
        return dict(value)
    if len(names) == 1:
        return {names[0]: value}
    what = "a record" if i is None else f"record {i}"
    raise InputError(f"{what} must be a dict of the fields {', '.join(names)}, got {type(value).__name__}")


def _read_keywords(task: Any, options: Any, keywords: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The options with those given as keywords, and the other keywords."""
    base = task.options if options is None else options
    known = [] if base is None else [each.name for each in fields(base)]
    own = {name: value for name, value in keywords.items() if name in known}
    others = {name: value for name, value in keywords.items() if name not in known}
    for name in others.keys() - {"batch_size"}:
        raise InputError(f"predict has no option {name!r}{suggest(name, [*known, 'batch_size'])}")
    if own:
        options = base(**own) if isinstance(base, type) else replace(base, **own)
    return options, others
