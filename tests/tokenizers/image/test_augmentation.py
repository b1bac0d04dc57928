"""Augmentation: what it does, what it draws from, and what it leaves alone."""

from __future__ import annotations

import random as python_random
from typing import Any

import numpy as np
import pytest
import torch

from anyformer.errors import InputError
from anyformer.tokenizers.image.augmentation import Augmentation
from anyformer.tokenizers.image.patches import ImagePatches
from tests.helpers.drawn import noise, smooth
from tests.helpers.random_generators import Fixed, global_generators

EVERYTHING = {
    "scale": Augmentation(scale=(0.2, 0.8)),
    "crop": Augmentation(crop=3),
    "shift and rotation": Augmentation(shift=2, rotation=20),
    "flip": Augmentation(flip=True),
    "vertical flip": Augmentation(vertical_flip=True),
    "jitter": Augmentation(jitter=0.5),
    "trivial": Augmentation(policy="trivial"),
    "timm": Augmentation(policy="rand-m9-n2-mstd0.5-inc1"),
    "erase": Augmentation(erase=0.5),
}


def patches(augment: Augmentation | None, rows: int = 8, columns: int = 12, channels: int = 3) -> ImagePatches:
    return ImagePatches((rows, columns), patch=4, channels=channels, augment=augment)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("augment", EVERYTHING.values(), ids=EVERYTHING)
def test_what_is_drawn_is_a_function_of_the_generator_alone(augment, channels):
    picture, tokenizer = smooth(8, 12), patches(augment, channels=channels)

    def content(seed: int | None) -> torch.Tensor:
        return tokenizer.encode(picture, None if seed is None else np.random.default_rng(seed)).content

    before = global_generators()
    drawn = [content(seed) for seed in range(20)]
    assert global_generators() == before
    torch.manual_seed(17)
    python_random.seed(17)
    assert all(torch.equal(content(seed), each) for seed, each in enumerate(drawn))
    assert sum(not torch.equal(each, drawn[0]) for each in drawn) >= 5
    still = patches(None, channels=channels).encode(picture).content
    assert torch.equal(content(None), still)
    assert all(each.shape == still.shape and each.dtype == still.dtype for each in drawn)


def test_without_augmentation_nothing_is_drawn():
    picture = noise(8, 12, 3)
    tokens = patches(Augmentation()).encode(picture, np.random.default_rng(0))
    assert torch.equal(tokens.content, patches(None).encode(picture).content)


def moved(augment: Augmentation, picture: np.ndarray, *drawn: Any) -> np.ndarray:
    """What becomes of a grey picture, (rows, columns)."""
    tokenizer = patches(augment, *picture.shape, channels=1)
    return tokenizer.decode(tokenizer.encode(picture, Fixed(*drawn)))[0].numpy()


def test_a_shift_moves_down_and_right_and_black_comes_in():
    picture = noise(8, 12)
    found = moved(Augmentation(shift=3), picture, 2 / 3, 1, 0)
    assert np.array_equal(found[2:, 3:], picture[:-2, :-3])
    assert not found[:2].any() and not found[:, :3].any()


def test_a_quarter_turn_is_a_quarter_turn():
    square, wide = noise(8, 8), noise(8, 12)
    assert np.array_equal(moved(Augmentation(rotation=90), square, 0, 0, 1), np.rot90(square))
    assert np.array_equal(moved(Augmentation(rotation=90), wide, 0, 0, 1)[:, 2:-2], np.rot90(wide[:, 2:-2]))


def test_a_crop_mirrors_the_edges():
    picture = noise(8, 12)
    padded = np.pad(picture, 2, mode="reflect")
    assert np.array_equal(moved(Augmentation(crop=2), picture, 0, 4), padded[:8, 4:])
    tokenizer = patches(Augmentation(crop=2), channels=1)
    moves = {tokenizer.encode(picture, np.random.default_rng(i)).content.numpy().tobytes() for i in range(300)}
    assert len(moves) == 25, "all that there are"
    with pytest.raises(InputError, match=r"augment.crop must be less than the sides of size=\(8, 12\), got 8"):
        patches(Augmentation(crop=8))


