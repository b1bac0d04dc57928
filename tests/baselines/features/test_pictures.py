"""Pictures as pixels."""

from __future__ import annotations

import numpy as np
import pytest

from anyformer.baselines.features.pictures import Pixels
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.image.sources import Digits


def test_small_pictures_keep_their_pixels_and_large_ones_are_averaged() -> None:
    digit = Digits()[3]["image"]
    found = Pixels(ImagePatches((8, 8), 2, 1)).read(digit)
    assert found == pytest.approx(np.asarray(digit).ravel() / 255, abs=0.01)
    halves = np.zeros((32, 32, 3), np.uint8)
    halves[:, 16:] = 255
    found = Pixels(ImagePatches((32, 32), 4, 3)).read(halves).reshape(3, 16, 16)
    assert found[:, :, :8].max() == 0 and found[:, :, 8:].min() == 1


def test_pictures_of_any_shape_come_to_as_many_columns() -> None:
    pixels = Pixels(ImagePatches(size=None, patch=4, channels=1))
    shapes = {pixels.read(np.zeros((rows, columns), np.uint8)).shape for rows, columns in ((8, 40), (64, 20))}
    assert shapes == {(256,)}
