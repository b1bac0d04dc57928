"""Categories as targets: one of several classes, or any number of labels at once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyformer.batch import Batch
from anyformer.data.source import Source
from anyformer.data.values import is_json, is_missing, read_json
from anyformer.drawing.evaluation import draw_confusion
from anyformer.errors import InputError
from anyformer.metrics.accumulators import Kept, Sums
from anyformer.metrics.classification import auroc, average_precision, macro_f1
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.tasks.targets import (
    Aim,
    Target,
    TargetHead,
    aim_at_samples,
    check_weight,
    known_values,
    linear,
)


@dataclass(frozen=True)
class Category(Target):
    """One of several classes."""

    classes: tuple[str | int, ...] | None = None
    """Their names; what the training records hold, sorted, when left out."""
    class_weights: tuple[float, ...] | Literal["balanced"] | None = None
    """Of each class in the loss; balanced: so that all classes weigh the same in sum."""
    label_smoothing: float = 0.0
    """Mass taken from the right class and spread over all."""
    weight: float = 1.0
    """Of its losses among those of other targets."""

    means = ("classes",)

    def __post_init__(self) -> None:
        _as_names(self)
        if isinstance(self.class_weights, list):
            object.__setattr__(self, "class_weights", tuple(self.class_weights))
        check_weight(self.weight)
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"label_smoothing must be at least 0 and below 1, got {self.label_smoothing}")

    @property
    def best(self) -> dict[str, Literal["min", "max"]]:
        return {"accuracy": "max", "f1": "max", "auroc": "max", "top5": "max", "loss": "min"}

    def fit(self, name: str, source: Source) -> Self:
        labels = [str(label) for label in known_values(source, name)]
        classes = tuple(self.classes or sort_classes(labels))
        if len(classes) < 2:
            raise InputError(f"column {name!r} must hold at least two classes, got {list(classes)}")
        weights = balance(labels, classes) if self.class_weights == "balanced" else self.class_weights
        return replace(self, classes=classes, class_weights=weights)

    def value(self, name: str, record: Mapping[str, Any]) -> Tensor | None:
        label = record.get(name)
        return None if is_missing(label) else torch.tensor(class_index(name, label, self.classes))

    def aim(self, name: str, values: Sequence[Tensor | None], batch: Batch) -> Aim:
        return aim_at_samples(values, torch.zeros(0, dtype=torch.int64))

    def head(self, name: str, model: Anyformer, transformer: TransformerConfig) -> CategoryHead:
        if self.classes is None:
            raise InputError(f"targets.{name}: the classes are not known yet: give classes, or fit to data")
        if self.class_weights is not None and len(self.class_weights) != len(self.classes):
            raise InputError(
                f"targets.{name}.class_weights must have a number for each of the {len(self.classes)} classes, "
                f"got {len(self.class_weights)}"
            )
        return CategoryHead(self, linear(transformer.d_model, len(self.classes), transformer))

    def render(self, result: Mapping[str, Any]) -> str:
        top = list(result["probabilities"].items())[:5]
        return "  ".join(f"{name} {value:.1%}" for name, value in top)

    def row(self, name: str, result: Mapping[str, Any]) -> dict[str, Any]:
        by_class = {f"{name}({each})": result["probabilities"][each] for each in self.classes}
        return {name: result["label"], **by_class}

    def words(self, value: Tensor) -> str:
        return self.classes[int(value)]


class CategoryHead(TargetHead):
    """A softmax over the classes.

    Values are (t,) int64 classes, or, of samples that are blended in training, (t, classes) shares of each.
    """

    def __init__(self, category: Category, output: nn.Module) -> None:
        """output: what makes logits of what is read."""
        super().__init__()
        self.classes, self.label_smoothing = category.classes, category.label_smoothing
        n = len(self.classes)
        self.output = output
        weights = None if category.class_weights is None else torch.tensor(category.class_weights, dtype=torch.float32)
        self.register_buffer("loss_weights", weights, persistent=False)
        self.sums.update({"confusion": Sums(n, n)} | ({"top5": Sums()} if n > 5 else {}))
        if n == 2:
            self.sums["scores"] = Kept(2)
        self.confusion: Tensor | None = None

    def loss(self, vectors: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        logits, smoothing = self.output(vectors).float(), self.label_smoothing if self.training else 0.0
        loss = F.cross_entropy(logits, values, self.loss_weights, reduction="sum", label_smoothing=smoothing)
        if self.loss_weights is None:
            return loss, loss.new_tensor(len(values))
        return loss, (values @ self.loss_weights if values.ndim == 2 else self.loss_weights[values]).sum()

    def evaluate(self, vectors: Tensor, values: Tensor) -> dict[str, Tensor]:
        logits = self.output(vectors).float()
        self.add_loss(vectors, values)
        n = len(self.classes)
        found = logits.argmax(-1)
        self.sums["confusion"].update(torch.bincount(values * n + found, minlength=n * n).view(n, n))
        if n > 5:
            self.sums["top5"].update((logits.topk(5).indices == values[:, None]).sum())
        if n == 2:
            self.sums["scores"].update(torch.stack([logits[:, 1] - logits[:, 0], values.float()], 1))
        return {"accuracy": (found == values).float()}

    def has(self, figure: str) -> bool:
        return {"top5": "top5" in self.sums, "auroc": "scores" in self.sums}.get(figure, True)

    def figures(self) -> dict[str, Tensor]:
        confusion = self.sums["confusion"].compute()
        self.confusion = confusion.cpu()
        total = confusion.sum()
        values = {"loss": self.mean_loss(), "accuracy": confusion.trace() / total, "f1": macro_f1(confusion)}
        if "top5" in self.sums:
            values["top5"] = self.sums["top5"].compute() / total
        if "scores" in self.sums:
            values["auroc"] = auroc(*self.sums["scores"].compute().unbind(1))
        return values

    def results(self, vectors: Tensor) -> list[dict[str, Any]]:
        every = _likeliest(self.output(vectors).float().softmax(-1), self.classes)
        return [{"label": next(iter(by_class)), "probabilities": by_class} for by_class in every]

    def draw(self, folder: Path, suffix: str) -> None:
        if self.confusion is not None:
            draw_confusion(self.confusion, self.classes, folder / f"confusion{suffix}.png")


@dataclass(frozen=True)
class Labels(Target):
    """Any number of labels at once: a list of them, as JSON too, or a text that holds them with `separator` between.

    An empty list says that there are none; an empty text says nothing.
    """

    classes: tuple[str | int, ...] | None = None
    """The labels that there are; what the training records hold, sorted, when left out."""
    separator: str = ","
    """Between the labels of a text; spaces around them do not count."""
    weight: float = 1.0
    """Of its losses among those of other targets."""

    means = ("classes",)

    def __post_init__(self) -> None:
        _as_names(self)
        check_weight(self.weight)
        if not self.separator:
            raise InputError("separator must be at least one character")

    @property
    def best(self) -> dict[str, Literal["min", "max"]]:
        return {"map": "max", "f1": "max", "exact_match": "max", "loss": "min"}

    def fit(self, name: str, source: Source) -> Self:
        known = known_values(source, name, self._split)
        if self.classes is not None:
            return self
        found = {label for labels in known for label in labels}
        if not found:
            raise InputError(f"column {name!r} must hold labels, and no training record has one")
        return replace(self, classes=tuple(sort_classes(found)))

    def _split(self, name: str, value: Any) -> list[str]:
        if is_json(value):
            value = read_json(value)
        if isinstance(value, str):
            value = value.split(self.separator)
        elif not isinstance(value, Iterable) or isinstance(value, Mapping):
            raise InputError(f"field {name!r} must hold a list of labels, or a text, got {type(value).__name__}")
        return [str(part).strip() for part in value if not is_missing(part)]

    def value(self, name: str, record: Mapping[str, Any]) -> Tensor | None:
        given = record.get(name)
        if is_missing(given):
            return None
        value = torch.zeros(len(self.classes))
        for label in self._split(name, given):
            value[class_index(name, label, self.classes)] = 1
        return value

    def aim(self, name: str, values: Sequence[Tensor | None], batch: Batch) -> Aim:
        return aim_at_samples(values, torch.zeros(0, len(self.classes)))

    def head(self, name: str, model: Anyformer, transformer: TransformerConfig) -> LabelsHead:
        if self.classes is None:
            raise InputError(f"targets.{name}: the labels are not known yet: give classes, or fit to data")
        return LabelsHead(self.classes, transformer)

    def render(self, result: Mapping[str, Any]) -> str:
        return "  ".join(f"{label} {result['probabilities'][label]:.1%}" for label in result["labels"]) or "none"

    def row(self, name: str, result: Mapping[str, Any]) -> dict[str, Any]:
        by_class = {f"{name}({each})": result["probabilities"][each] for each in self.classes}
        return {name: self.separator.join(result["labels"]), **by_class}

    def words(self, value: Tensor) -> str:
        return " ".join(self.classes[i] for i in value.nonzero().flatten().tolist()) or "none"


class LabelsHead(TargetHead):
    """A yes or no for each label, apart from the others."""

    def __init__(self, classes: Sequence[str], transformer: TransformerConfig) -> None:
        super().__init__()
        self.classes = classes
        self.output = linear(transformer.d_model, len(classes), transformer)
        # Of each label: said and true, said, true; and how many have all labels right.
        self.sums.update({"counts": Sums(3, len(classes)), "exact": Sums(), "kept": Kept(2 * len(classes))})

    def loss(self, vectors: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The mean over the labels of the binary cross-entropies."""
        logits = self.output(vectors).float()
        losses = F.binary_cross_entropy_with_logits(logits, values, reduction="none").mean(1)
        return losses.sum(), losses.new_tensor(len(values))

    def evaluate(self, vectors: Tensor, values: Tensor) -> dict[str, Tensor]:
        self.add_loss(vectors, values)
        logits = self.output(vectors).float()
        said = (logits > 0).to(values.dtype)
        self.sums["counts"].update(torch.stack([(said * values).sum(0), said.sum(0), values.sum(0)]))
        self.sums["kept"].update(torch.cat([logits, values], 1))
        is_exact = (said == values).all(1).float()
        self.sums["exact"].update(is_exact.sum())
        return {"exact_match": is_exact}

    def figures(self) -> dict[str, Tensor]:
        """map: the mean over the labels that occur of their average precision. f1: of all decisions together, at a
        probability of a half. exact_match: the share of samples that have all labels right."""
        both, said, true = self.sums["counts"].compute().sum(1)
        scores, truth = self.sums["kept"].compute().chunk(2, 1)
        each = [average_precision(s, t) for s, t in zip(scores.unbind(1), truth.unbind(1), strict=True) if t.any()]
        mean = torch.stack(each).mean() if each else both.new_tensor(torch.nan)
        exact = self.sums["exact"].compute() / self.sums["targets"].compute()
        return {"loss": self.mean_loss(), "map": mean, "f1": 2 * both / (said + true), "exact_match": exact}

    def results(self, vectors: Tensor) -> list[dict[str, Any]]:
        every = _likeliest(self.output(vectors).float().sigmoid(), self.classes)
        return [
            {"labels": [name for name, p in by_class.items() if p > 0.5], "probabilities": by_class}
            for by_class in every
        ]


def _likeliest(probabilities: Tensor, classes: Sequence[str]) -> list[dict[str, float]]:
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


def _as_names(target: Category | Labels) -> None:
    """Classes may be given as a list, and as numbers."""
    if target.classes is not None:
        object.__setattr__(target, "classes", tuple(str(name) for name in target.classes))
