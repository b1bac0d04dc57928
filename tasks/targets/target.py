"""Targets: what is predicted of a sample.

A target says how a column becomes what is to be predicted, and makes the head that has the weights, the loss and the
metrics. `Predict` knows no kind of target: whatever it asks of one is a method or a property here, and most have an
answer that a new kind need not change.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from anyformer.batch import Batch
from anyformer.choices import Checked
from anyformer.data.source import Source
from anyformer.data.values import is_missing
from anyformer.errors import InputError
from anyformer.metrics.accumulators import Sums
from anyformer.metrics.classification import by_class
from anyformer.metrics.metric import Accumulators, Metric
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.tasks.base.examples import Generated
from anyformer.tasks.targets.aims import Aim, Aims
from anyformer.tokens import Tokenizer, TokenSet

Stage = Literal["", "val", "test"]


class Target(Checked, ABC):
    """What is predicted of a sample. A subclass is a frozen dataclass of plain values, without weights.

    Its name is that of the column that holds it, where nothing else is said.
    """

    weight: float
    """Of its losses among those of other targets."""

    # Without annotations, which jsonargparse would look up in the module of every subclass.
    of_samples = True
    """Whether it is read of the sample's one vector, and not of tokens."""
    hides = False
    """Whether it hides tokens of the input of its name, see `hide`; then it has no column and no values."""
    of_numbers = False
    """Whether its columns hold numbers, which a CSV has as texts."""
    is_balanced = True
    """False of classes that all weigh the same in the loss, however rare."""
    calibrate = False
    """Whether its head has a temperature, in `temperature` too, which is fitted to the validation after training."""
    means: tuple = ()
    """The arguments that say what the outputs of its head mean."""
    averages: tuple | None = None
    """The arguments that are the same in all models whose predictions can be averaged; None where there is no mean of
    predictions, not even of one model."""

    @property
    @abstractmethod
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics of its head, the one that usually chooses the best model first."""

    def scale(self, metric: str) -> float:
        """What a metric is about for a constant prediction, where it has a unit; 1 for one without."""
        return 1.0

    def columns_of(self, name: str) -> tuple[str, ...]:
        """The columns that it is taken from."""
        return (name,)

    def check(self, name: str, tokenizers: Mapping[str, Tokenizer]) -> None:
        """Raise InputError where a model cannot have it beside these inputs."""
        if "." in name and self.learnt is not None:
            raise InputError(f"targets.{name}: the name of what is generated has no dot; choose another")
        for column in self.columns_of(name):
            if column in tokenizers:
                raise InputError(
                    f"target {name!r}: the column {column!r} is also an input, which a model would only copy; "
                    "take it out of tokenizers"
                )

    def fit(self, name: str, source: Source) -> Self:
        """A copy that holds what the training records decide: the classes, a mean."""
        return self

    def agrees(self, other: Target) -> bool:
        """Whether the head of the other one predicts the same."""
        return type(self) is type(other) and all(getattr(self, each) == getattr(other, each) for each in self.means)

    def counts(self, name: str, source: Source) -> dict[str, int]:
        """How often each class occurs in the records; nothing where there are no classes."""
        return {}

    @abstractmethod
    def value(self, name: str, record: Mapping[str, Any]) -> Any:
        """What is to be predicted of a record; None where the record does not say.

        Raises InputError, with the column's name, for what it cannot be.
        """

    @abstractmethod
    def aim(self, name: str, values: Sequence[Any], batch: Batch) -> Aim:
        """The predictions of a batch. values: of each sample, None where there is none."""

    # Of a target that is generated behind the inputs, as a field of its name.

    @property
    def learnt(self) -> Tokenizer | None:
        """The tokenizer of what is generated, as the data has taught it; None where nothing is."""
        return None

    def with_learnt(self, tokenizer: Tokenizer) -> Self:
        """A copy that generates with another tokenizer."""
        raise NotImplementedError

    @property
    def generated(self) -> Tokenizer | None:
        """That tokenizer as the model has it, with places for all that is generated."""
        return self.learnt

    def tokens(self, value: Any) -> TokenSet:
        """The tokens of a value that the model is fed."""
        raise NotImplementedError

    # Of a target that hides tokens of an input.

    def hide(
        self, name: str, tokens: TokenSet, tokenizer: Tokenizer, random: np.random.Generator | None, alone: bool
    ) -> TokenSet:
        """The tokens of the field with some of them masked.

        random: draws them; None takes them as a function of the content. alone: whether the sample has no other field,
            so that one token must stay.
        """
        raise NotImplementedError

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
    """Predicts a target from hidden vectors, and adds up the metrics of an evaluation."""

    temperature = 1.0
    """What its outputs are divided by in evaluation and use; of a target with `calibrate` that one's."""

    def __init__(self, metrics: Mapping[str, Metric]) -> None:
        super().__init__()
        self.metrics = metrics
        self.sums = Accumulators({"loss": Sums(), "targets": Sums()})

    def forward(self, vectors: Tensor) -> Tensor:
        """The outputs of t predictions, (t, ...): logits, scaled numbers. All below is given these.

        vectors: (t, d), which a head that has nothing to be averaged passes on.
        """
        return vectors

    def calibrated(self, outputs: Tensor) -> Tensor:
        """The outputs in evaluation and use, where a temperature was fitted after training."""
        return outputs

    def begin_calibration(self) -> None:
        """Keep of the next evaluation what the temperature of a target with `calibrate` is fitted to."""
        raise NotImplementedError

    def end_calibration(self) -> float | str:
        """Fit the temperature and use it; it is 1 where there is none, and why is returned in words."""
        raise NotImplementedError

    def to_mean(self, outputs: Tensor) -> Tensor:
        """What the mean of several outputs is taken of: probabilities, numbers in the units of the data.

        Of a target with `averages`.
        """
        raise NotImplementedError

    def from_mean(self, mean: Tensor) -> Tensor:
        """The outputs that say what `to_mean` gave, or a mean of such."""
        raise NotImplementedError

    choices: tuple[str, ...] = ()
    """The answers that can be explained, one of which a prediction is; () where explain does not know the kind."""
    explained_in = ""
    """The unit of `explained`."""

    def given_answer(self, outputs: Tensor) -> str:
        """That of `choices` which is explained where none is asked for. outputs: of one prediction, (1, ...)."""
        raise NotImplementedError

    def explained(self, outputs: Tensor, answer: str, rather_than: str | None) -> Tensor:
        """The number of each prediction, (t,), that says how much it is for an answer, or for it rather than for
        another."""
        raise NotImplementedError

    def explained_as(self, answer: str, rather_than: str | None) -> str:
        """That number in words."""
        raise NotImplementedError

    def loss(self, outputs: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of the losses of t predictions, and the sum of their weights; both ().

        values: as in `Aim`. What only serves learning (smoothing) counts in training mode alone.
        """
        raise NotImplementedError

    def evaluate(self, outputs: Tensor, values: Tensor) -> dict[str, Tensor]:
        """Take predictions into the metrics. Returns those that are means over predictions, of each, (t,)."""
        raise NotImplementedError

    def evaluate_batch(self, name: str, outputs: Tensor, batch: Aims) -> tuple[Tensor, dict[str, Tensor]]:
        """Take a batch into the metrics. Returns the samples of what has a score, (s,), and its scores, (s,) each.

        name: of the target. Where more is needed than `evaluate` is given.
        """
        aim = batch.aims[name]
        return aim.sample, self.evaluate(outputs, aim.values)

    def add_loss(self, outputs: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, taken into the metrics."""
        loss, n = self.loss(outputs, values)
        self.sums.add(loss=loss, targets=n)
        return loss, n

    def compute(self) -> dict[str, Tensor]:
        """The metrics of an evaluation, of all ranks together; NaN where it held no target."""
        return self.sums.compute(self.metrics)

    def reset(self) -> None:
        """Forget the evaluation before."""
        self.sums.reset()

    def by_class(self) -> list[dict[str, Any]]:
        """Of the last evaluation and each class `class`, `precision`, `recall`, `f1` and `support`, see `by_class` of
        the metrics; nothing where there are no classes."""
        return []

    def generated(self, name: str = "") -> list[Generated]:
        """What was generated of the first record of the last evaluation. name: of the target, of several."""
        return []

    def results(self, outputs: Tensor) -> list[Any]:
        """The predictions as plain values."""
        raise NotImplementedError

    def predict_batch(self, name: str, outputs: Tensor | None, batch: Aims) -> list[Any]:
        """The prediction of each sample as plain values. outputs: None of a target that is generated."""
        return self.results(outputs)

    def draw(self, folder: Path, suffix: str, stage: Stage = "", inputs: Mapping[str, Tokenizer] = {}) -> None:
        """Draw pictures of the last evaluation into a folder.

        suffix: of the names of the files. stage: which evaluation it was. inputs: the tokenizers of the columns.
        """


def class_rows(classes: Sequence[str], right: Tensor, predicted: Tensor, true: Tensor) -> list[dict[str, Any]]:
    """What `TargetHead.by_class` gives, of counts (classes,)."""
    values = by_class(right.double(), predicted.double(), true.double()).tolist()
    return [
        {"class": name, "precision": precision, "recall": recall, "f1": f1, "support": int(support)}
        for name, (precision, recall, f1, support) in zip(classes, values, strict=True)
    ]


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
