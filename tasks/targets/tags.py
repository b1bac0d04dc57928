"""A target of one class for each token of an input: parts of speech, names in a text, what each place recalls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Self

import torch
from torch import Tensor

from anyformer.batch import Batch
from anyformer.data.source import Source
from anyformer.data.values import decoded, is_json, is_missing, name_of, parse_json
from anyformer.errors import InputError, nearest
from anyformer.metrics.metric import Metric
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.tasks.targets.aims import Aim, Aims
from anyformer.tasks.targets.category import METRICS, Category, CategoryHead
from anyformer.tasks.targets.classes import check_smoothing, class_index, class_names, sort_classes
from anyformer.tasks.targets.target import Target, check_weight, known_values, linear
from anyformer.tokens import Tokenizer, expand

UNKNOWN = -1
"""In the place of a class that a record does not say."""


@dataclass(frozen=True)
class Tags(Target):
    """One of several classes for each token of an input (sequence labelling), read at the token.

    A record holds a list with a class or None for each, JSON of such, or a text of classes with spaces between. What is
    None is not counted. Metrics are over all tokens that have one.
    """

    of: str
    """The input whose tokens are classified."""
    classes: tuple[str | int, ...] | None = None
    """Their names; what the training records hold, sorted, when left out."""
    label_smoothing: float = 0.0
    """Mass taken from the right class and spread over all."""
    weight: float = 1.0
    """Of its losses among those of other targets."""

    of_samples = False
    means = ("of", "classes")

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", class_names(self.classes))
        check_weight(self.weight)
        check_smoothing(self.label_smoothing)

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return METRICS

    def check(self, name: str, tokenizers: Mapping[str, Tokenizer]) -> None:
        super().check(name, tokenizers)
        inputs = expand(tokenizers)
        if self.of not in inputs:
            raise InputError(f"targets.{name}.of: there is no input {self.of!r}{nearest(self.of, inputs)}")

    def fit(self, name: str, source: Source) -> Self:
        if self.classes is not None:
            return self
        found = {tag for known in known_values(source, name, self._tags) for tag in known if tag is not None}
        if len(found) < 2:
            raise InputError(f"column {name!r} must hold at least two classes, got {sorted(found)}")
        return replace(self, classes=tuple(sort_classes(found)))

    def counts(self, name: str, source: Source) -> dict[str, int]:
        found = Counter(tag for known in known_values(source, name, self._tags) for tag in known)
        return {each: found[each] for each in self.classes or ()}

    def _tags(self, name: str, value: Any) -> list[str | None]:
        """The class of each token as the record has it."""
        value = decoded(value, f"field {name!r}")
        if is_json(value):
            value = parse_json(value)
        if isinstance(value, str):
            value = value.split()
        if isinstance(value, Mapping) or not isinstance(value, Iterable):
            raise InputError(f"field {name!r} must hold a list with a class for each token, got {type(value).__name__}")
        return [None if is_missing(tag) else name_of(tag, f"a class of field {name!r}") for tag in value]

    def value(self, name: str, record: Mapping[str, Any]) -> Tensor | None:
        """(n,) int64, `UNKNOWN` where the record does not say."""
        given = record.get(name)
        if is_missing(given):
            return None
        known = _numbers(self.classes)
        if isinstance(given, list) and all(tag is None or (type(tag) is str and tag in known) for tag in given):
            # As they are mostly: a name takes a while to be made sure of, and there are many.
            return torch.tensor([UNKNOWN if tag is None else known[tag] for tag in given])
        tags = self._tags(name, given)
        return torch.tensor([UNKNOWN if tag is None else class_index(name, tag, self.classes) for tag in tags])

    def aim(self, name: str, values: Sequence[Tensor | None], batch: Batch) -> Aim:
        """All tokens of the input are read, as in use none has a class."""
        tokens = batch.fields[self.of]
        wanted = torch.full_like(tokens.sample, UNKNOWN)
        for i, value in enumerate(values):
            if value is None:
                continue
            places = (tokens.sample == i).nonzero()[:, 0]
            if not len(places):
                # The input is not there, or has been left out of this sample.
                continue
            if len(places) != len(value):
                raise InputError(
                    f"field {name!r} must have a class or None for each of the {len(places)} tokens of {self.of!r}, "
                    f"got {len(value)}: {' '.join(self._words(value[:20]))}{' ...' if len(value) > 20 else ''}"
                )
            wanted[places] = value
        return Aim(tokens.index, wanted, tokens.sample)

    def head(self, name: str, model: Anyformer, transformer: TransformerConfig) -> TagsHead:
        if self.classes is None:
            raise InputError(f"target {name!r}: the classes are not known yet: give classes, or fit to data")
        category = Category(self.classes, label_smoothing=self.label_smoothing)
        return TagsHead(category, linear(transformer.d_model, len(self.classes), transformer))

    def render(self, result: Sequence[str]) -> str:
        return " ".join(result)

    def row(self, name: str, result: Sequence[str]) -> dict[str, Any]:
        return {name: " ".join(result)}

    def words(self, value: Tensor) -> str:
        return " ".join(self._words(value))

    def _words(self, value: Tensor) -> list[str]:
        return ["-" if i == UNKNOWN else self.classes[i] for i in value.tolist()]


class TagsHead(CategoryHead):
    """A softmax over the classes, at each token. Values are (t,) int64, `UNKNOWN` where there is none."""

    choices = ()
    """None, as there is no one answer to explain."""

    def loss(self, outputs: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        known = values != UNKNOWN
        return super().loss(outputs[known], values[known])

    def evaluate_batch(self, name: str, outputs: Tensor, batch: Aims) -> tuple[Tensor, dict[str, Tensor]]:
        """The score of a sample is the mean over its tokens."""
        aim = batch.aims[name]
        known = aim.values != UNKNOWN
        scores = self.evaluate(outputs[known], aim.values[known])
        samples, owner = aim.sample[known].unique(return_inverse=True)
        counts = owner.bincount().clamp(min=1)
        return samples, {each: owner.bincount(score) / counts for each, score in scores.items()}

    def results(self, outputs: Tensor) -> list[str]:
        return [self.classes[i] for i in outputs.argmax(-1).tolist()]

    def predict_batch(self, name: str, outputs: Tensor, batch: Aims) -> list[list[str]]:
        """The class of each token."""
        found: list[list[str]] = [[] for _ in range(batch.tokens.n_samples)]
        for sample, tag in zip(batch.aims[name].sample.tolist(), self.results(outputs), strict=True):
            found[sample].append(tag)
        return found


@lru_cache(maxsize=16)
def _numbers(classes: tuple[str, ...]) -> dict[str, int]:
    return {name: i for i, name in enumerate(classes)}
