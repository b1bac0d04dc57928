"""Pictures: one door through which they come in, and patches of them as tokens.

`open_image` makes a tensor of anything that is a picture, or says why it is none. `ImagePatches` cuts it into squares,
lifted by a linear map (Dosovitskiy et al. 2021) or by a convolution stem (Compact Transformers, Hassani et al. 2021).
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image, ImageOps
from torch import Tensor, nn

from anyformer.data import Source, read_file
from anyformer.embeddings import Projection
from anyformer.errors import InputError
from anyformer.tokens import Tokenizer, TokenSet

MAX_PIXELS = 64_000_000
"""A file whose header says more is refused before it is decoded: a few bytes can ask for gigabytes."""

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
"""Formats that are tried. Pillow knows more, among them some that start other programs."""


def open_image(picture: Any, channels: int = 3) -> Tensor:
    """The one door for pictures.

    picture: a path (also into a zip), the bytes of a file, `{"bytes": ..., "path": ...}` as tables hold them, a PIL
        image, or an array (rows, columns) or (rows, columns, 1 | 3 | 4): uint8, uint16, or float from 0 to 1.
    channels: 1 for grey, 3 for colour; what comes in is converted.
    Returns (channels, rows, columns) uint8: turned upright as its EXIF data says, the first frame of an animation, 16
    bits rounded to 8, what is transparent laid over white.
    Raises InputError that names the file and the reason: no picture, truncated, more than `MAX_PIXELS`.
    """
    if isinstance(picture, np.ndarray):
        return _from_array(picture, channels)
    image, name = _open(picture)
    try:
        return _from_array(_pixels(image, channels), channels)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def image_size(picture: Any) -> tuple[int, int]:
    """Rows and columns of a picture, from its header; of a file before it is turned upright."""
    if isinstance(picture, np.ndarray):
        return picture.shape[0], picture.shape[1]
    image, _ = _open(picture)
    return image.height, image.width


def _open(picture: Any) -> tuple[Image.Image, str]:
    """A PIL image whose header has been read, and what to call it."""
    if isinstance(picture, dict) and "bytes" in picture:
        name = picture.get("path") or "picture"
        picture = picture["bytes"] if picture["bytes"] is not None else name
    else:
        name = str(picture) if isinstance(picture, str | Path) else "picture"
    if isinstance(picture, str | Path):
        picture = read_file(picture)
    if isinstance(picture, bytes):
        try:
            with warnings.catch_warnings():
                # Pillow warns of large pictures; the limit below is ours.
                warnings.simplefilter("ignore")
                picture = Image.open(io.BytesIO(picture), formats=FORMATS)
        except Image.DecompressionBombError:
            raise InputError(f"{name}: the header says more than {MAX_PIXELS:,} pixels; not decoded") from None
        except Exception:
            # Besides its own error Pillow lets through whatever a broken header makes its parsers raise.
            raise InputError(f"{name}: not a picture that can be read ({', '.join(FORMATS)})") from None
    if not isinstance(picture, Image.Image):
        raise InputError(
            f"a picture must be a path, bytes, a PIL image or an array, got {type(picture).__name__}; "
            "a list of numbers becomes one by numpy.asarray(..., dtype='uint8')"
        )
    if picture.width * picture.height > MAX_PIXELS:
        raise InputError(
            f"{name}: the header says {picture.height:,} x {picture.width:,} pixels, more than {MAX_PIXELS:,}; "
            "not decoded"
        )
    return picture, name


def _pixels(image: Image.Image, channels: int) -> np.ndarray:
    """Decode: (rows, columns, channels) or (rows, columns)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I"):
                return _to_uint16(np.asarray(image))
            if image.mode == "F":
                return np.asarray(image)
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return np.asarray(image.convert("L" if channels == 1 else "RGB"))
    except InputError:
        raise
    except Exception as error:
        # Decoders raise OSError, SyntaxError, ValueError, struct.error, ... for a damaged file.
        raise InputError(f"damaged or truncated: {error}") from None


def _to_uint16(array: np.ndarray) -> np.ndarray:
    """What Pillow hands out of a file of 16 bits, some formats' as int32."""
    low, high = array.min(), array.max()
    if low < 0 or high > 65535:
        raise InputError(f"levels must lie between 0 and 65535, got {low} to {high}; save it with 8 or 16 bits")
    return array.astype(np.uint16)


def _from_array(array: np.ndarray, channels: int) -> Tensor:
    """(rows, columns) or (rows, columns, 1 | 3 | 4) of any range that is clear: (channels, rows, columns) uint8."""
    shape = array.shape
    if array.ndim not in (2, 3) or (array.ndim == 3 and shape[2] not in (1, 3, 4)) or 0 in shape:
        raise InputError(f"an array must be (rows, columns) or (rows, columns, 1, 3 or 4) to be a picture, got {shape}")
    if array.dtype != np.uint8:
        array = _to_bytes(array)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.shape[2] == 4:
        alpha = array[:, :, 3:].astype(np.float32) / 255
        array = (array[:, :, :3] * alpha + 255 * (1 - alpha)).round().astype(np.uint8)
    if not (array.flags.writeable and array.flags.c_contiguous):
        array = np.array(array, order="C")
    image = torch.from_numpy(array).permute(2, 0, 1)  # (c, rows, columns)
    if len(image) == channels:
        return image
    if channels == 3:
        return image.expand(3, -1, -1)
    # ITU-R 601-2, in Pillow's integers, so that a file and its array give the same grey.
    weights = torch.tensor([19595, 38470, 7471], dtype=torch.int32)[:, None, None]
    return ((image.int() * weights).sum(0, keepdim=True) + 0x8000 >> 16).to(torch.uint8)


def _to_bytes(array: np.ndarray) -> np.ndarray:
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    low, high = array.min(), array.max()
    if array.dtype.kind == "f":
        # Written so that NaN fails too.
        if not (low >= 0 and high <= 1):
            raise InputError(
                f"a picture of floats must lie between 0 and 1, got {low:g} to {high:g}; scale it, or use uint8"
            )
        return (array * 255).round().astype(np.uint8)
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return ((array.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    raise InputError(
        f"a picture must hold uint8, uint16 or floats from 0 to 1, got {array.dtype} from {low} to {high}; "
        "if 255 is white, convert it by array.astype('uint8')"
    )


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


@dataclass(frozen=True)
class Digits(Source):
    """The 1,797 handwritten digits that ship with scikit-learn, real scans of 8 x 8 pixels.

    Columns: image, (8, 8) uint8, white on black; label, "0" to "9". From the Optical Recognition of Handwritten Digits
    set of the UCI repository (Alpaydin and Kaynak 1998).
    """

    def __len__(self) -> int:
        return len(_digits()[1])

    def __getitem__(self, i: int) -> dict[str, Any]:
        images, labels = _digits()
        return {"image": images[i], "label": labels[i]}

    def name(self, i: int) -> str:
        return f"digits row {i}"


@lru_cache(maxsize=1)
def _digits() -> tuple[np.ndarray, list[str]]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    # The scans count 0 to 16 black pixels of 4 x 4.
    return (digits.images * (255 / 16)).round().astype(np.uint8), [str(label) for label in digits.target]
