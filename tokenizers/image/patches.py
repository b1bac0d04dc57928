"""Patches of pictures as tokens.

`ImagePatches` cuts a picture into squares, lifted by a linear map (Dosovitskiy et al. 2021) or by a convolution stem
(Compact Transformers, Hassani et al. 2021).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from anyformer.choices import Values
from anyformer.data.files import PICTURES
from anyformer.errors import InputError
from anyformer.model.lifts import Projection
from anyformer.tokenizers.image.augmentation import Augmentation
from anyformer.tokenizers.image.reading import image_size, open_image
from anyformer.tokenizers.mixing import Mixing
from anyformer.tokens import Tokenizer, TokenSet

MAX_RATIO = 100
"""A picture whose sides differ by more is refused where it would be brought to a fixed size."""


@dataclass(frozen=True)
class ConvStem(Values):
    """Lifts pixels by convolutions, each followed by ReLU and a max-pooling that halves the picture.

    Neighbouring patches share what their edges show, which is what lets a transformer learn from a few thousand
    pictures (Hassani et al. 2021, "Escaping the Big Data Paradigm with Compact Transformers", 3.3).
    """

    d_hidden: int = 64
    """Channels between the convolutions."""
    kernel: int = 3
    """Side of each convolution; odd."""

    def __post_init__(self) -> None:
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise InputError(f"stem.kernel must be odd, got {self.kernel}")
        if self.d_hidden < 1:
            raise InputError(f"stem.d_hidden must be at least 1, got {self.d_hidden}")


def check_channels(channels: int, mean: Sequence[float], std: Sequence[float]) -> None:
    """Raise InputError for what is neither grey nor colour, and for means and deviations of other channels."""
    if channels not in (1, 3):
        raise InputError(f"channels must be 1 (grey) or 3 (colour), got {channels}")
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels):
            raise InputError(f"{name} must be one number or {channels}, got {len(values)}")
    if min(std) <= 0:
        raise InputError(f"std must be above 0, got {std}")


@dataclass(frozen=True)
class ImagePatches(Tokenizer):
    """Cuts a picture into squares of patch x patch pixels, row by row; one token each, at (row, column).

    With the linear lift the content is (n, channels * patch * patch), a patch's values ordered channel, row, column;
    the extent is the grid. With a stem it is the pixels, (rows * columns, channels), and the extent is the picture's.
    """

    size: tuple[int, int] | None = (32, 32)
    """Rows and columns that every picture is brought to, multiples of patch. null: pictures keep their own size, and
    what is more than a multiple of patch is cut off, half of it from each side."""
    patch: int = 4
    """Side of the square that a token stands for. With a stem a power of 2: each convolution halves the picture."""
    channels: int = 3
    """1: grey. 3: colour."""
    mean: tuple[float, ...] = (0.5,)
    """Taken from the pixels, which run from 0 to 1; one number, or one a channel."""
    std: tuple[float, ...] = (0.5,)
    """What they are then divided by."""
    stem: ConvStem | None = None
    """Convolutions in place of the linear lift."""
    resize: Literal["crop", "stretch"] = "crop"
    """How it is brought to `size`: by the largest part in its middle that has that shape, or all of it, distorted."""
    max_patches: int | None = None
    """Of pictures of their own size: what has more patches is made smaller, at its own shape, until it has not."""
    augment: Augmentation | None = None
    """What is drawn for pictures of a fixed size in training."""

    axes: ClassVar[tuple[str, ...]] = ("row", "column")
    endings: ClassVar[tuple[str, ...]] = PICTURES

    def __post_init__(self) -> None:
        for name in ("size", "mean", "std"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.patch < 1:
            raise InputError(f"patch must be at least 1, got {self.patch}")
        check_channels(self.channels, self.mean, self.std)
        if self.size is not None and (min(self.size) < 1 or any(side % self.patch for side in self.size)):
            raise InputError(f"size must be multiples of patch={self.patch}, got {self.size}")
        if self.stem is not None and (self.patch < 2 or self.patch & (self.patch - 1)):
            raise InputError(f"patch must be a power of 2 where there is a stem, got {self.patch}")
        if self.size is None and self.augment is not None:
            raise InputError(
                "augment changes pictures on a fixed grid, and with size: null each keeps its own; "
                "give a size, or leave augment out"
            )
        if self.max_patches is not None and (self.size is not None or self.max_patches < 1):
            raise InputError(
                f"max_patches must be at least 1 and needs size: null, got {self.max_patches} with size {self.size}"
            )
        if self.augment is not None and self.augment.crop >= min(self.size):
            raise InputError(f"augment.crop must be less than the sides of size={self.size}, got {self.augment.crop}")

    @property
    def sizes(self) -> dict[str, int]:
        return {} if self.size is None else {"row": self.size[0] // self.patch, "column": self.size[1] // self.patch}

    def encode(self, record: Any, random: np.random.Generator | None = None) -> TokenSet:
        """record: a picture, whatever `open_image` takes."""
        image = open_image(record, self.channels)
        augment = self.augment if random is not None else None
        image = self._cut(image) if self.size is None else self._fit(image, augment, random)
        if augment is not None:
            image = augment.move(image, random)
        scale, offset = _normalisation(self.mean, self.std)
        pixels = torch.addcmul(offset, image, scale)
        if augment is not None:
            pixels = augment.blot(pixels, random)
        return self._chop(pixels)

    def _chop(self, pixels: Tensor) -> TokenSet:
        """The tokens of a normalised picture, (channels, rows, columns)."""
        rows, columns = pixels.shape[1] // self.patch, pixels.shape[2] // self.patch
        position, order = _grid(rows, columns)
        if self.stem is not None:
            content = pixels.permute(1, 2, 0).reshape(rows * columns * self.patch**2, self.channels)
            return TokenSet(content, position, order, extent=tuple(pixels.shape[1:]))
        content = rearrange(pixels, "c (row p) (column q) -> (row column) (c p q)", p=self.patch, q=self.patch)
        return TokenSet(content, position, order, extent=(rows, columns))

    def decode(self, tokens: TokenSet) -> Tensor:
        """The picture, (channels, rows, columns) uint8: as it was after resizing or cutting."""
        pixels = self._join(tokens)
        scale, offset = _normalisation(self.mean, self.std)
        return ((pixels - offset) / scale).round().clamp(0, 255).to(torch.uint8)

    def _join(self, tokens: TokenSet) -> Tensor:
        """The inverse of `_chop`."""
        if self.stem is not None:
            return rearrange(tokens.content, "(row column) c -> c row column", row=tokens.extent[0])
        pattern = "(row column) (c p q) -> c (row p) (column q)"
        return rearrange(tokens.content, pattern, row=tokens.extent[0], p=self.patch, q=self.patch)

    @property
    def unmixable(self) -> str | None:
        return "pictures of their own shape share no grid; give a size" if self.size is None else None

    def mix(
        self, tokens: TokenSet, other: TokenSet, mixing: Mixing, random: np.random.Generator
    ) -> tuple[TokenSet, float]:
        pixels, share = mixing.blend(self._join(tokens), self._join(other), random)
        return self._chop(pixels), share

    def empty(self) -> TokenSet:
        d_content = self.channels * (self.patch**2 if self.stem is None else 1)
        return TokenSet(torch.zeros(0, d_content), torch.zeros(0, 2, dtype=torch.int64), extent=(0, 0))

    def count(self, record: Any) -> int:
        if self.size is not None:
            return (self.size[0] // self.patch) * (self.size[1] // self.patch)
        rows, columns = image_size(record)
        return math.prod(side // self.patch for side in self._within(rows, columns))

    def lift(self, d_model: int) -> nn.Module:
        if self.stem is None:
            return Projection(self.channels * self.patch**2, d_model)
        return ConvLift(self.stem, self.channels, d_model, n_halvings=int(math.log2(self.patch)))

    def _fit(self, image: Tensor, augment: Augmentation | None, random: np.random.Generator | None) -> Tensor:
        """The picture on the grid."""
        rows, columns = image.shape[1:]
        if max(rows, columns) > MAX_RATIO * min(rows, columns):
            raise InputError(
                f"a picture of {rows} x {columns} pixels is more than {MAX_RATIO} times as long as wide; "
                "cut it, or leave it out"
            )
        window = None if augment is None else augment.window(rows, columns, random)
        if window is None and self.resize == "crop":
            ratio = min(rows / self.size[0], columns / self.size[1])
            height, width = (max(round(ratio * side), 1) for side in self.size)
            window = (rows - height) // 2, (columns - width) // 2, height, width
        if window is not None:
            top, left, height, width = window
            image = image[:, top : top + height, left : left + width]
        if image.shape[1:] == self.size:
            return image
        return F.interpolate(image[None], self.size, mode="bilinear", antialias=True)[0]

    def _cut(self, image: Tensor) -> Tensor:
        """The picture at its own shape: within the budget, without what is more than a multiple of patch."""
        rows, columns = image.shape[1:]
        if min(rows, columns) < self.patch:
            raise InputError(
                f"a picture of {rows} x {columns} pixels is smaller than one patch of {self.patch}; "
                "give a size to resize to, or a smaller patch"
            )
        height, width = self._within(rows, columns)
        if (height, width) != (rows, columns):
            return F.interpolate(image[None], (height, width), mode="bilinear", antialias=True)[0]
        top, left = rows % self.patch // 2, columns % self.patch // 2
        return image[:, top : top + rows - rows % self.patch, left : left + columns - columns % self.patch]

    def _within(self, rows: int, columns: int) -> tuple[int, int]:
        """The sides of a picture as they are, or as multiples of patch that keep the budget of tokens."""
        budget = self.max_patches
        if budget is None or (rows // self.patch) * (columns // self.patch) <= budget:
            return rows, columns
        sides = (math.sqrt(budget * rows / columns), math.sqrt(budget * columns / rows))
        height, width = (min(max(int(side), 1), budget) * self.patch for side in sides)
        if not 1 / 2 < height * columns / (width * rows) < 2:
            raise InputError(
                f"a picture of {rows} x {columns} pixels has no like shape within max_patches={budget}; "
                "raise it, or cut the picture"
            )
        return height, width

    def show(self, tokens: TokenSet) -> np.ndarray:
        return self.decode(tokens).permute(1, 2, 0).expand(-1, -1, 3).numpy()


@lru_cache(maxsize=16)
def _normalisation(mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Scale and offset that take uint8 values to normalised ones, each (c or 1, 1, 1)."""
    mean_, std_ = (torch.tensor(part, dtype=torch.float32)[:, None, None] for part in (mean, std))
    return 1 / (255 * std_), -mean_ / std_


