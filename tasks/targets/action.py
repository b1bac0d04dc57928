"""Actions as targets: what is done at a sample, read at once by the head of an episode's tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from anyformer.batch import Batch
from anyformer.data.source import Source
from anyformer.data.values import is_missing
from anyformer.errors import InputError
from anyformer.metrics.accumulators import Sums
from anyformer.metrics.metric import LOSS, Metric
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.tasks.targets.aims import Aim
from anyformer.tasks.targets.target import Target, TargetHead, aim_at_samples, check_weight, known_values
from anyformer.tokenizers.episode.continuous import Vector
from anyformer.tokenizers.episode.discrete import Bins, Categories, Choice
from anyformer.tokenizers.episode.steps import Stretch, ValueHead
from anyformer.tokens import Tokenizer, TokenSet


@dataclass(frozen=True)
class ActionTarget(Target):
    """What is done at a sample: an action of an environment, as a number, a list or an array in its column.

    What it is says the tokenizer: a Vector, Bins or Categories of an episode. All its elements are read at once; a
    policy that acts through episodes is `Decide`.
    """

    tokenizer: Tokenizer
    """How an action is cut. Its shape, and how many values a category has, come from the data where left out."""
    weight: float = 1.0
    """Of its losses among those of other targets."""

    means = ("tokenizer",)

    def __post_init__(self) -> None:
        check_weight(self.weight)
        if not isinstance(self.tokenizer, Vector | Bins | Categories):
            raise InputError(f"tokenizer must be a Vector, Bins or Categories, got {type(self.tokenizer).__name__}")

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """accuracy: of ids. error: the mean absolute error, in the units of the space."""
        name, best = ("error", "min") if isinstance(self.tokenizer, Vector) else ("accuracy", "max")
        return {name: Metric(best, ("metric",), lambda sums: sums[0] / sums[1]), "loss": LOSS}

    def fit(self, name: str, source: Source) -> Self:
        values = known_values(source, name, _array)
        if not values:
            raise InputError(f"column {name!r} must hold actions, and no training record has one")
        cutter = self.tokenizer
        if cutter.shape is None:
            cutter = replace(cutter, shape=values[0].shape)
        for value in values:
            self._check_shape(name, value, cutter.shape)
        stacked = np.stack(values)
        if isinstance(cutter, Categories) and cutter.counts is None:
            flat = stacked.reshape(len(stacked), -1)
            starts = flat.min(0).astype(np.int64)
            counts = flat.max(0).astype(np.int64) - starts + 1
            cutter = replace(cutter, counts=tuple(counts.tolist()), starts=tuple(starts.tolist()))
        cutter.check(stacked, f"column {name!r}")
        return replace(self, tokenizer=cutter.fit([stacked]))

    def _check_shape(self, name: str, value: np.ndarray, shape: tuple[int, ...]) -> None:
        if value.shape != shape:
            raise InputError(f"field {name!r} must hold a value of shape {shape}, got one of {value.shape}")

    def value(self, name: str, record: Mapping[str, Any]) -> Tensor | None:
        """The content of its tokens, (elements, *feature)."""
        if is_missing(record.get(name)):
            return None
        value = _array(name, record[name])
        self._check_shape(name, value, self.tokenizer.shape)
        self.tokenizer.check(value[None], f"field {name!r}")
        content = self.tokenizer.encode(Stretch(value[None], np.zeros(1))).content
        return content + self._offsets if isinstance(self.tokenizer, Bins) else content

    @property
    def _offsets(self) -> Tensor:
        """What sets the ids of the bins of several numbers apart: all are read at one place, each by its own output."""
        return torch.arange(self.tokenizer.n_each) * self.tokenizer.n_bins

    def aim(self, name: str, values: Sequence[Tensor | None], batch: Batch) -> Aim:
        empty = self.tokenizer.empty().content
        return aim_at_samples(values, empty.new_zeros(0, self.tokenizer.n_each, *empty.shape[1:]))

    def head(self, name: str, model: Anyformer, transformer: TransformerConfig) -> ActionHead:
        if self.tokenizer.shape is None:
            raise InputError(f"targets.{name}.tokenizer has no shape yet: give it, or fit to data")
        return ActionHead(self, transformer)

    def plain(self, content: Tensor) -> Any:
        """An action as plain values. content: (elements, *feature)."""
        content = content - self._offsets if isinstance(self.tokenizer, Bins) else content
        return self.tokenizer.decode(TokenSet(content))[0].tolist()

    def render(self, result: Any) -> str:
        return " ".join(f"{value:.4g}" for value in np.ravel(result).tolist())

    def row(self, name: str, result: Any) -> dict[str, Any]:
        flat = np.ravel(result).tolist()
        return {f"{name}_{i}": value for i, value in enumerate(flat)} if isinstance(result, list) else {name: result}

    def words(self, value: Tensor) -> str:
        return self.render(self.plain(value))


def _array(name: str, value: Any) -> np.ndarray:
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"field {name!r} must hold an action as numbers, got {str(value)[:40]!r}; mend it") from None
    except OverflowError:
        raise InputError(f"field {name!r} must hold numbers below 1e308, and one is larger; mend it") from None


class ActionHead(TargetHead):
    """The head of the action's tokenizer."""

    def __init__(self, done: ActionTarget, transformer: TransformerConfig) -> None:
        super().__init__(done.metrics)
        self.done, self.n = done, done.tokenizer.n_each
        cutter, d_model = done.tokenizer, transformer.d_model
        self.output: ValueHead = (
            Choice((cutter.n_bins,) * self.n, d_model) if isinstance(cutter, Bins) else cutter.head(d_model)
        )
        self.sums["metric"] = Sums(2)

    def _each(self, vectors: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The vector of a sample for each of its elements, (t * elements, d), and their content."""
        return vectors.repeat_interleave(self.n, 0), values.flatten(0, 1)

    def loss(self, vectors: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        vectors, content = self._each(vectors, values)
        loss = self.output.loss(vectors, content)
        return loss, loss.new_tensor(len(content))

    def evaluate(self, vectors: Tensor, values: Tensor) -> dict[str, Tensor]:
        self.add_loss(vectors, values)
        vectors, content = self._each(vectors, values)
        total, n = self.output.metric(vectors, content)
        self.sums["metric"].update(torch.stack([total.double(), total.new_tensor(n).double()]))
        if not isinstance(self.output, Choice):
            return {}
        return {"accuracy": (self.output(vectors, content).argmax(-1) == content).view(-1, self.n).float().mean(1)}

    def results(self, vectors: Tensor) -> list[Any]:
        content = torch.stack([self.output.choose(vectors, element=i) for i in range(self.n)], 1)
        return [self.done.plain(own) for own in content.cpu()]
