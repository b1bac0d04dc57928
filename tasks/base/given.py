"""What a Python program gives `predict`: records in many forms, and options by their names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import wraps
from inspect import signature
from itertools import islice
from numbers import Real
from typing import Any

from anyformer.data.python_records import FrameRecords, is_frame
from anyformer.data.source import Source
from anyformer.errors import InputError, suggest

AT_ONCE = 64
"""Records that are predicted together, where nothing else is said."""


def takes_records(predict: Callable[..., list[Any]]) -> Callable[..., Any]:
    """Let a task's `predict` of a list of records take what else holds some, and its options as keywords.

    Instead of the list: a source, a DataFrame, a dataset; one record, or where the task has one input its value alone,
    of which the one result comes back.
    """

    accepted = [name for name, each in signature(predict).parameters.items() if each.kind is each.KEYWORD_ONLY]

    @wraps(predict)
    def taking(self: Any, records: Any, options: Any = None, **keywords: Any) -> Any:
        given, is_one = read_records(self, records)
        options, others = _read_keywords(self, options, keywords, accepted)
        if isinstance(given, list):
            results = predict(self, given, options, **others)
            return results[0] if is_one else results
        # What is read as it is asked for is never held as a whole.
        results = []
        while some := list(islice(given, others.get("batch_size", AT_ONCE))):
            results += predict(self, some, options, **others)
        return results

    return taking


def read_records(task: Any, given: Any) -> tuple[list[dict[str, Any]] | Iterator[dict[str, Any]], bool]:
    """The records, of a source or a dataset one by one, and whether it is one that stood alone.

    A file name in a source starts from its folder, as in training; one in a dict is a path. Raises InputError for what
    holds none.
    """
    names = task.inputs
    if isinstance(given, Mapping):
        return [_record(task, given, None)], True
    if isinstance(given, Source):
        return (task.read_record(given, i) for i in range(len(given))), False
    if isinstance(given, list | tuple):
        if len(names) == 1 and _is_value(given):
            return [{names[0]: given}], True
        return [_record(task, each, i) for i, each in enumerate(given)], False
    if is_frame(given):
        rows = FrameRecords(given)
        return (rows[i] for i in range(len(rows))), False
    if _is_dataset(given):
        by_number = hasattr(given, "__getitem__") and hasattr(given, "__len__")
        every = (given[i] for i in range(len(given))) if by_number else given
        return (_record(task, each, i) for i, each in enumerate(every)), False
    return [_record(task, given, None)], True


def _is_value(given: Any) -> bool:
    """Whether a list is the value of a field, as numbers are, and none of records or values."""
    return bool(given) and all(isinstance(each, Real) or getattr(each, "ndim", None) == 0 for each in given)


def _is_dataset(given: Any) -> bool:
    """Whether it is gone through, and is no value itself: a text, an array, a picture."""
    if isinstance(given, str | bytes | Mapping) or hasattr(given, "dtype"):
        return False
    return hasattr(given, "__iter__") or (hasattr(given, "__getitem__") and hasattr(given, "__len__"))


def _record(task: Any, value: Any, i: int | None) -> dict[str, Any]:
    names = task.inputs
    if isinstance(value, Mapping) and not (len(names) == 1 and _is_content(task.tokenizers[names[0]], value, names[0])):
        return dict(value)
    if len(names) == 1:
        return {names[0]: value}
    what = "a record" if i is None else f"record {i}"
    raise InputError(f"{what} must be a dict of the fields {', '.join(names)}, got {type(value).__name__}")


def _is_content(tokenizer: Any, value: Mapping[str, Any], name: str) -> bool:
    """Whether a dict is what the one field of a record holds: a row's columns, a file's bytes; and no record."""
    return name not in value and (tokenizer.takes_columns or bool(value.keys() & {"path", "bytes", "array"}))


def _read_keywords(
    task: Any, options: Any, keywords: Mapping[str, Any], accepted: Sequence[str]
) -> tuple[Any, dict[str, Any]]:
    """The options with those given as keywords, and the other keywords, which are among the accepted."""
    base = task.options
    kind = base if base is None or isinstance(base, type) else type(base)
    if options is not None and (kind is None or isinstance(options, type) or not is_dataclass(options)):
        needed = "none are known" if kind is None else f"they must be {kind.__name__}, or given by their names"
        raise InputError(f"predict: options of {type(options).__name__}; {needed}")
    known = [] if kind is None else [each.name for each in fields(kind)]
    for name in keywords.keys() - {*known, *accepted}:
        raise InputError(f"predict has no option {name!r}{suggest(name, [*known, *accepted])}")
    if (size := keywords.get("batch_size", 1)) < 1:
        raise InputError(f"batch_size must be at least 1, got {size}")
    own = {name: value for name, value in keywords.items() if name in known}
    if own:
        start = base if options is None else options
        options = start(**own) if isinstance(start, type) else replace(start, **own)
    return options, {name: value for name, value in keywords.items() if name in accepted}
