"""Names of classes: their order, their weights, the likeliest of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from torch import Tensor

from anyformer.errors import InputError


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
    try:
        return classes.index(str(label))
    except ValueError:
        known = ", ".join(classes[:20]) + (", ..." if len(classes) > 20 else "")
        raise InputError(
            f"field {name!r}: the label {str(label)!r} was not seen in training; the classes are {known}; name all of "
            "them in classes, or have every part get its share of each by data.stratify"
        ) from None


def class_names(classes: Sequence[Any] | None) -> tuple[str, ...] | None:
    """The names of classes, which may be given as a list, and as numbers."""
    return None if classes is None else tuple(str(name) for name in classes)


def check_smoothing(label_smoothing: float) -> None:
    if not 0 <= label_smoothing < 1:
        raise InputError(f"label_smoothing must be at least 0 and below 1, got {label_smoothing}")
