"""What simple models predict: the targets of a task as arrays, and predictions in the metrics of the task's report."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from anyformer.data.source import Source
from anyformer.data.values import is_absent
from anyformer.metrics.metric import Metric
from anyformer.metrics.text import TEXT_METRICS, count_errors
from anyformer.tasks.targets.category import Category
from anyformer.tasks.targets.labels import Labels
from anyformer.tasks.targets.regression import Regression
from anyformer.tasks.targets.target import Target, known_values
from anyformer.tasks.targets.text import TextTarget
from anyformer.tokenizers.text.text import Text
from anyformer.tokenizers.text.vocabulary import NORMALIZERS

Kind = Literal["class", "labels", "numbers"]

MOST_TEXTS = 200
"""Different texts, up to which each may be a class."""
TIMES_A_TEXT = 3
"""How often each of them comes, on the average, at the least."""


class Aim(ABC):
    """One target of a task."""

    kind: ClassVar[Kind]
    n: int
    """Classes, labels or numbers."""

    def __init__(self, name: str) -> None:
        self.name = name

    def obstacle(self, source: Source) -> str | None:
        """Why models of classes and numbers cannot predict it, in words; None where they can."""
        return None

    @abstractmethod
    def fit(self, source: Source) -> None:
        """Take what the training records decide. Raises InputError, as the task's own fitting does."""

    @abstractmethod
    def value(self, record: Mapping[str, Any]) -> Any:
        """What is to be predicted of a record; None where it does not say."""

    @abstractmethod
    def learned(self, values: Sequence[Any]) -> np.ndarray:
        """The values of training records as models learn them: (n,) int64 of classes, (n, labels) of 0 and 1, or
        (n, numbers) float, NaN where one is missing."""

    @property
    @abstractmethod
    def metrics(self) -> Mapping[str, Metric]:
        """Those of the task's own report."""

    @abstractmethod
    def sums(self, output: np.ndarray, values: Sequence[Any]) -> dict[str, Tensor]:
        """What the metrics are made of, by the names of a head's accumulators.

        output: of the records, probabilities of the classes or of each label, or the numbers.
        """

    def score(self, output: np.ndarray, values: Sequence[Any]) -> dict[str, float]:
        """Predictions in the metrics, all but the loss, which is no measure of models that give no probabilities."""
        sums = self.sums(output, values)
        return {
            name: float(metric.compute(*(sums[each] for each in metric.of)))
            for name, metric in self.metrics.items()
            if sums.keys() >= set(metric.of)
        }


class ClassAim(Aim):
    """A `Category`."""

    kind = "class"

    def __init__(self, name: str, target: Category) -> None:
        super().__init__(name)
        self.target = target

    def fit(self, source: Source) -> None:
        self.target = self.target.fit(self.name, source)

    @property
    def n(self) -> int:  # type: ignore[override]
        return len(self.target.classes)

    def value(self, record: Mapping[str, Any]) -> int | None:
        found = self.target.value(self.name, record)
        return None if found is None else int(found)

    def learned(self, values: Sequence[int]) -> np.ndarray:
        return np.array(values, dtype=np.int64)

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return self.target.metrics

    def sums(self, output: np.ndarray, values: Sequence[int]) -> dict[str, Tensor]:
        p, truth, n = torch.from_numpy(output), torch.tensor(values, dtype=torch.int64), self.n
        confusion = torch.bincount(truth * n + p.argmax(1), minlength=n * n).view(n, n).double()
        sums = {"confusion": confusion}
        if n > 5:
            sums["top5"] = (p.topk(5).indices == truth[:, None]).sum().double()
        if n == 2:
            sums["scores"] = torch.stack([p[:, 1], truth.double()], 1)
        return sums


