"""Measures of an episode as tokens: vectors, and returns-to-go."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from anyformer.errors import InputError
from anyformer.model.lifts import Projection
from anyformer.tokenizers.episode.steps import StepTokenizer, ValueHead, box_bounds, check_box
from anyformer.tokens import Tokenizer, TokenSet


@dataclass(frozen=True)
class Vector(StepTokenizer):
    """A Box as one token a step, by a linear map: content (t, values) float32.

    A Box of several axes is laid flat. Integers are predicted as numbers and rounded.
    """

    normalize: bool = True
    """Whether each value has its mean taken off and is divided by its standard deviation, as the data has them."""
    loss: Literal["squared", "gaussian"] = "squared"
    """squared: the mean over the values of the squared error. gaussian: what is learnt is the mean and the standard
    deviation of every value, and the loss is the negative log-likelihood, in nats."""
    tanh: bool = False
    """Whether what is predicted is bounded by tanh, scaled to the bounds of the space."""
    low: tuple[float | None, ...] | None = None
    """The lowest of each value, null where there is none; what the space says when left out."""
    high: tuple[float | None, ...] | None = None
    """The highest."""
    mean: tuple[float, ...] | None = None
    """What `fit` has learnt: the mean of every value."""
    std: tuple[float, ...] | None = None
    """The standard deviations; 1 for what never changes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_lengths("value", "low", "high", "mean", "std")
        if self.std is not None and min(self.std, default=1) <= 0:
            raise InputError(f"std must be above 0, got {min(self.std)}")
        if self.tanh and self.shape is not None and not np.isfinite(self.bounds).all():
            raise InputError("tanh needs a space with bounds, and this one is open; leave tanh out")

    @property
    def bounds(self) -> np.ndarray:
        """(2, values) float64: the lowest and the highest of every value, infinite where there is none."""
        return box_bounds(self.low, self.high, self.n_values)

    @property
    def _facts(self) -> tuple[object, ...]:
        return self.normalize, self.mean, self.std

    def cut(self, values: np.ndarray) -> Tensor:
        content = np.asarray(values, dtype=np.float64).reshape(len(values), self.n_values)
        if self.normalize and len(values):
            mean, std = self._scaling
            content = (content - mean) / std
        return torch.from_numpy(content.astype(np.float32))

    @property
    def _scaling(self) -> np.ndarray:
        """(2, values) float64: the mean and the standard deviation of every value."""
        if self.mean is None or self.std is None:
            raise InputError("a Vector that normalizes has no mean yet: fit it to the training episodes first")
        return _array((self.mean, self.std))

    def decode(self, tokens: TokenSet) -> np.ndarray:
        values = tokens.content.detach().cpu().double().numpy()
        if self.normalize:
            mean, std = self._scaling
            values = values * std + mean
        dtype = np.dtype(self.dtype or "float32")
        if dtype.kind in "iu":
            values = values.round()
        return np.clip(values, *self.bounds).astype(dtype).reshape(-1, *self.shape)

    def check(self, values: np.ndarray, place: str) -> None:
        check_box(values, self.bounds, place)

    def lift(self, d_model: int) -> nn.Module:
        return Projection(self.n_values, d_model)

    def head(self, d_model: int) -> ValueHead:
        return VectorHead(self, d_model)

    def fit(self, records: Iterable[np.ndarray]) -> Self:
        """A copy with the mean and the standard deviation of every value. records: (t, *shape), one an episode."""
        if not self.normalize or self.mean is not None:
            return self
        n, mean, squares = 0, np.zeros(self.n_values), np.zeros(self.n_values)
        for record in records:
            # Chan et al. 1983: sums of squares about each part's own mean, which do not cancel.
            part = np.asarray(record, dtype=np.float64).reshape(len(record), self.n_values)
            if not len(part):
                continue
            apart = part.mean(0) - mean
            n += len(part)
            squares += ((part - part.mean(0)) ** 2).sum(0) + apart**2 * len(part) * (n - len(part)) / n
            mean += apart * len(part) / n
        if not n:
            raise InputError("there is no step to learn a mean from: the training episodes are empty")
        std = np.sqrt(squares / n)
        # What differs by less than float32 can tell is taken for what never changes; small numbers are no such thing.
        std[std <= np.finfo(np.float32).eps * np.abs(mean)] = 1
        return replace(self, mean=tuple(mean.tolist()), std=tuple(std.tolist()))

    def inherit(self, other: Tokenizer) -> Self:
        if not self.normalize or self.mean is not None or not isinstance(other, Vector) or not other.normalize:
            return self
        return replace(self, mean=other.mean, std=other.std)

    def agree(self, other: Tokenizer, name: str) -> None:
        if isinstance(other, Vector) and self._facts != other._facts:
            raise InputError(f"{name}: values were normalised by another mean and deviation; set them to be the same")


