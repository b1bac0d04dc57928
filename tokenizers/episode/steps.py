"""Episodes as tokens: what a step tokenizer is, and what predicts the content of its tokens.

An episode is cut into steps, and every field of it (the return-to-go, a leaf of the observation, a leaf of the action)
into the tokens of each step, which share the timestep as position (Chen et al. 2021, "Decision Transformer"). Measures
are in `continuous.py`, ids in `discrete.py`, pictures in `frames.py`; which space gets which is said in `spaces.py`,
and nothing here needs gymnasium: a trained model holds all that it has to know of its spaces.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field, fields
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

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

    def _check_lengths(self, each: str, *names: str) -> None:
        """Raise InputError for options that have not a number for each value, which is called `each`, of the shape."""
        for name in names:
            given = getattr(self, name)
            if given is not None and self.shape is not None and len(given) != self.n_values:
                raise InputError(f"{name} must have {self.n_values} numbers, one for each {each}, got {len(given)}")

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

    def pieces(self, tokens: TokenSet) -> list[str] | None:
        values = self.decode(tokens).reshape(len(tokens), -1) if len(tokens) else []
        return [" ".join(f"{value:.3g}" for value in each) for each in values]

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