def test_flips_are_flips():
    picture = noise(8, 12)
    assert np.array_equal(moved(Augmentation(flip=True), picture, 0.4), picture[:, ::-1])
    assert np.array_equal(moved(Augmentation(flip=True), picture, 0.5), picture)
    assert np.array_equal(moved(Augmentation(vertical_flip=True), picture, 0.4), picture[::-1])


def test_brightness_contrast_and_saturation_change_each_by_up_to_jitter():
    picture = np.full((8, 8, 3), [100.0, 70, 70], np.float32)
    picture[4:] = [60, 40, 40]
    tokenizer = patches(Augmentation(jitter=0.5), 8, 8)

    def figures(pixels: np.ndarray) -> tuple[float, float, float]:
        """Of which brightness, contrast and saturation each change one alone."""
        grey = pixels @ [0.299, 0.587, 0.114]
        apart = grey[0, 0] - grey[7, 0]
        return grey.mean(), apart / grey.mean(), (pixels[0, 0, 0] - pixels[0, 0, 1]) / apart

    usual, factors = figures(picture), []
    for seed in range(150):
        pixels = tokenizer.decode(tokenizer.encode(picture.astype(np.uint8), np.random.default_rng(seed)))
        now = figures(pixels.permute(1, 2, 0).double().numpy())
        factors.append([one / other for one, other in zip(now, usual, strict=True)])
    lowest, highest = np.min(factors, 0), np.max(factors, 0)
    # Pixels are rounded.
    assert (lowest < 0.6).all() and (lowest > 0.4).all() and (highest > 1.4).all() and (highest < 1.7).all()


def test_a_window_is_of_the_area_that_was_drawn():
    random, covered, n = np.random.default_rng(0), np.zeros((60, 100)), 300
    for _ in range(n):
        top, left, height, width = Augmentation(scale=(0.25, 0.5)).window(60, 100, random)
        covered[top : top + height, left : left + width] += 1 / n
        assert 0 <= top <= 60 - height and 0 <= left <= 100 - width
        assert 0.24 < height * width / 6000 < 0.51 and 0.7 < width / height < 1.4
    # Every side is reached, and as often as the one across.
    assert min(covered[0].max(), covered[-1].max(), covered[:, 0].max(), covered[:, -1].max()) > 0
    assert abs(covered - covered[::-1, ::-1]).max() < 0.15 and covered[30, 50] > 0.5
    # No window of a strip has such sides: the usual one is taken.
    assert Augmentation(scale=(0.9, 1.0)).window(4, 100, random) is None


def test_what_is_erased_is_a_rectangle_of_the_mean():
    tokenizer = patches(Augmentation(erase=1.0), 16, 16, 1)
    areas, covered = [], np.zeros((16, 16), bool)
    for seed in range(150):
        pixels = tokenizer._join(tokenizer.encode(np.full((16, 16), 255, np.uint8), np.random.default_rng(seed)))[0]
        rows, columns = (pixels == 0).nonzero(as_tuple=True)
        box = pixels[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert (box == 0).all() and (pixels == 0).sum() == box.numel()
        areas.append(box.numel() / 256)
        covered |= (pixels == 0).numpy()
    assert 0.01 < min(areas) < 0.1 and 0.2 < max(areas) < 0.4 and covered.all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": (0.0, 1.0)}, "augment.scale must be two shares of the area"),
        ({"scale": (0.8, 0.5)}, "augment.scale must be two shares of the area"),
        ({"crop": -1}, "augment.crop must be at least 0"),
        ({"rotation": -1.0}, "augment.rotation must be at least 0"),
        ({"jitter": 1.5}, "augment.jitter must be between 0 and 1"),
        ({"erase": -0.5}, "augment.erase must be between 0 and 1"),
        ({"policy": "trivail"}, "augment.policy must be trivial, or one of timm's .*, got 'trivail'"),
    ],
)
def test_options_that_cannot_be_say_why(options, message):
    with pytest.raises(InputError, match=message):
        Augmentation(**options)


def test_pictures_of_their_own_shape_are_not_mixed_and_not_moved():
    assert "share no grid" in ImagePatches(None).unmixable
    with pytest.raises(InputError, match=r"augment changes pictures on a fixed grid, .* give a size"):
        ImagePatches(None, augment=Augmentation(flip=True))
