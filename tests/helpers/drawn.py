"""Pictures drawn for the tests, and a generator that draws what it is told to."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def smooth(rows: int, columns: int) -> np.ndarray:
    """A colour picture that lossy formats keep."""
    y, x = np.mgrid[:rows, :columns]
    return np.stack([255 * y / rows, 255 * x / columns, 128 + 0 * x], -1).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


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
