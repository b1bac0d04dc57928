"""Augmentation of pictures of a fixed grid, before they are cut: moved, cropped, flipped, recoloured, erased, blended.

Everything is drawn from the generator that a sample is given, a function of (seed, epoch, index).
"""

from __future__ import annotations

import math
import random as python_random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from anyformer.choices import Values
from anyformer.errors import InputError


@dataclass(frozen=True)
class Augmentation(Values):
    """What is drawn for a picture whenever it comes up in training. Nothing by default."""

    scale: tuple[float, float] | None = None
    """A window of such a share of the picture's area, and of sides as 3 to 4 up to 4 to 3, is resized to the grid
    (Szegedy et al. 2015, 6)."""
    crop: int = 0
    """The picture is mirrored at its edges, and moved by up to so many whole pixels each way."""
    shift: float = 0.0
    """It is moved by up to so many pixels, parts of pixels too; black comes in."""
    rotation: float = 0.0
    """And turned about its middle by up to so many degrees, each way."""
    flip: bool = False
    """Whether left and right change places half of the time."""
    vertical_flip: bool = False
    """Whether top and bottom do."""
    jitter: float = 0.0
    """Brightness, contrast and saturation change by a factor of up to 1 - jitter ... 1 + jitter."""
    policy: str | None = None
    """trivial: one operation of any strength (TrivialAugment, Mueller and Hutter 2021), by torchvision; or one of
    timm's by its description, as `rand-m9-n2-mstd0.5-inc1` (RandAugment, Cubuk et al. 2020)."""
    erase: float = 0.0
    """The chance that a rectangle of 2 % to 33 % of the picture becomes the tokenizer's `mean` (Zhong et al. 2020)."""

    def __post_init__(self) -> None:
        if isinstance(self.scale, list):
            object.__setattr__(self, "scale", tuple(self.scale))
        if self.scale is not None and not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise InputError(f"augment.scale must be two shares of the area, 0 < low <= high <= 1, got {self.scale}")
        for name in ("crop", "shift", "rotation"):
            if getattr(self, name) < 0:
                raise InputError(f"augment.{name} must be at least 0, got {getattr(self, name)}")
        for name in ("jitter", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"augment.{name} must be between 0 and 1, got {getattr(self, name)}")
        if self.policy is not None:
            _policy(self.policy)

    def window(self, rows: int, columns: int, random: np.random.Generator) -> tuple[int, int, int, int] | None:
        """Top, left, height and width of the part of a picture to resize to the grid; None for what is usual."""
        if self.scale is None:
            return None
        for _ in range(10):
            area = rows * columns * random.uniform(*self.scale)
            ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
            height, width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < height <= rows and 0 < width <= columns:
                top, left = random.integers(rows - height + 1), random.integers(columns - width + 1)
                return int(top), int(left), height, width
        return None

    def move(self, image: Tensor, random: np.random.Generator) -> Tensor:
        """Change a picture on its grid. (c, rows, columns) uint8 to the same, or to float from 0 to 255."""
        rows, columns = image.shape[1:]
        if self.crop:
            down, right = random.integers(2 * self.crop + 1, size=2).tolist()
            padded = F.pad(image.float(), [self.crop] * 4, mode="reflect").to(image.dtype)
            image = padded[:, down : down + rows, right : right + columns]
        if self.flip and random.random() < 0.5:
            image = image.flip(2)
        if self.vertical_flip and random.random() < 0.5:
            image = image.flip(1)
        if self.jitter or self.policy is not None:
            image = self._recolour(image, random)
        return self._turn(image, random) if self.shift or self.rotation else image

    def blot(self, pixels: Tensor, random: np.random.Generator) -> Tensor:
        """Erase a rectangle of a normalised picture, (c, rows, columns)."""
        if not self.erase or random.random() >= self.erase:
            return pixels
        rows, columns = pixels.shape[1:]
        for _ in range(10):
            area = rows * columns * random.uniform(0.02, 0.33)
            ratio = math.exp(random.uniform(math.log(0.3), math.log(1 / 0.3)))
            height, width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < height < rows and 0 < width < columns:
                top, left = random.integers(rows - height + 1), random.integers(columns - width + 1)
                pixels = pixels.clone()
                pixels[:, top : top + height, left : left + width] = 0
                return pixels
        return pixels

    def _recolour(self, image: Tensor, random: np.random.Generator) -> Tensor:
        # By Pillow, which takes half as long as torchvision's tensors for pictures as small as most of ours.
        array = image.permute(1, 2, 0).numpy()
        picture = Image.fromarray(array[:, :, 0] if len(image) == 1 else np.ascontiguousarray(array))
        by_timm = self.policy not in (None, "trivial")
        if by_timm:
            picture = picture.convert("RGB")  # timm's operations know no grey
        with _drawn(int(random.integers(2**31)), by_timm):
            if self.jitter:
                picture = _jitter(self.jitter)(picture)
            if self.policy is not None:
                picture = _policy(self.policy)(picture)
        array = np.array(picture.convert("L" if len(image) == 1 else "RGB"))
        return torch.from_numpy(array[:, :, None] if array.ndim == 2 else array).permute(2, 0, 1)

    def _turn(self, image: Tensor, random: np.random.Generator) -> Tensor:
        """Shift and turn by what is drawn, in one bilinear sampling."""
        _, rows, columns = image.shape
        down, right, turn = random.uniform(-1, 1, 3).tolist()
        down, right, turn = down * self.shift, right * self.shift, math.radians(turn * self.rotation)
        cos, sin = math.cos(turn), math.sin(turn)
        # Coordinates run from -1 to 1 along each side, so turning a picture that is no square needs its ratio.
        x = [cos, -sin * rows / columns, -2 * right / columns]
        y = [sin * columns / rows, cos, -2 * down / rows]
        # By numpy, which takes half as long as torch for a matrix as small as this.
        grid = _places(rows, columns) @ np.array([x, y], dtype=np.float32).T
        grid = torch.from_numpy(grid).view(1, rows, columns, 2)
        return F.grid_sample(image[None].float(), grid, mode="bilinear", align_corners=False)[0]


