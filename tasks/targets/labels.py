"""A target of any number of labels: each is there or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from anyformer.batch import Batch
from anyformer.data.source import Source
from anyformer.data.values import decoded, is_json, is_missing, name_of, parse_json, respelt
from anyformer.errors import InputError, say
from anyformer.metrics.accumulators import Kept, Sums
from anyformer.metrics.classification import mean_average_precision
from anyformer.metrics.metric import LOSS, Metric, ratio
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.tasks.targets.aims import Aim
from anyformer.tasks.targets.classes import class_index, class_names, likeliest, sort_classes
from anyformer.tasks.targets.target import (
    Target,
    TargetHead,
    aim_at_samples,
    check_weight,
    class_rows,
    known_values,
    linear,
)

METRICS = {
    "map": Metric("max", ("kept",), lambda kept: mean_average_precision(*kept.chunk(2, 1))),
    # Of all decisions together, at a probability of a half.
    "f1": Metric("max", ("counts",), lambda counts: 2 * counts[0].sum() / counts[1:].sum()),
    # The share of samples that have all labels right.
    "exact_match": Metric("max", ("exact", "targets"), ratio),
    "loss": LOSS,
}


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

    means = averages = ("classes",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", class_names(self.classes))
        check_weight(self.weight)
        if not self.separator:
            raise InputError("separator must be at least one character")

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return METRICS

    def fit(self, name: str, source: Source) -> Self:
        pairs = [pair for known in known_values(source, name, self._labels) for pair in known]
        if changed := respelt(*zip(*pairs, strict=True)) if pairs else "":
            say(f"column {name!r}: {changed}")
        if self.classes is not None:
            return self
        found = {label for _, label in pairs}
        if not found:
            raise InputError(f"column {name!r} must hold labels, and no training record has one")
        return replace(self, classes=tuple(sort_classes(found)))

    def counts(self, name: str, source: Source) -> dict[str, int]:
        found = Counter(label for known in known_values(source, name, self._labels) for _, label in known)
        return {each: found[each] for each in self.classes or ()}

    def _labels(self, name: str, value: Any) -> list[tuple[Any, str]]:
        """The labels as they stand there, but for spaces around those of a text, with their names."""
        value = decoded(value, f"field {name!r}")
        if is_json(value):
            value = parse_json(value)
        if isinstance(value, str):
            value = [part.strip() for part in value.split(self.separator)]
        elif isinstance(value, Mapping):
            raise InputError(f"field {name!r} must hold a list of labels, or a text, got {type(value).__name__}")
        elif not isinstance(value, Iterable):
            # A column of numbers, of which a record has one.
            value = [value]
        return [(part, name_of(part, f"a label of field {name!r}")) for part in value if not is_missing(part)]

    def value(self, name: str, record: Mapping[str, Any]) -> Tensor | None:
        given = record.get(name)
        if is_missing(given):
            return None
        value = torch.zeros(len(self.classes))
        for _, label in self._labels(name, given):
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
        super().__init__(METRICS)
        self.classes = classes
        self.output = linear(transformer.d_model, len(classes), transformer)
        # Of each label: said and true, said, true; and how many have all labels right.
        self.sums.update({"counts": Sums(3, len(classes)), "exact": Sums(), "kept": Kept(2 * len(classes))})
        self.counts: Tensor | None = None
        """Those of the last evaluation."""

    def forward(self, vectors: Tensor) -> Tensor:
        """Logits, (t, labels)."""
        return self.output(vectors).float()

    explained_in = "nats"

    @property
    def choices(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(map(str, self.classes))

    def given_answer(self, outputs: Tensor) -> str:
        return self.choices[int(outputs[0].argmax())]

    def explained(self, outputs: Tensor, answer: str, rather_than: str | None) -> Tensor:
        """The log-odds of a label, or how far they are above another's."""
        own = outputs[:, self.choices.index(answer)]
        return own if rather_than is None else own - outputs[:, self.choices.index(rather_than)]

    def explained_as(self, answer: str, rather_than: str | None) -> str:
        return f"the log-odds of the label {answer}" + (f" above those of {rather_than}" if rather_than else "")

    def to_mean(self, outputs: Tensor) -> Tensor:
        return outputs.double().sigmoid()

    def from_mean(self, mean: Tensor) -> Tensor:
        return mean.logit(torch.finfo(torch.float64).eps).float()

    def loss(self, outputs: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The mean over the labels of the binary cross-entropies."""
        losses = F.binary_cross_entropy_with_logits(outputs, values, reduction="none").mean(1)
        return losses.sum(), losses.new_tensor(len(values))

    def evaluate(self, outputs: Tensor, values: Tensor) -> dict[str, Tensor]:
        self.add_loss(outputs, values)
        said = (outputs > 0).to(values.dtype)
        self.sums["counts"].update(torch.stack([(said * values).sum(0), said.sum(0), values.sum(0)]))
        self.sums["kept"].update(torch.cat([outputs, values], 1))
        is_exact = (said == values).all(1).float()
        self.sums["exact"].update(is_exact.sum())
        return {"exact_match": is_exact}

    def compute(self) -> dict[str, Tensor]:
        values = super().compute()
        self.counts = self.sums["counts"].compute().cpu()
        return values

    def by_class(self) -> list[dict[str, Any]]:
        return [] if self.counts is None else class_rows(self.classes, *self.counts)

    def results(self, outputs: Tensor) -> list[dict[str, Any]]:
        every = likeliest(outputs.sigmoid(), self.classes)
        return [
            {"labels": [name for name, p in by_class.items() if p > 0.5], "probabilities": by_class}
            for by_class in every
        ]
