"""Episodes as tokens: what a step tokenizer is, and the two whose values are measures: vectors and returns-to-go.

An episode is cut into steps, and every field of it (the return-to-go, a leaf of the observation, a leaf of the action)
into the tokens of each step, which share the timestep as position (Chen et al. 2021, "Decision Transformer"). Ids are
in `elements.py`, pictures in `frames.py`; which space gets which is said in `spaces.py`, and nothing here needs
gymnasium: a trained model holds all that it has to know of its spaces.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from anyformer.embeddings import Projection
from anyformer.errors import InputError
from anyformer.tokens import Tokenizer, TokenSet

SLACK = 1e-5
"""How far a value may lie outside its space, relative to the bound: files hold what was rounded."""


class Stretch(NamedTuple):
    """Consecutive steps of an episode in one field: the record of a step tokenizer."""

    values: np.ndarray
    """(t, *shape)"""
    steps: np.ndarray
    """(t,) int64: the timesteps within the episode, counted from 0."""


class ValueHead(nn.Module):
    """Predicts the content of a field's tokens from hidden vectors."""

    metric_name: Literal["accuracy", "error"]
    """What `metric` counts. accuracy: right ids. error: absolute error in the units of the space."""

    def loss(self, hidden: Tensor, content: Tensor) -> Tensor:
        """The sum of the losses of n tokens, ().

        hidden: (n, d). content: (n, *feature), the content of the tokens as they were encoded.
        """
        raise NotImplementedError

    def choose(
        self, hidden: Tensor, random: torch.Generator | None = None, temperature: float = 1.0, *, element: int = 0
    ) -> Tensor:
        """The content of n tokens, (n, *feature).

        hidden: (n, d). random: draws it; None takes the most likely, or the mean. temperature: of drawing, above 0.
        element: the number of the token within its step, where a step has several; the same for all n.
        """
        raise NotImplementedError

    def metric(self, hidden: Tensor, content: Tensor) -> tuple[Tensor, int]:
        """A sum over n tokens, (), and n; see `metric_name`. Shapes as in `loss`."""
        raise NotImplementedError