class LabelsAim(Aim):
    """`Labels`."""

    kind = "labels"

    def __init__(self, name: str, target: Labels) -> None:
        super().__init__(name)
        self.target = target

    def fit(self, source: Source) -> None:
        self.target = self.target.fit(self.name, source)

    @property
    def n(self) -> int:  # type: ignore[override]
        return len(self.target.classes)

    def value(self, record: Mapping[str, Any]) -> np.ndarray | None:
        found = self.target.value(self.name, record)
        return None if found is None else found.numpy()

    def learned(self, values: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack(values)

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return self.target.metrics

    def sums(self, output: np.ndarray, values: Sequence[np.ndarray]) -> dict[str, Tensor]:
        p, truth = torch.from_numpy(output).double(), torch.from_numpy(np.stack(values)).double()
        said = (p > 0.5).double()
        return {
            "counts": torch.stack([(said * truth).sum(0), said.sum(0), truth.sum(0)]),
            "kept": torch.cat([p, truth], 1),
            "exact": (said == truth).all(1).sum().double(),
            "targets": torch.tensor(float(len(truth))),
        }


class NumbersAim(Aim):
    """A `Regression`."""

    kind = "numbers"

    def __init__(self, name: str, target: Regression) -> None:
        super().__init__(name)
        self.target = target

    def fit(self, source: Source) -> None:
        self.target = self.target.fit(self.name, source)

    @property
    def n(self) -> int:  # type: ignore[override]
        return self.target.n

    def value(self, record: Mapping[str, Any]) -> np.ndarray | None:
        found = self.target.value(self.name, record)
        return None if found is None else found.double().numpy()

    def learned(self, values: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack(values)

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return self.target.metrics

    def sums(self, output: np.ndarray, values: Sequence[np.ndarray]) -> dict[str, Tensor]:
        scaled = torch.from_numpy(np.stack(values))
        known = ~scaled.isnan()
        # About the middle of the training records, so that squares do not cancel.
        middle = self.target.unscale(torch.zeros(self.n))
        true, said = self.target.unscale(scaled), self.target.unscale(torch.from_numpy(output))
        about, error = (part.masked_fill(~known, 0) for part in (true - middle, said - true))
        parts = [known.double(), about, about**2, error**2, error.abs()]
        return {"numbers": torch.stack([part.sum(0) for part in parts])}

    def score(self, output: np.ndarray, values: Sequence[np.ndarray]) -> dict[str, float]:
        found, columns = super().score(output, values), self.target.columns or ()
        if len(columns) > 1:
            sums = self.sums(output, values)["numbers"]
            found |= {f"rmse_{name}": math.sqrt(sums[3, i] / sums[0, i]) for i, name in enumerate(columns)}
        return found


class TextAim(Aim):
    """A text of which there are so few that each is a class."""

    kind = "class"

    def __init__(self, name: str, text: Text, names: Sequence[str], language: str | None = None) -> None:
        """names: of the metrics, the one that chooses first. language: for BLEU of Moses' tokens."""
        super().__init__(name)
        self.text, self.names, self.language = text, names, language
        self.texts: list[str] = []

    def obstacle(self, source: Source) -> str | None:
        found = self._texts(source)
        if len(found) < 2 or len(found) > MOST_TEXTS or found.total() < TIMES_A_TEXT * len(found):
            return f"{self.name!r} holds {len(found):,} different texts in {found.total():,} training records"
        return None

    def fit(self, source: Source) -> None:
        self.texts = sorted(self._texts(source))

    def _texts(self, source: Source) -> Counter[str]:
        return Counter(self._reference(text) for text in known_values(source, self.name) if isinstance(text, str))

    def _reference(self, text: str) -> str:
        return NORMALIZERS[self.text.normalize](text).strip()

    @property
    def n(self) -> int:  # type: ignore[override]
        return len(self.texts)

    def value(self, record: Mapping[str, Any]) -> str | None:
        text = record.get(self.name)
        return None if is_absent(text) or not isinstance(text, str) else self._reference(text)

    def learned(self, values: Sequence[str]) -> np.ndarray:
        places = {text: place for place, text in enumerate(self.texts)}
        return np.array([places[value] for value in values], dtype=np.int64)

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return {name: TEXT_METRICS[name] for name in self.names}

    def sums(self, output: np.ndarray, values: Sequence[str]) -> dict[str, Tensor]:
        said = [self.texts[i] for i in output.argmax(1)]
        return {"errors": count_errors(values, said, self.language).double()}

    def rate(self, said: Sequence[str], values: Sequence[str]) -> dict[str, float]:
        """The metrics of texts."""
        sums = count_errors(values, said, self.language).double()
        return {name: float(metric.compute(sums)) for name, metric in self.metrics.items()}


def aim_of(name: str, target: Target) -> Aim | None:
    """What is predicted of a target; None where simple models have no way to."""
    if isinstance(target, TextTarget):
        return TextAim(name, target.text, [each for each in target.metrics if each != "loss"])
    kinds = {Category: ClassAim, Labels: LabelsAim, Regression: NumbersAim}
    found = next((kinds[each] for each in type(target).__mro__ if each in kinds), None)
    return None if found is None else found(name, target)
