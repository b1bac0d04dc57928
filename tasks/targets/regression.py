"""Numbers as targets, in the units of the data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from anyformer.batch import Batch
from anyformer.data.moments import Moments
from anyformer.data.source import Source
from anyformer.data.values import is_missing, to_number
from anyformer.drawing.evaluation import draw_scatter
from anyformer.errors import InputError
from anyformer.metrics.accumulators import Sums
from anyformer.metrics.metric import LOSS, Metric
from anyformer.metrics.regression import mae, r2, rmse
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.tasks.targets.aims import Aim
from anyformer.tasks.targets.target import Stage, Target, TargetHead, aim_at_samples, check_weight, known_values, linear
from anyformer.tokens import Tokenizer

N_SCATTERED = 5000
"""Points of a scatter plot at most."""

METRICS = {
    "rmse": Metric("min", ("numbers",), lambda sums: rmse(sums).nanmean()),
    "mae": Metric("min", ("numbers",), lambda sums: mae(sums).nanmean()),
    "r2": Metric("max", ("numbers",), lambda sums: r2(sums).nanmean()),
    "loss": LOSS,
}


@dataclass(frozen=True)
class Regression(Target):
    """One number, or several: of a column that holds a list, or of several columns.

    What is missing, or not a number (NaN), is not counted.
    """

    n: int | None = None
    """How many; what the training records say when left out."""
    columns: tuple[str, ...] | None = None
    """The columns, where they are several; the target's own name when left out."""
    scaling: Literal["standard", "log", "none"] = "standard"
    """What the model predicts. standard: the number with the mean of the training records taken off, divided by their
    standard deviation. log: the same of its logarithm, for numbers above 0. Metrics are in the data's units."""
    loss: Literal["squared", "absolute", "huber"] = "squared"
    """Of the scaled number. huber: squared up to 1, and straight from there on."""
    mean: tuple[float, ...] | None = None
    """What `fit` has learnt: of each number, after the logarithm."""
    std: tuple[float, ...] | None = None
    """The standard deviations; 1 for what never changes."""
    weight: float = 1.0
    """Of its losses among those of other targets."""

    of_numbers = True
    means = ("n", "scaling", "mean", "std")
    averages = ("n", "columns")

    def __post_init__(self) -> None:
        for part in ("columns", "mean", "std"):
            if isinstance(getattr(self, part), list):
                object.__setattr__(self, part, tuple(getattr(self, part)))
        check_weight(self.weight)
        if self.n is not None and self.n < 1:
            raise InputError(f"n must be at least 1, got {self.n}")
        if (self.mean is None) != (self.std is None) or len(self.mean or ()) != len(self.std or ()):
            raise InputError(
                "mean and std belong together, a number each for every number; give both or leave both out"
            )
        if self.std is not None and not min(self.std, default=1) > 0:
            raise InputError(f"std must be above 0, got {self.std}")
        if self.columns is not None:
            if self.n not in (None, len(self.columns)):
                raise InputError(f"columns must be {self.n}, as n says, got {len(self.columns)}")
            object.__setattr__(self, "n", len(self.columns))

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return METRICS

    def scale(self, metric: str) -> float:
        """Of rmse and mae one standard deviation, in the data's units; scaling: none says that the numbers have none
        that matters."""
        if metric not in ("rmse", "mae") or self.n is None:
            return 1.0
        middle, above = self.unscale(torch.tensor([[0.0] * self.n, [1.0] * self.n]))
        return float((above - middle).mean())

    def columns_of(self, name: str) -> tuple[str, ...]:
        return self.columns or (name,)

    def fit(self, name: str, source: Source) -> Self:
        fitted = self
        if self.columns is None:
            rows = known_values(source, name, _numbers)
            fitted = replace(self, n=self.n or max(map(len, rows), default=1))
            each = list(zip(*(fitted._whole(name, row) for row in rows), strict=True)) or [[]] * fitted.n
        else:
            each = [known_values(source, column, _number) for column in self.columns]
        if fitted.mean is not None and len(fitted.mean) != fitted.n:
            raise InputError(f"targets.{name}: mean and std are {len(fitted.mean)}, and the numbers are {fitted.n}")
        if fitted.mean is not None or self.scaling == "none":
            return fitted
        mean, std = [], []
        for column, numbers in zip(self.columns or [name] * fitted.n, each, strict=True):
            known = np.array(numbers, dtype=np.float64)
            known = fitted._logarithm(column, known[~np.isnan(known)])
            if not len(known):
                raise InputError(f"column {column!r} must hold numbers, and no training record has one")
            moments = Moments()
            moments.add(known)
            mean.append(float(moments.mean))
            std.append(float(moments.std))
        return replace(fitted, mean=tuple(mean), std=tuple(std))

    def _whole(self, name: str, numbers: Sequence[float]) -> Sequence[float]:
        if len(numbers) != self.n:
            raise InputError(f"field {name!r} must hold {self.n} numbers, got {len(numbers)}")
        return numbers

    def _logarithm(self, name: str, numbers: np.ndarray) -> np.ndarray:
        """The numbers, or what scaling: log makes of them. Raises InputError for one that has no logarithm."""
        if self.scaling != "log":
            return numbers
        if (low := numbers[numbers <= 0]).size:
            raise InputError(f"field {name!r} must hold numbers above 0, as scaling: log needs, got {low[0]:g}")
        return np.log(numbers)

    def value(self, name: str, record: Mapping[str, Any]) -> Tensor | None:
        """(n,) float32, scaled; NaN for what is missing."""
        if self.columns is not None:
            row = np.array([_number(column, record.get(column)) for column in self.columns])
        elif is_missing(record.get(name)):
            return None
        else:
            row = np.array(self._whole(name, _numbers(name, record[name])))
        is_known = ~np.isnan(row)
        if not is_known.any():
            return None
        for i in np.flatnonzero(is_known):
            column = name if self.columns is None else self.columns[i]
            row[i] = self._logarithm(column, row[i : i + 1])[0]
        shift, scale = self._scales
        return torch.from_numpy(((row - shift) / scale).astype(np.float32))

    @property
    def _scales(self) -> np.ndarray:
        """(2, n) float64: what is taken off, and what is then divided by."""
        if self.scaling == "none":
            return np.array([[0.0] * self.n, [1.0] * self.n])
        return np.array([self.mean, self.std])

    def unscale(self, values: Tensor) -> Tensor:
        """Scaled numbers in the data's units, float64. values: (..., n)."""
        shift, scale = torch.from_numpy(self._scales).to(values.device)
        values = values.double() * scale + shift
        return values.exp() if self.scaling == "log" else values

    def rescale(self, numbers: Tensor) -> Tensor:
        """Numbers in the data's units scaled, float64: the inverse of `unscale`. numbers: (..., n)."""
        shift, scale = torch.from_numpy(self._scales).to(numbers.device)
        return ((numbers.log() if self.scaling == "log" else numbers) - shift) / scale

    def aim(self, name: str, values: Sequence[Tensor | None], batch: Batch) -> Aim:
        return aim_at_samples(values, torch.zeros(0, self.n))

    def head(self, name: str, model: Anyformer, transformer: TransformerConfig) -> RegressionHead:
        if self.n is None or (self.scaling != "none" and (self.mean is None or self.std is None)):
            raise InputError(f"targets.{name}: the numbers are not known yet: fit to data first")
        return RegressionHead(self, transformer)

    def render(self, result: Any) -> str:
        if isinstance(result, dict):
            return "  ".join(f"{name} {value:.6g}" for name, value in result.items())
        return "  ".join(f"{value:.6g}" for value in (result if isinstance(result, list) else [result]))

    def row(self, name: str, result: Any) -> dict[str, Any]:
        if isinstance(result, dict):
            return dict(result)
        return {f"{name}_{i}": value for i, value in enumerate(result)} if isinstance(result, list) else {name: result}

    def words(self, value: Tensor) -> str:
        return " ".join(f"{number:.4g}" for number in self.unscale(value).tolist())