@dataclass(frozen=True)
class StepTokenizer(Tokenizer):
    """Cuts a stretch of an episode into tokens, so many a step: the first column of their position is the timestep.

    `order` is the token's number within its step; the task, which knows what stands beside the field, makes the final
    order of it. What a space decides is left open in a YAML and filled in by `spaces.step_tokenizer`.
    """

    shape: tuple[int, ...] | None = field(default=None, kw_only=True)
    """Of a value, () for a number; what the space says when left out."""
    dtype: str | None = field(default=None, kw_only=True)
    """Of the values that `decode` returns; what the space says when left out."""
    max_steps: int | None = field(default=None, kw_only=True)
    """How many timesteps a learned table of positions has; the task sets it when left out."""

    spaces: ClassVar[tuple[str, ...]] = ("Box",)
    """The kinds of space of gymnasium that it can be for."""

    def __post_init__(self) -> None:
        for part in fields(self):
            if isinstance(getattr(self, part.name), list):
                object.__setattr__(self, part.name, tuple(getattr(self, part.name)))
        if self.max_steps is not None and self.max_steps < 1:
            raise InputError(f"max_steps must be at least 1, got {self.max_steps}")

    @property
    def _shape(self) -> tuple[int, ...]:
        if self.shape is None:
            raise InputError(f"{type(self).__name__} knows no space yet; give shape, or learn from episodes first")
        return self.shape

    @property
    def n_values(self) -> int:
        """Numbers in a value. Raises InputError while the space is not known."""
        return math.prod(self._shape)

    @property
    def n_each(self) -> int | None:
        """Tokens of a step; None where it varies."""
        return 1

    @property
    def axes(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("step",) if self.shape is None or self.n_each == 1 else ("step", "element")

    @property
    def sizes(self) -> dict[str, int]:
        steps = {} if self.max_steps is None else {"step": self.max_steps}
        return steps | ({"element": self.n_each} if self.axes[1:] == ("element",) else {})

    def encode(self, record: Stretch, random: np.random.Generator | None = None) -> TokenSet:
        """The tokens of a stretch, step by step.

        Raises InputError for values of another shape, or that no token stands for.
        """
        values, steps = np.asarray(record.values), np.asarray(record.steps, dtype=np.int64)
        if self.shape is None or values.shape != (len(steps), *self.shape):
            needed = (len(steps), *self._shape)
            raise InputError(f"values must be {needed}, steps first, got {values.shape}")
        content, places = self.cut(values), self._places
        position = np.empty((len(steps), len(places), len(self.axes)), dtype=np.int64)
        position[:, :, 0], position[:, :, 1:] = steps[:, None], places
        position = torch.from_numpy(position.reshape(-1, len(self.axes)))
        order = torch.from_numpy(np.tile(np.arange(len(places)), len(steps)))
        return TokenSet(content, position, order, extent=self._extent(content))

    @property
    def _places(self) -> np.ndarray:
        """Where the tokens of one step stand on the axes beyond `step`, (n_each, axes - 1) int64."""
        return np.arange(self.n_each)[:, None][:, : len(self.axes) - 1]

    def _extent(self, content: Tensor) -> tuple[int, ...]:
        return (len(content),)

    @abstractmethod
    def cut(self, values: np.ndarray) -> Tensor:
        """The content of the tokens of t values, (t, *shape): (t * n_each, *feature)."""

    @abstractmethod
    def decode(self, tokens: TokenSet) -> np.ndarray:
        """The values again, (t, *shape) in the space's dtype and within its bounds; of content alone, too."""

    @abstractmethod
    def check(self, values: np.ndarray, place: str) -> None:
        """Raise InputError, naming the step, for a value that the space does not hold.

        values: (t, *shape). place: where they are from, for the message: "cart.npz episode 3: action".
        """

    def head(self, d_model: int) -> ValueHead:
        """What predicts the field. Raises InputError where it cannot be predicted."""
        raise InputError(f"{type(self).__name__} is for what an agent sees, and is not predicted; choose another")

    def empty(self) -> TokenSet:
        content = self.cut(np.zeros((0, *self._shape)))
        return TokenSet(content, torch.zeros(0, len(self.axes), dtype=torch.int64), extent=self._extent(content))


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
        if self.loss not in ("squared", "gaussian"):
            raise InputError(f"loss must be squared or gaussian, got {self.loss!r}")
        for name in ("low", "high", "mean", "std"):
            given = getattr(self, name)
            if given is not None and self.shape is not None and len(given) != self.n_values:
                raise InputError(f"{name} must have {self.n_values} numbers, one for each value, got {len(given)}")
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
        return Regression(self, d_model)

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


class Regression(ValueHead):
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
        return Regression(Vector(shape=(2,), mean=(0.0, 0.0), std=scale), d_model)

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


def box_bounds(
    low: tuple[float | None, ...] | None, high: tuple[float | None, ...] | None, n_values: int
) -> np.ndarray:
    """Bounds as they stand in a config, null where there is none: (2, values) float64, infinite there."""
    sides = ((low, -math.inf), (high, math.inf))
    return np.array(
        [
            [nothing if one is None else one for one in ([None] * n_values if side is None else side)]
            for side, nothing in sides
        ],
        dtype=np.float64,
    )


def check_box(values: np.ndarray, bounds: np.ndarray, place: str) -> None:
    """Raise InputError for the first number of (t, *shape) that is not finite or not within bounds, (2, values)."""
    flat = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    slack = SLACK * np.maximum(np.abs(np.where(np.isfinite(bounds), bounds, 0)), 1)
    wrong = ~np.isfinite(flat) | (flat < (bounds - slack)[0]) | (flat > (bounds + slack)[1])
    if wrong.any():
        step, i = np.argwhere(wrong)[0]
        which = f"value {i} is" if flat.shape[1] > 1 else "is"
        needed = "must be finite"
        if np.isfinite(flat[step, i]):
            low, high = bounds[:, i]
            needed = f"the space is from {low:g} to {high:g}"
        raise InputError(f"{place}, step {step}: {which} {flat[step, i]:g}, and {needed}; mend the data or the space")


@lru_cache(maxsize=64)
def _array(numbers: tuple[tuple[float, ...], ...]) -> np.ndarray:
    return np.array(numbers, dtype=np.float64)
