"""The channels of a record: by name or all in one array, with their times, out of lists, JSON and files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from anyformer.data.values import is_json, parse_json, to_numbers
from anyformer.errors import InputError, nearest
from anyformer.tokenizers.arrays import COLUMNS, read_array, read_columns

UNNAMED = None
"""What the channels of an array are called."""
UNKNOWN = "the number of channels is not known yet; give channels, or fit to data first"

Channels = Mapping[str | None, np.ndarray | None]
"""The channels of a record by name, (channels, steps) float64 each, None where missing."""


def read_channels(record: Any, times: str | None, time_first: bool) -> tuple[Channels, np.ndarray | None]:
    """The channels of a record, and the values of the one that is called `times`.

    time_first: whether arrays are (steps, channels).
    """
    if is_json(record):
        record = parse_json(record)
    elif isinstance(record, str) and record.lower().endswith(COLUMNS):
        columns = read_columns(record)
        is_named = times is not None or list(columns) != [str(i) for i in range(len(columns))]
        stacked = np.stack(list(columns.values()))
        record = columns if is_named else stacked.T if time_first else stacked
    elif isinstance(record, str):
        record = read_array(record)
    if isinstance(record, Mapping):
        return _read_named(record, times, time_first)
    if times is not None:
        raise InputError(f"times: {times!r} needs records of named columns, and this one is an array")
    values = _turn(to_numbers(record, "a series"), time_first)
    check_shape(values.shape)
    return {UNNAMED: values}, None


def _read_named(record: Mapping[str, Any], times: str | None, time_first: bool) -> tuple[Channels, np.ndarray | None]:
    record = {name: parse_json(part) if is_json(part) else part for name, part in record.items()}
    if times is not None and times not in record:
        raise InputError(f"no times {times!r}; there are {', '.join(record)}{nearest(times, record)}")
    parts: dict[str | None, np.ndarray | None] = {}
    for name, part in record.items():
        if name == times:
            continue
        # An empty cell of a table that keeps its lists as text is a missing channel too.
        if part is None or (isinstance(part, str) and not part.strip()):
            parts[name] = None
            continue
        part = to_numbers(part, f"channel {name!r}")
        if part.ndim not in (1, 2):
            raise InputError(f"channel {name!r} must be a list of numbers, got {record[name]!r:.60}")
        parts[name] = _turn(part, time_first)
        check_shape(parts[name].shape)
    there = [part.shape[1] for part in parts.values() if part is not None]
    if len(set(there)) > 1:
        raise InputError(f"channels must have equally many steps, got {', '.join(map(str, there))}")
    return parts, None if times is None else to_numbers(record[times], f"times {times!r}")


def _turn(values: np.ndarray, time_first: bool) -> np.ndarray:
    """(channels, steps) of what may be one channel, or have its steps first."""
    return values[None] if values.ndim == 1 else values.T if time_first else values


def check_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of an array. Raises InputError for one that no series can have."""
    if len(shape) not in (1, 2) or 0 in shape:
        raise InputError(f"a series must be (channels, steps) with at least one of each, got {shape}")
    return shape


def check_times(times: np.ndarray, n: int) -> None:
    """Raise InputError where times are not one for each of n steps, or do not rise."""
    if times.shape != (n,):
        raise InputError(f"there must be a time for each of the {n} steps, got {times.shape}")
    if np.isnan(times).any():
        raise InputError(f"step {int(np.isnan(times).argmax())} has no time; leave such steps out")
    if (late := np.diff(times) <= 0).any():
        step = int(late.argmax()) + 1
        raise InputError(f"times must rise, and step {step} is at {times[step]:g} after {times[step - 1]:g}; sort them")


def count_steps(parts: Channels, times: np.ndarray | None) -> int:
    """As many as the channels have; where all are missing, as there are times."""
    return next((part.shape[1] for part in parts.values() if part is not None), 0 if times is None else times.size)


def arrange(
    parts: Channels, n_steps: int, names: tuple[str, ...] | None, n_channels: int | None, time_first: bool
) -> np.ndarray:
    """The channels in the sequence of `names`, (channels, steps), NaN for those that are missing.

    Raises InputError for channels that are not among them, or for others than n_channels of an array.
    """
    if names is None or UNNAMED in parts:
        if len(parts) != 1:
            raise InputError(
                f"the sequence of the channels {', '.join(parts)} is not known yet; fit to data that has them by "
                "name, or give names: [...]"
            )
        values = next(iter(parts.values()))
        if values is None and n_channels is None:
            raise InputError(UNKNOWN)
        values = np.full((n_channels, n_steps), np.nan) if values is None else values
        if n_channels not in (None, len(values)):
            raise wrong_number(UNNAMED, values, n_channels, time_first)
        return values
    if (lost := next((name for name in parts if name not in names), None)) is not None:
        known = list(dict.fromkeys(names))
        raise InputError(f"no channel {lost!r} is known; there are {', '.join(known)}{nearest(lost, known)}")
    arranged = []
    for name, n in Counter(names).items():
        part = parts.get(name)
        part = np.full((n, n_steps), np.nan) if part is None else part
        if len(part) != n:
            raise wrong_number(name, part, n, time_first)
        arranged.append(part)
    return np.concatenate(arranged)


def wrong_number(name: str | None, values: np.ndarray, needed: int, time_first: bool) -> InputError:
    """What to raise for (channels, steps) of another number of channels than needed."""
    turned = f"; its steps come first: give time_first: {str(not time_first).lower()}"
    what = "a series" if name == UNNAMED else f"{name!r}"
    return InputError(
        f"{what} of {len(values)} channels, and there must be {needed}{turned if values.shape[1] == needed else ''}"
    )