def _numbers(name: str, value: Any) -> list[float]:
    """A number or a list of them. Raises InputError for what is none."""
    if isinstance(value, np.ndarray | Tensor):
        value = value.tolist()
    return [_number(name, part) for part in value] if isinstance(value, list | tuple) else [_number(name, value)]


def _number(name: str, value: Any) -> float:
    """NaN for what is missing."""
    return math.nan if is_missing(value) else to_number(value, f"field {name!r}")


class RegressionHead(TargetHead):
    """A linear map to the scaled numbers."""

    def __init__(self, numbers: Regression, transformer: TransformerConfig) -> None:
        super().__init__(METRICS)
        self.numbers = numbers
        self.output = linear(transformer.d_model, numbers.n, transformer)
        # As `anyformer.metrics.regression` has them.
        self.sums["numbers"] = Sums(5, numbers.n)
        self.seen: list[Tensor] = []
        """Of the evaluation: true and predicted, each (t, 2, n)."""

    def forward(self, vectors: Tensor) -> Tensor:
        """Scaled numbers, (t, n)."""
        return self.output(vectors)

    @property
    def choices(self) -> tuple[str, ...]:  # type: ignore[override]
        n = self.numbers.n
        return self.numbers.columns or (("the number",) if n == 1 else tuple(f"number {i}" for i in range(n)))

    def given_answer(self, outputs: Tensor) -> str:
        return self.choices[0]

    def explained(self, outputs: Tensor, answer: str, rather_than: str | None) -> Tensor:
        """A number in the units of the data, or how far it is above another."""
        numbers = self.numbers.unscale(outputs)
        own = numbers[:, self.choices.index(answer)]
        return own if rather_than is None else own - numbers[:, self.choices.index(rather_than)]

    def explained_as(self, answer: str, rather_than: str | None) -> str:
        return answer + (f" above {rather_than}" if rather_than else "") + ", in the units of the data"

    def to_mean(self, outputs: Tensor) -> Tensor:
        return self.numbers.unscale(outputs)

    def from_mean(self, mean: Tensor) -> Tensor:
        return self.numbers.rescale(mean)

    def loss(self, outputs: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        is_known = ~values.isnan()
        apart = outputs.float() - values.nan_to_num()
        if self.numbers.loss == "squared":
            losses = apart**2
        elif self.numbers.loss == "absolute":
            losses = apart.abs()
        else:
            losses = torch.where(apart.abs() < 1, apart**2 / 2, apart.abs() - 0.5)
        return losses.masked_fill(~is_known, 0).sum(), is_known.sum().to(losses.dtype)

    def evaluate(self, outputs: Tensor, values: Tensor) -> dict[str, Tensor]:
        self.add_loss(outputs, values)
        is_known = ~values.isnan()
        # In the data's units, about the middle of the training records, so that squares do not cancel.
        middle = self.numbers.unscale(values.new_zeros(self.numbers.n))
        true, said = self.numbers.unscale(values), self.numbers.unscale(outputs)
        about, error = (part.masked_fill(~is_known, 0) for part in (true - middle, said - true))
        parts = [is_known.double(), about, about**2, error**2, error.abs()]
        self.sums["numbers"].update(torch.stack([part.sum(0) for part in parts]))
        if sum(map(len, self.seen)) < N_SCATTERED:
            self.seen.append(torch.stack([true, said], 1).detach().cpu())
        return {"mae": error.abs().sum(1) / is_known.sum(1)}

    def compute(self) -> dict[str, Tensor]:
        """Where the numbers are several the mean of theirs, and `rmse_<column>` of each that has a column."""
        each, columns = rmse(self.sums["numbers"].compute()), self.numbers.columns or ()
        return super().compute() | {f"rmse_{name}": each[i] for i, name in enumerate(columns) if len(columns) > 1}

    def reset(self) -> None:
        super().reset()
        self.seen = []

    def results(self, outputs: Tensor) -> list[Any]:
        said = self.numbers.unscale(outputs).tolist()
        if self.numbers.columns is not None:
            return [dict(zip(self.numbers.columns, row, strict=True)) for row in said]
        return [row[0] if len(row) == 1 else row for row in said]

    def draw(self, folder: Path, suffix: str, stage: Stage = "", inputs: Mapping[str, Tokenizer] = {}) -> None:
        if self.seen:
            true, said = torch.cat(self.seen)[:N_SCATTERED].unbind(1)
            n = self.numbers.n
            names = self.numbers.columns or ([""] if n == 1 else [str(i) for i in range(n)])
            draw_scatter(true, said, names, folder / f"scatter{suffix}.png")
