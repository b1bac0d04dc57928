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
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from anyformer.embeddings import Projection
from anyformer.errors import InputError
from anyformer.tokenizers.pictures import image_size, open_image
from anyformer.tokens import Tokenizer, TokenSet


@dataclass(frozen=True)
class ConvStem:
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


@dataclass(frozen=True)
class ImagePatches(Tokenizer):
    """Cuts a picture into squares of patch x patch pixels, row by row; one token each, at (row, column).

    With the linear lift the content is (n, channels * patch * patch), a patch's values ordered channel, row, column;
    the extent is the grid. With a stem it is the pixels, (rows * columns, channels), and the extent is the picture's.
    """

    size: tuple[int, int] | None = (32, 32)
    """Rows and columns that every picture is resized to, multiples of patch. null: pictures keep their own size, and
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
    shift: float = 0.0
    """Augmentation: pictures are moved by up to so many pixels, each way; black comes in."""
    rotation: float = 0.0
    """Augmentation: and turned about their middle by up to so many degrees, each way."""

    axes: ClassVar[tuple[str, ...]] = ("row", "column")
    reads_files: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("size", "mean", "std"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.patch < 1:
            raise InputError(f"patch must be at least 1, got {self.patch}")
        if self.channels not in (1, 3):
            raise InputError(f"channels must be 1 (grey) or 3 (colour), got {self.channels}")
        if self.size is not None and (min(self.size) < 1 or any(side % self.patch for side in self.size)):
            raise InputError(f"size must be multiples of patch={self.patch}, got {self.size}")
        if self.stem is not None and (self.patch < 2 or self.patch & (self.patch - 1)):
            raise InputError(f"patch must be a power of 2 where there is a stem, got {self.patch}")
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, self.channels):
                raise InputError(f"{name} must be one number or {self.channels}, got {len(getattr(self, name))}")
        if min(self.std) <= 0:
            raise InputError(f"std must be above 0, got {self.std}")
        if self.shift < 0 or self.rotation < 0:
            raise InputError(f"shift and rotation must be at least 0, got {self.shift} and {self.rotation}")

    @property
    def sizes(self) -> dict[str, int]:
        return {} if self.size is None else {"row": self.size[0] // self.patch, "column": self.size[1] // self.patch}

    def encode(self, record: Any, random: np.random.Generator | None = None) -> TokenSet:
        """record: a picture, whatever `open_image` takes."""
        image = open_image(record, self.channels)
        if self.size is None:
            image = self._cut(image)
        elif image.shape[1:] != self.size:
            image = F.interpolate(image[None], self.size, mode="bilinear", antialias=True)[0]
        scale, offset = _normalisation(self.mean, self.std)
        if random is not None and (self.shift or self.rotation):
            image = self._move(image, random)
        pixels = torch.addcmul(offset, image, scale)
        rows, columns = pixels.shape[1] // self.patch, pixels.shape[2] // self.patch
        position, order = _grid(rows, columns)
        if self.stem is not None:
            content = pixels.permute(1, 2, 0).reshape(rows * columns * self.patch**2, self.channels)
            return TokenSet(content, position, order, extent=tuple(pixels.shape[1:]))
        content = rearrange(pixels, "c (row p) (column q) -> (row column) (c p q)", p=self.patch, q=self.patch)
        return TokenSet(content, position, order, extent=(rows, columns))

    def decode(self, tokens: TokenSet) -> Tensor:
        """The picture, (channels, rows, columns) uint8: as it was after resizing or cutting."""
        if self.stem is None:
            rows = tokens.extent[0]
            pattern = "(row column) (c p q) -> c (row p) (column q)"
            pixels = rearrange(tokens.content, pattern, row=rows, p=self.patch, q=self.patch)
        else:
            pixels = rearrange(tokens.content, "(row column) c -> c row column", row=tokens.extent[0])
        scale, offset = _normalisation(self.mean, self.std)
        return ((pixels - offset) / scale).round().clamp(0, 255).to(torch.uint8)

    def empty(self) -> TokenSet:
        d_content = self.channels * (self.patch**2 if self.stem is None else 1)
        return TokenSet(torch.zeros(0, d_content), torch.zeros(0, 2, dtype=torch.int64), extent=(0, 0))

    def count(self, record: Any) -> int:
        rows, columns = self.size or image_size(record)
        return (rows // self.patch) * (columns // self.patch)

    def lift(self, d_model: int) -> nn.Module:
        if self.stem is None:
            return Projection(self.channels * self.patch**2, d_model)
        return ConvLift(self.stem, self.channels, d_model, n_halvings=int(math.log2(self.patch)))

    def _cut(self, image: Tensor) -> Tensor:
        rows, columns = image.shape[1:]
        if min(rows, columns) < self.patch:
            raise InputError(
                f"a picture of {rows} x {columns} pixels is smaller than one patch of {self.patch}; "
                "give a size to resize to, or a smaller patch"
            )
        top, left = rows % self.patch // 2, columns % self.patch // 2
        return image[:, top : top + rows - rows % self.patch, left : left + columns - columns % self.patch]

    def _move(self, image: Tensor, random: np.random.Generator) -> Tensor:
        """Shift and turn by what is drawn, in one bilinear sampling. (c, rows, columns) to the same, float."""
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


@lru_cache(maxsize=16)
def _places(rows: int, columns: int) -> np.ndarray:
    """(rows * columns, 3): x, y and 1 of the middle of each pixel, as `grid_sample` counts them."""
    grid = F.affine_grid(torch.eye(2, 3)[None], [1, 1, rows, columns], align_corners=False)[0]
    return torch.cat([grid, torch.ones(rows, columns, 1)], -1).flatten(0, 1).numpy()


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
            pixels = F.max_pool2d(F.relu(convolution(pixels)), 3, stride=2, padding=1)
        return rearrange(pixels, "b d row column -> (b row column) d")
