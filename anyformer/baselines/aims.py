"""What simple models predict: the targets of a task as arrays, and predictions in the metrics of the task's report."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from anyformer.data.source import Source
from anyformer.data.values import is_absent
from anyformer.metrics.metric import Metric
from anyformer.metrics.text import TEXT_METRICS, count_errors
from anyformer.model.config import TransformerConfig
from anyformer.tasks.targets.category import Category
from anyformer.tasks.targets.labels import Labels
from anyformer.tasks.targets.regression import Regression
from anyformer.tasks.targets.target import Target, known_values
from anyformer.tasks.targets.text import TextTarget
from anyformer.tokenizers.text.text import Text
from anyformer.tokenizers.text.vocabulary import NORMALIZERS

Kind = Literal["class", "labels", "numbers"]
KINDS: dict[type, Kind] = {Category: "class", Labels: "labels", Regression: "numbers"}

MOST_TEXTS = 200
"""Different texts, up to which each may be a class."""
TIMES_A_TEXT = 3
"""How often each of them comes, on the average, at the least."""


class Aim(ABC):
    """One target of a task."""

    kind: Kind
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
    def score(self, output: np.ndarray, values: Sequence[Any]) -> dict[str, float]:
        """Predictions in the metrics, but for the loss and the calibration error, as some models give no probabilities.

        output: of the records, probabilities of the classes or of each label, or the numbers, scaled.
        """


class TargetAim(Aim):
    """A target of `Predict`, in the metrics of its own head."""

    def __init__(self, name: str, target: Category | Labels | Regression) -> None:
        super().__init__(name)
        self.target = target
        self.kind = next(KINDS[each] for each in type(target).__mro__ if each in KINDS)

    def fit(self, source: Source) -> None:
        self.target = self.target.fit(self.name, source)
        # Of which the weights are not used.
        self._head = self.target.head(self.name, None, TransformerConfig()).eval()
        # One process compares where several have trained: it would wait for the others in vain.
        self._head.sums.keep_apart()

    @property
    def n(self) -> int:  # type: ignore[override]
        return self.target.n if isinstance(self.target, Regression) else len(self.target.classes)

    def value(self, record: Mapping[str, Any]) -> Tensor | None:
        return self.target.value(self.name, record)

    def learned(self, values: Sequence[Tensor]) -> np.ndarray:
        return torch.stack(values).numpy()

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return self.target.metrics

    @torch.no_grad()
    def score(self, output: np.ndarray, values: Sequence[Tensor]) -> dict[str, float]:
        said = torch.from_numpy(output)
        self._head.reset()
        self._head.evaluate(said if self.kind == "numbers" else self._head.from_mean(said), torch.stack(values))
        return {name: value.item() for name, value in self._head.compute().items() if name not in ("loss", "ece")}


class TextAim(Aim):
    """A text of which there are so few that each is a class."""

    kind: Kind = "class"

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

    def score(self, output: np.ndarray, values: Sequence[str]) -> dict[str, float]:
        return self.rate([self.texts[i] for i in output.argmax(1)], values)

    def rate(self, said: Sequence[str], values: Sequence[str]) -> dict[str, float]:
        """The metrics of texts."""
        sums = count_errors(values, said, self.language).double()
        return {name: float(metric.compute(sums)) for name, metric in self.metrics.items()}


def aim_of(name: str, target: Target) -> Aim | None:
    """What is predicted of a target; None where simple models have no way to."""
    if isinstance(target, TextTarget):
        return TextAim(name, target.text, [each for each in target.metrics if each != "loss"])
    return TargetAim(name, target) if isinstance(target, Category | Labels | Regression) else None
