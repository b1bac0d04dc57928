"""Random generators in tests: those of the process, and one that draws what it is told to."""

from __future__ import annotations

import random as python_random
from typing import Any

import numpy as np
import torch


def global_generators() -> list[Any]:
    """The states of torch's, Python's and numpy's own generators, to be compared."""
    name, keys, *rest = np.random.get_state()
    return [torch.random.get_rng_state().tolist(), python_random.getstate(), name, keys.tolist(), rest]


class Fixed:
    """A generator that draws what it is told to."""

    def __init__(self, *values: Any) -> None:
        self.values = list(values)

    def random(self) -> float:
        return self.values.pop(0)

    def uniform(self, low: float, high: float, size: int | None = None) -> Any:
        return self.values.pop(0) if size is None else np.array([self.values.pop(0) for _ in range(size)])

    def integers(self, high: int, size: int | None = None) -> Any:
        return self.values.pop(0) if size is None else np.array([self.values.pop(0) for _ in range(size)])

    def beta(self, a: float, b: float) -> float:
        return self.values.pop(0)
