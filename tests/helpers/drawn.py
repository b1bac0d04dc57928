"""Pictures drawn for the tests."""

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
