"""Pictures that an agent sees, as patches: the steps of `steps.py` and the lifts of `image/patches.py`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from anyformer.errors import InputError
from anyformer.model.lifts import Projection
from anyformer.tokenizers.episode.steps import StepTokenizer, check_box
from anyformer.tokenizers.image.patches import ConvLift, ConvStem
from anyformer.tokens import TokenSet

CHANNELS = (1, 3, 4)
"""What the last axis of a picture is taken to be channels for, however small its first."""


@dataclass(frozen=True)
class Frames(StepTokenizer):
    """A Box of pictures, uint8: squares of patch x patch pixels, row by row, at (step, row, column).

    Values are (rows, columns), (rows, columns, channels), (channels, rows, columns), or stacks of the second,
    (frames, rows, columns, channels), whose channels are laid side by side. What is no multiple of patch is filled up
    with 0 on the right and below. With the linear lift the content is (n, channels * patch * patch), from -1 to 1; with
    a stem it is the pixels, (pixels, channels).
    """

    patch: int | None = None
    """Side of the square that a token stands for. With a stem a power of 2: each convolution halves the picture. When
    left out a quarter of the shorter side, which is 16 tokens for a square; with a stem the power of 2 next to it."""
    stem: ConvStem | None = None
    """Convolutions in place of the linear lift."""

    axes: ClassVar[tuple[str, ...]] = ("step", "row", "column")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patch is not None and self.patch < 1:
            raise InputError(f"patch must be at least 1, got {self.patch}")
        if self.stem is not None and self.patch is not None and (self.patch < 2 or self.patch & (self.patch - 1)):
            raise InputError(f"patch must be a power of 2 where there is a stem, got {self.patch}")
        if self.shape is not None and len(self.shape) not in (2, 3, 4):
            raise InputError(f"pictures have 2 to 4 axes, got the shape {self.shape}; use Vector for it")
        if self.dtype not in (None, "uint8"):
            raise InputError(f"pictures are uint8, got a space of {self.dtype}; use Vector for it")

    @property
    def _is_first(self) -> bool:
        """Whether the channels are the first axis of three."""
        first, _, last = self._shape
        return last not in CHANNELS and first < last

    @property
    def size(self) -> tuple[int, int, int]:
        """Channels, rows and columns of a picture."""
        shape = self._shape
        if len(shape) == 2:
            return 1, *shape
        if len(shape) == 4:
            return shape[0] * shape[3], shape[1], shape[2]
        return shape if self._is_first else (shape[2], *shape[:2])

    @property
    def side(self) -> int:
        """Of a patch."""
        if self.patch is not None:
            return self.patch
        quarter = -(-min(self.size[1:]) // 4)
        return quarter if self.stem is None else max(2 ** round(math.log2(quarter)), 2)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return -(-self.size[1] // self.side), -(-self.size[2] // self.side)

    @property
    def n_each(self) -> int:
        return math.prod(self.grid)

    @property
    def sizes(self) -> dict[str, int]:
        steps = {} if self.max_steps is None else {"step": self.max_steps}
        return steps if self.shape is None else steps | dict(zip(self.axes[1:], self.grid, strict=True))

    @property
    def _places(self) -> np.ndarray:
        return np.indices(self.grid).reshape(2, -1).T

    def _extent(self, content: Tensor) -> tuple[int, ...]:
        if self.stem is None:
            return (len(content),)
        rows, columns = (side * self.side for side in self.grid)
        return len(content) // (rows * columns), rows, columns

    def cut(self, values: np.ndarray) -> Tensor:
        pixels = values.reshape(len(values), *self._shape)
        if len(self._shape) == 2:
            pixels = pixels[:, None]
        elif len(self._shape) == 4:
            pixels = rearrange(pixels, "t f row column c -> t (f c) row column")
        elif not self._is_first:
            pixels = rearrange(pixels, "t row column c -> t c row column")
        _, rows, columns = self.size
        missing = [(0, have * self.side - side) for have, side in zip(self.grid, (rows, columns), strict=True)]
        if any(after for _, after in missing):
            pixels = np.pad(pixels, [(0, 0), (0, 0), *missing])
        if self.stem is not None:
            pixels = rearrange(pixels, "t c row column -> (t row column) c")
        else:
            pattern = "t c (row p) (column q) -> (t row column) (c p q)"
            pixels = rearrange(pixels, pattern, p=self.side, q=self.side)
        content = pixels.astype(np.float32)
        content /= 127.5
        content -= 1
        return torch.from_numpy(content)

    def decode(self, tokens: TokenSet) -> np.ndarray:
        content = tokens.content.detach().float().cpu().numpy()
        (rows, columns), side = self.grid, self.side
        if self.stem is not None:
            sides = {"row": rows * side, "column": columns * side}
            pixels = rearrange(content, "(t row column) c -> t c row column", **sides)
        else:
            pattern = "(t row column) (c p q) -> t c (row p) (column q)"
            pixels = rearrange(content, pattern, row=rows, column=columns, p=side, q=side)
        pixels = np.clip(np.round((pixels + 1) * 127.5), 0, 255).astype(np.uint8)
        pixels = pixels[:, :, : self.size[1], : self.size[2]]
        if len(self._shape) == 4:
            pixels = rearrange(pixels, "t (f c) row column -> t f row column c", f=self._shape[0])
        elif len(self._shape) == 3 and not self._is_first:
            pixels = rearrange(pixels, "t c row column -> t row column c")
        return pixels.reshape(-1, *self._shape)

    def show(self, tokens: TokenSet) -> np.ndarray:
        """The frames side by side; of several in one step the last."""
        values = self.decode(tokens)
        if len(self._shape) == 4:
            values = values[:, -1]
        elif len(self._shape) == 3 and self._is_first:
            values = rearrange(values, "t c row column -> t row column c")
        pictures = values.reshape(len(values), *self.size[1:], -1)[..., :3]
        if pictures.shape[-1] < 3:
            pictures = pictures[..., :1].repeat(3, -1)
        return rearrange(pictures, "t row column c -> row (t column) c")

    def pieces(self, tokens: TokenSet) -> None:
        return None

    def check(self, values: np.ndarray, place: str) -> None:
        if np.asarray(values).dtype != np.uint8:
            check_box(values, np.array([[0.0], [255.0]]).repeat(self.n_values, 1), place)

    def lift(self, d_model: int) -> nn.Module:
        channels = self.size[0]
        if self.stem is None:
            return Projection(channels * self.side**2, d_model)
        return FrameLift(self, d_model)


class FrameLift(ConvLift):
    """The convolutions of a stem on all frames at once, which are of one size."""

    def __init__(self, frames: Frames, d_model: int) -> None:
        super().__init__(frames.stem, frames.size[0], d_model, n_halvings=int(math.log2(frames.side)))
        self.sides = tuple(side * frames.side for side in frames.grid)

    def forward(self, content: Tensor, extents: Sequence[tuple[int, ...]] = ()) -> Tensor:
        """content: (total pixels, c) float. Returns (total tokens, d)."""
        return self._convolve(content, *self.sides)