class VectorHead(ValueHead):
    """Predicts the values of a `Vector` by a linear map, `output`; the content is (n, values)."""

    metric_name = "error"

    def __init__(self, vector: Vector, d_model: int) -> None:
        super().__init__()
        n = vector.n_values
        self.gaussian = vector.loss == "gaussian"
        self.output = nn.Linear(d_model, 2 * n if self.gaussian else n)
        nn.init.trunc_normal_(self.output.weight, std=0.02)
        nn.init.zeros_(self.output.bias)
        mean, std = vector._scaling if vector.normalize else (np.zeros(n), np.ones(n))
        middle = reach = None
        if vector.tanh:
            low, high = (vector.bounds - mean) / std
            middle, reach = (low + high) / 2, (high - low) / 2
        for name, value in (("unit", std), ("middle", middle), ("reach", reach)):
            made = None if value is None else torch.tensor(value, dtype=torch.float32)
            self.register_buffer(name, made, persistent=False)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor | None]:
        """The mean of every value, (n, values), and the logarithm of its standard deviation where that is learnt."""
        mean, log_std = self.output(hidden).chunk(2, -1) if self.gaussian else (self.output(hidden), None)
        if self.middle is not None:
            mean = self.middle + self.reach * mean.tanh()
        # From exp(-5) to exp(2), and 1 at the start: without a bound the likelihood of what is certain has none.
        return mean, None if log_std is None else -1.5 + 3.5 * (log_std + 0.46).tanh()

    def loss(self, hidden: Tensor, content: Tensor) -> Tensor:
        mean, log_std = self(hidden)
        squares = (mean.float() - content) ** 2
        if log_std is None:
            return squares.mean(1).sum()
        return (squares * (-2 * log_std).exp() / 2 + log_std + math.log(2 * math.pi) / 2).sum()

    def choose(
        self, hidden: Tensor, random: torch.Generator | None = None, temperature: float = 1.0, *, element: int = 0
    ) -> Tensor:
        mean, log_std = self(hidden)
        if random is None or log_std is None:
            return mean
        noise = torch.randn(mean.shape, generator=random, device=random.device).to(mean)
        return mean + temperature * log_std.exp() * noise

    def metric(self, hidden: Tensor, content: Tensor) -> tuple[Tensor, int]:
        return ((self(hidden)[0] - content).abs() * self.unit).mean(1).sum(), len(content)


@dataclass(frozen=True)
class Returns(StepTokenizer):
    """The return-to-go as one token a step: content (t, 1) float32, scaled so that the largest of the data is 1.

    Its head reads an action's token and predicts (reward of the step, return after it), both scaled.
    """

    scale: float | None = None
    """What returns are divided by; the largest of the data, its sign left out, when left out."""

    spaces: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", ())
        super().__post_init__()
        if self.scale is not None and not 0 < self.scale < math.inf:
            raise InputError(f"scale must be above 0, got {self.scale}")

    @property
    def _known_scale(self) -> float:
        if self.scale is None:
            raise InputError("returns have no scale yet: fit them to the training episodes first")
        return self.scale

    def cut(self, values: np.ndarray) -> Tensor:
        scale = self._known_scale if len(values) else 1
        return torch.from_numpy((np.asarray(values, dtype=np.float64) / scale).astype(np.float32))[:, None]

    def decode(self, tokens: TokenSet) -> np.ndarray:
        """The returns, (t,) float32."""
        return tokens.content[:, 0].detach().float().cpu().numpy() * np.float32(self._known_scale)

    def check(self, values: np.ndarray, place: str) -> None:
        check_box(values, np.array([[-math.inf], [math.inf]]), place)

    def targets(self, rewards: np.ndarray, returns: np.ndarray) -> Tensor:
        """What the head predicts at each of t steps, (t, 2) float32: the reward, and the return after it, scaled.

        rewards: (t,). returns: (t,), the return-to-go with the step's own reward, which is what `encode` takes.
        """
        rewards, returns = (np.asarray(part, dtype=np.float64) for part in (rewards, returns))
        return torch.from_numpy((np.stack([rewards, returns - rewards], -1) / self._known_scale).astype(np.float32))

    def lift(self, d_model: int) -> nn.Module:
        return Projection(1, d_model)

    def head(self, d_model: int) -> ValueHead:
        scale = (self._known_scale,) * 2
        return VectorHead(Vector(shape=(2,), mean=(0.0, 0.0), std=scale), d_model)

    def fit(self, records: Iterable[np.ndarray]) -> Self:
        """A copy with the scale. records: the returns-to-go of each episode, (t,)."""
        largest = max((float(np.abs(record).max()) for record in records if len(record)), default=None)
        if largest is None:
            raise InputError("there is no step to learn returns from: the training episodes are empty")
        # Where there never was a reward, there is nothing to be scaled.
        return replace(self, scale=self.scale or largest or 1.0)

    def inherit(self, other: Tokenizer) -> Self:
        return replace(self, scale=other.scale) if isinstance(other, Returns) and self.scale is None else self

    def agree(self, other: Tokenizer, name: str) -> None:
        if isinstance(other, Returns) and self.scale != other.scale:
            raise InputError(f"{name}: returns were scaled by {self.scale} and are by {other.scale}; set scale")


@lru_cache(maxsize=64)
def _array(numbers: tuple[tuple[float, ...], ...]) -> np.ndarray:
    return np.array(numbers, dtype=np.float64)
