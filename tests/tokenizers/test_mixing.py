"""Mixup and cutmix: what is blended, and how much of it counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from anyformer.errors import InputError
from anyformer.tokenizers.image.patches import ConvStem, ImagePatches
from anyformer.tokenizers.mixing import Mixing
from tests.helpers.random_generators import Fixed


def blended(mixing: Mixing, *drawn: Any, stem: bool = False) -> tuple[np.ndarray, float]:
    """A black and a white picture as one, (8, 12)."""
    tokenizer = ImagePatches((8, 12), patch=4, channels=1, stem=ConvStem() if stem else None)
    black, white = (tokenizer.encode(np.full((8, 12), level, np.uint8)) for level in (0, 255))
    tokens, share = tokenizer.mix(white, black, mixing, Fixed(*drawn))
    assert len(tokens) == len(white) and tokens.extent == white.extent
    return tokenizer.decode(tokens)[0].numpy(), share


@pytest.mark.parametrize("stem", [False, True])
def test_mixup_averages_pixels(stem):
    pixels, share = blended(Mixing(mixup=0.2), 0.75, stem=stem)
    assert share == 0.75 and (pixels == 191).all()


@pytest.mark.parametrize("stem", [False, True])
def test_cutmix_puts_a_rectangle_in_and_counts_it(stem):
    pixels, share = blended(Mixing(cutmix=1.0), 0.75, 4.0, 6.0, stem=stem)
    assert share == 0.75 and (pixels[2:6, 3:9] == 0).all() and (pixels == 0).sum() == 24
    # At the edge less of it is inside, and that is what counts.
    pixels, share = blended(Mixing(cutmix=1.0), 0.75, 0.0, 0.0, stem=stem)
    assert share == 1 - 6 / 96 and (pixels[:2, :3] == 0).all() and (pixels == 0).sum() == 6


def test_both_come_half_of_the_time():
    both = Mixing(mixup=0.2, cutmix=1.0)
    assert (blended(both, 0.6, 0.75)[0] == 191).all()
    assert (blended(both, 0.4, 0.75, 4.0, 6.0)[0] == 0).sum() == 24


def test_the_partner_is_any_sample():
    random, mixing = np.random.default_rng(0), Mixing(mixup=0.2, chance=0.5)
    drawn = [mixing.partner(5, random) for _ in range(400)]
    assert set(drawn) == {None, 0, 1, 2, 3, 4} and 150 < drawn.count(None) < 250


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "mix needs mixup or cutmix above 0"),
        ({"mixup": -1.0, "cutmix": 2.0}, "mix needs mixup or cutmix above 0"),
        ({"mixup": 1.0, "chance": 0.0}, "mix.chance must be above 0"),
    ],
)
def test_a_mixing_that_cannot_be_says_why(options, message):
    with pytest.raises(InputError, match=message):
        Mixing(**options)
