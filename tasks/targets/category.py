"""Categories as targets: one of several classes, or any number of labels at once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyformer.batch import Batch
from anyformer.data.source import Source
from anyformer.data.values import is_missing, name_of
from anyformer.drawing.evaluation import draw_confusion, draw_reliability
from anyformer.errors import InputError
from anyformer.metrics.accumulators import Kept, Sums
from anyformer.metrics.classification import N_BINS, auroc, calibration_error, count_bins, macro_f1
from anyformer.metrics.metric import LOSS, Metric
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.tasks.targets.aims import Aim
from anyformer.tasks.targets.calibration import fit_temperature
from anyformer.tasks.targets.classes import (
    balance,
    check_smoothing,
    class_index,
    class_names,
    likeliest,
    read_labels,
    sort_classes,
)
from anyformer.tasks.targets.target import (
    Stage,
    Target,
    TargetHead,
    aim_at_samples,
    check_weight,
    class_rows,
    known_values,
    linear,
)
from anyformer.tokens import Tokenizer

METRICS = {
    "accuracy": Metric("max", ("confusion",), lambda confusion: confusion.trace() / confusion.sum()),
    "f1": Metric("max", ("confusion",), macro_f1),
    # Of two classes: scores and truth.
    "auroc": Metric("max", ("scores",), lambda scores: auroc(*scores.unbind(1))),
    # Of more than five.
    "top5": Metric("max", ("top5", "confusion"), lambda found, confusion: found / confusion.sum()),
    "ece": Metric("min", ("bins",), calibration_error),
    "loss": LOSS,
}


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
    calibrate: bool = False
    """Whether after training a temperature is fitted on the validation records, so that what is said with a probability
    of 0.8 is right four times in five; no prediction changes."""
    temperature: float = 1.0
    """What logits are divided by in evaluation and use; what `calibrate` fits."""

    means = averages = ("classes",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", class_names(self.classes))
        if isinstance(self.class_weights, list):
            object.__setattr__(self, "class_weights", tuple(self.class_weights))
        check_weight(self.weight)
        if not 0 < self.temperature < math.inf:
            raise InputError(f"temperature must be above 0, got {self.temperature}")
        check_smoothing(self.label_smoothing)

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return METRICS

    @property
    def is_balanced(self) -> bool:
        return self.class_weights is not None

    def fit(self, name: str, source: Source) -> Self:
        labels = read_labels(source, name)
        classes = tuple(self.classes or sort_classes(labels))
        if len(classes) < 2:
            raise InputError(f"column {name!r} must hold at least two classes, got {list(classes)}")
        weights = balance(labels, classes) if self.class_weights == "balanced" else self.class_weights
        return replace(self, classes=classes, class_weights=weights)

    def counts(self, name: str, source: Source) -> dict[str, int]:
        found = Counter(known_values(source, name, lambda name, value: name_of(value, f"field {name!r}")))
        return {each: found[each] for each in self.classes or ()}

    def value(self, name: str, record: Mapping[str, Any]) -> Tensor | None:
        label = record.get(name)
        return None if is_missing(label) else torch.tensor(class_index(name, label, self.classes))

    def aim(self, name: str, values: Sequence[Tensor | None], batch: Batch) -> Aim:
        return aim_at_samples(values, torch.zeros(0, dtype=torch.int64))

    def head(self, name: str, model: Anyformer, transformer: TransformerConfig) -> CategoryHead:
        if self.classes is None:
            raise InputError(f"target {name!r}: the classes are not known yet: give classes, or fit to data")
        if self.class_weights is not None and len(self.class_weights) != len(self.classes):
            raise InputError(
                f"target {name!r}: class_weights must have a number for each of the {len(self.classes)} classes, "
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
        """The class; of shares of each, as of blended samples, the two greatest with theirs."""
        if not value.ndim:
            return self.classes[int(value)]
        shares, indices = value.topk(2)
        words = [f"{self.classes[i]} {round(share, 2):g}" for i, share in zip(indices, shares.tolist(), strict=True)]
        return " ".join(words) if shares[1] >= 0.005 else self.classes[indices[0]]


class CategoryHead(TargetHead):
    """A softmax over the classes.

    Values are (t,) int64 classes, or, of samples that are blended in training, (t, classes) shares of each.
    """

    def __init__(self, category: Category, output: nn.Module) -> None:
        """output: what makes logits of what is read."""
        super().__init__(METRICS)
        self.classes, self.label_smoothing = category.classes, category.label_smoothing
        n = len(self.classes)
        self.output = output
        weights = None if category.class_weights is None else torch.tensor(category.class_weights, dtype=torch.float32)
        self.register_buffer("loss_weights", weights, persistent=False)
        self.temperature = category.temperature
        self.sums.update({"confusion": Sums(n, n), "bins": Sums(3, N_BINS)} | ({"top5": Sums()} if n > 5 else {}))
        if n == 2:
            self.sums["scores"] = Kept(2)
        self.confusion: Tensor | None = None
        self.bins: Tensor | None = None
        """What `count_bins` gives of the last evaluation."""

    def forward(self, vectors: Tensor) -> Tensor:
        """Logits, (t, classes)."""
        return self.output(vectors).float()

    def calibrated(self, outputs: Tensor) -> Tensor:
        return outputs if self.temperature == 1 else outputs / self.temperature

    def begin_calibration(self) -> None:
        """Keep the outputs of the next evaluation whole."""
        self.temperature = 1.0
        self.sums["outputs"] = Kept(len(self.classes) + 1)

    def end_calibration(self) -> float | str:
        kept = self.sums.pop("outputs").compute().cpu()
        fitted = fit_temperature(kept[:, :-1], kept[:, -1].long())
        self.temperature = 1.0 if isinstance(fitted, str) else fitted
        return fitted

    explained_in = "nats"

    @property
    def choices(self) -> tuple[str, ...]:  # type: ignore[override]
        """Of a single class there is no choice."""
        return tuple(map(str, self.classes)) if len(self.classes) > 1 else ()

    def given_answer(self, outputs: Tensor) -> str:
        return self.choices[int(outputs[0].argmax())]

    def explained(self, outputs: Tensor, answer: str, rather_than: str | None) -> Tensor:
        """The log-odds: its logit against those of all others together, or of the one."""
        own = self.choices.index(answer)
        if rather_than is not None:
            return outputs[:, own] - outputs[:, self.choices.index(rather_than)]
        others = [i for i in range(len(self.choices)) if i != own]
        return outputs[:, own] - outputs[:, others].logsumexp(1)

    def explained_as(self, answer: str, rather_than: str | None) -> str:
        return f"the log-odds of {answer}" + (f" against {rather_than}" if rather_than is not None else "")

    def to_mean(self, outputs: Tensor) -> Tensor:
        return outputs.double().softmax(-1)

    def from_mean(self, mean: Tensor) -> Tensor:
        return mean.clamp(min=torch.finfo(torch.float32).tiny).log().float()

    def loss(self, outputs: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        smoothing = self.label_smoothing if self.training else 0.0
        loss = F.cross_entropy(outputs, values, self.loss_weights, reduction="sum", label_smoothing=smoothing)
        if self.loss_weights is None:
            return loss, loss.new_tensor(len(values))
        return loss, (values @ self.loss_weights if values.ndim == 2 else self.loss_weights[values]).sum()

    def evaluate(self, outputs: Tensor, values: Tensor) -> dict[str, Tensor]:
        self.add_loss(outputs, values)
        n = len(self.classes)
        found = outputs.argmax(-1)
        self.sums["confusion"].update(torch.bincount(values * n + found, minlength=n * n).view(n, n))
        probabilities = outputs.softmax(-1).gather(1, found[:, None])[:, 0]
        self.sums["bins"].update(count_bins(probabilities, found == values))
        if "outputs" in self.sums:
            self.sums["outputs"].update(torch.cat([outputs, values[:, None].float()], 1))
        if n > 5:
            self.sums["top5"].update((outputs.topk(5).indices == values[:, None]).sum())
        if n == 2:
            self.sums["scores"].update(torch.stack([outputs[:, 1] - outputs[:, 0], values.float()], 1))
        return {"accuracy": (found == values).float()}

    def compute(self) -> dict[str, Tensor]:
        values = super().compute()
        self.confusion, self.bins = (self.sums[name].compute().cpu() for name in ("confusion", "bins"))
        return values

    def by_class(self) -> list[dict[str, Any]]:
        if self.confusion is None:
            return []
        return class_rows(self.classes, self.confusion.diagonal(), self.confusion.sum(0), self.confusion.sum(1))

    def results(self, outputs: Tensor) -> list[dict[str, Any]]:
        every = likeliest(outputs.softmax(-1), self.classes)
        return [{"label": next(iter(by_class)), "probabilities": by_class} for by_class in every]

    def draw(self, folder: Path, suffix: str, stage: Stage = "", inputs: Mapping[str, Tokenizer] = {}) -> None:
        if self.confusion is not None:
            draw_confusion(self.confusion, self.classes, folder / f"confusion{suffix}.png")
        if self.bins is not None:
            draw_reliability(self.bins, calibration_error(self.bins).item(), folder / f"reliability{suffix}.png")