@lru_cache(maxsize=256)
def _grid(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Position and order of the patches of a picture, shared by all pictures of that size."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([row, column], -1).flatten(0, 1), torch.zeros(rows * columns, dtype=torch.int64)


class ConvLift(nn.Module):
    """The weights of a `ConvStem`.

    Pictures of one size go through the convolutions together, other sizes apart: so every convolution pads at each
    picture's own edges, and none sees its neighbour in the batch.
    """

    def __init__(self, config: ConvStem, channels: int, d_model: int, n_halvings: int) -> None:
        super().__init__()
        widths = [channels, *[config.d_hidden] * (n_halvings - 1), d_model]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(wide, wider, config.kernel, padding=config.kernel // 2, bias=False)
            for wide, wider in pairwise(widths)
        )
        for convolution in self.convolutions:
            nn.init.kaiming_normal_(convolution.weight)
        self.channels = channels

    def forward(self, content: Tensor, extents: Sequence[tuple[int, ...]] = ()) -> Tensor:
        """content: (total pixels, c) float; extents: (rows, columns) of each picture. Returns (total tokens, d)."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for number, extent in enumerate(extents):
            groups.setdefault(tuple(extent), []).append(number)
        if len(groups) <= 1:
            # Without pictures the weights still take part, so that their gradients are 0 and not None.
            rows, columns = next(iter(groups), (2 ** len(self.convolutions),) * 2)
            return self._convolve(content, rows, columns)
        pictures = content.split([math.prod(extent) for extent in extents])
        lifted: list[Tensor] = [content] * len(pictures)
        for (rows, columns), numbers in groups.items():
            vectors = self._convolve(torch.cat([pictures[i] for i in numbers]), rows, columns)
            for number, part in zip(numbers, vectors.chunk(len(numbers)), strict=True):
                lifted[number] = part
        return torch.cat(lifted)

    def _convolve(self, content: Tensor, rows: int, columns: int) -> Tensor:
        # A view of the (b, rows, columns, c) content; its memory stays channels-last through the convolutions.
        pixels = content.view(-1, rows, columns, self.channels).permute(0, 3, 1, 2)
        for convolution in self.convolutions:
            # The largest of what ReLU leaves, with a quarter of the work: the two commute.
            pixels = F.relu(F.max_pool2d(convolution(pixels), 3, stride=2, padding=1))
        return rearrange(pixels, "b d row column -> (b row column) d")
