"""Targets: what is predicted of a sample.

A target says how a column becomes what is to be predicted, and makes the head that has the weights, the loss and the
figures. Each kind has a file: `category.py`, `labels.py`, `regression.py`, `action.py`, `text.py`, `masked.py`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from anyformer.batch import Batch
from anyformer.choices import Checked
from anyformer.data.source import Source
from anyformer.data.values import is_missing
from anyformer.errors import InputError
from anyformer.metrics.accumulators import Sums
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig


@dataclass(frozen=True)
class Aim:
    """What one target predicts in a batch. Of t predictions:"""

    read: Tensor
    """(t,) int64: where; the number of the sample, or a place in the flattened (rows * length) layout, as the target's
    `of_samples` says."""
    values: Tensor
    """(t, ...): what."""
    sample: Tensor
    """(t,) int64: the sample that it belongs to."""


class Target(Checked, ABC):
    """What is predicted of a sample. A subclass is a frozen dataclass of plain values, without weights.

    Its name is that of the column that holds it, where nothing else is said.
    """

    weight: float
    """Of its losses among those of other targets."""

    # Without annotations, which jsonargparse would look up in the module of every subclass.
    of_samples = True
    """Whether it is read of the sample's one vector, and not of tokens."""
    means: tuple = ()
    """The arguments that say what the outputs of its head mean."""

    @property
    @abstractmethod
    def best(self) -> dict[str, Literal["min", "max"]]:
        """The figures that may choose the best model, which of their values is best, and the usual one first."""

    def scale(self, figure: str) -> float:
        """What a figure is about for a constant prediction, where it has a unit; 1 for one without."""
        return 1.0

    def columns_of(self, name: str) -> tuple[str, ...]:
        """The columns that it is taken from."""
        return (name,)

    def fit(self, name: str, source: Source) -> Self:
        """A copy that holds what the training records decide: the classes, a mean."""
        return self

    def agrees(self, other: Target) -> bool:
        """Whether the head of the other one predicts the same."""
        return type(self) is type(other) and all(getattr(self, each) == getattr(other, each) for each in self.means)

    @abstractmethod
    def value(self, name: str, record: Mapping[str, Any]) -> Any:
        """What is to be predicted of a record; None where the record does not say.

        Raises InputError, with the column's name, for what it cannot be.
        """

    @abstractmethod
    def aim(self, name: str, values: Sequence[Any], batch: Batch) -> Aim:
        """The predictions of a batch. values: of each sample, None where there is none."""

    def count(self, name: str, record: Mapping[str, Any]) -> int:
        """Tokens that it adds to a sample."""
        return 0

    @abstractmethod
    def head(self, name: str, model: Anyformer, transformer: TransformerConfig) -> TargetHead:
        """What predicts it from hidden vectors of the model."""

    @abstractmethod
    def render(self, result: Any) -> str:
        """A prediction, as plain values, for the terminal."""

    @abstractmethod
    def row(self, name: str, result: Any) -> dict[str, Any]:
        """A prediction as columns of a table, the same for every one; numbers and text alone."""

    def words(self, value: Any) -> str:
        """A few words on what is to be predicted, for `samples.png`."""
        return ""


class TargetHead(nn.Module):
    """Predicts a target from hidden vectors, and adds up the figures of an evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.sums = nn.ModuleDict({"loss": Sums(), "targets": Sums()})

    def loss(self, vectors: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of the losses of t predictions, and the sum of their weights; both ().

        vectors: (t, d). values: as in `Aim`. What only serves learning (smoothing) counts in training mode alone.
        """
        raise NotImplementedError

    def evaluate(self, vectors: Tensor, values: Tensor) -> dict[str, Tensor]:
        """Take predictions into the figures. Returns those that are means over predictions, of each, (t,)."""
        raise NotImplementedError

    def has(self, figure: str) -> bool:
        """Whether a figure that may choose the best model is among those given."""
        return True

    def add_loss(self, vectors: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, taken into the figures."""
        loss, n = self.loss(vectors, values)
        self.sums["loss"].update(loss)
        self.sums["targets"].update(n)
        return loss, n

    def mean_loss(self) -> Tensor:
        """() NaN where the evaluation held no target."""
        return self.sums["loss"].compute() / self.sums["targets"].compute()

    def figures(self) -> dict[str, Tensor]:
        """The figures of an evaluation, of all ranks together; NaN where it held no target."""
        raise NotImplementedError

    def reset(self) -> None:
        """Forget the evaluation before."""
        for metric in self.sums.values():
            metric.reset()

    def results(self, vectors: Tensor) -> list[Any]:
        """The predictions as plain values. vectors: (t, d)."""
        raise NotImplementedError

    def draw(self, folder: Path, suffix: str) -> None:
        """Draw pictures of the last evaluation into a folder. suffix: of the names of the files."""


def aim_at_samples(values: Sequence[Tensor | None], empty: Tensor) -> Aim:
    """The predictions of targets that are one tensor a sample. empty: what stands for none of them, (0, ...)."""
    samples = torch.tensor([i for i, value in enumerate(values) if value is not None], dtype=torch.int64)
    known = [value for value in values if value is not None]
    return Aim(samples, torch.stack(known) if known else empty, samples)


def linear(d_model: int, n: int, transformer: TransformerConfig) -> nn.Linear:
    """An output layer as all heads of samples begin."""
    layer = nn.Linear(d_model, n)
    nn.init.trunc_normal_(layer.weight, std=transformer.init_std)
    nn.init.zeros_(layer.bias)
    return layer


def known_values(source: Source, name: str, read: Callable[[str, Any], Any] | None = None) -> list[Any]:
    """What the records hold in a column; those without it are left out.

    read: makes of the column's name and a value what is returned. Raises InputError where no record has the column, and
    with the name of the record for a value that cannot be read.
    """
    known = []
    for i, value in enumerate(source.known(name)):
        if not is_missing(value):
            try:
                known.append(value if read is None else read(name, value))
            except InputError as error:
                raise InputError(f"{source.name(i)}: {error}") from None
    return known


def check_weight(weight: float) -> None:
    if not 0 < weight < math.inf:
        raise InputError(f"weight must be above 0, got {weight}")
