"""Names of classes: their order, their weights, the likeliest of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from torch import Tensor

from anyformer.data.source import Source
from anyformer.data.values import name_of, names_of, respelt
from anyformer.errors import InputError, say
from anyformer.tasks.targets.target import known_values

ONE_LABEL = "correct it, or leave it empty; several labels at once are Predict's Labels"
"""What to do about a value that is no label."""


def read_labels(source: Source, name: str) -> list[str]:
    """The names of the labels in a column; records without one are left out. Spellings that are changed are said.

    Raises InputError with the name of the record for what is no label, and where no record has the column.
    """
    known = known_values(source, name, lambda name, value: (value, name_of(value, f"field {name!r}", ONE_LABEL)))
    names = [label for _, label in known]
    if changed := respelt([value for value, _ in known], names):
        say(f"column {name!r}: {changed}")
    return names


def likeliest(probabilities: Tensor, classes: Sequence[str]) -> list[dict[str, float]]:
    """The probability of each class by its name, the likeliest first. probabilities: (t, classes)."""
    values, indices = probabilities.sort(descending=True)
    pairs = zip(values.tolist(), indices.tolist(), strict=True)
    return [{classes[i]: value for value, i in zip(*row, strict=True)} for row in pairs]


def sort_classes(labels: Collection[str]) -> list[str]:
    """The different ones: numbers in the sequence of numbers, names in the alphabet's."""
    found = set(labels)
    are_numbers = all(re.fullmatch("-?[0-9]+", label) for label in found)
    return sorted(found, key=lambda label: (int(label), label) if are_numbers else label)


def balance(labels: Sequence[str], classes: Sequence[str]) -> tuple[float, ...]:
    """Weights by which all classes weigh the same in sum."""
    counts = Counter(labels)
    return tuple(len(labels) / (len(classes) * max(counts[name], 1)) for name in classes)


def class_index(name: str, label: Any, classes: Sequence[str]) -> int:
    """The number of a label of a column. Raises InputError for one that is no class."""
    label = name_of(label, f"field {name!r}", ONE_LABEL)
    try:
        return classes.index(label)
    except ValueError:
        known = ", ".join(classes[:20]) + (", ..." if len(classes) > 20 else "")
        raise InputError(
            f"field {name!r}: the label {label!r} was not seen in training; the classes are {known}; name all of "
            "them in classes, or have every part get its share of each by data.stratify"
        ) from None


def class_names(classes: Sequence[Any] | None) -> tuple[str, ...] | None:
    """The names of classes that are given, be it as numbers. Raises InputError for one that comes twice."""
    return None if classes is None else names_of(classes, "classes")


def check_smoothing(label_smoothing: float) -> None:
    if not 0 <= label_smoothing < 1:
        raise InputError(f"label_smoothing must be at least 0 and below 1, got {label_smoothing}")