@contextmanager
def _drawn(seed: int, by_timm: bool) -> Iterator[None]:
    """While it lasts, the generators that all share, which the libraries draw from, are of this seed."""
    held = (python_random.getstate(), np.random.get_state()) if by_timm else None
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            if held is not None:
                python_random.seed(seed)
                np.random.seed(seed)
            yield
        finally:
            if held is not None:
                python_random.setstate(held[0])
                np.random.set_state(held[1])


@lru_cache(maxsize=16)
def _policy(name: str) -> Callable[[Image.Image], Image.Image]:
    if name == "trivial":
        from torchvision.transforms import v2

        return v2.TrivialAugmentWide()
    from timm.data.auto_augment import augment_and_mix_transform, auto_augment_transform, rand_augment_transform

    make = {"rand": rand_augment_transform, "augmix": augment_and_mix_transform}.get(
        name.split("-")[0], auto_augment_transform
    )
    try:
        return make(name, {})
    except (AssertionError, ValueError, KeyError, TypeError):
        raise InputError(
            f"augment.policy must be trivial, or one of timm's as rand-m9-n2-mstd0.5, original, 3a, got {name!r}"
        ) from None


@lru_cache(maxsize=16)
def _jitter(amount: float) -> Callable[[Image.Image], Image.Image]:
    from torchvision.transforms import v2

    return v2.ColorJitter(brightness=amount, contrast=amount, saturation=amount)


@lru_cache(maxsize=16)
def _places(rows: int, columns: int) -> np.ndarray:
    """(rows * columns, 3): x, y and 1 of the middle of each pixel, as `grid_sample` counts them."""
    grid = F.affine_grid(torch.eye(2, 3)[None], [1, 1, rows, columns], align_corners=False)[0]
    return torch.cat([grid, torch.ones(rows, columns, 1)], -1).flatten(0, 1).numpy()
