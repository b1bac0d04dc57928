"""Pictures: the one door through which they come in, and sources of them.

`open_image` makes a tensor of anything that is a picture, or says why it is none.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import struct
import warnings
import zlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from anyformer.data.files import find_file, read_file
from anyformer.data.source import Source
from anyformer.errors import InputError

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
        _check_shape(picture.shape)
        return picture.shape[0], picture.shape[1]
    if isinstance(picture, str | Path) and os.path.isfile(picture):
        # Its header alone is read.
        with open(picture, "rb") as file:
            image = _open_header(file, str(picture))
            _check_pixels(image, str(picture))
            return image.height, image.width
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
        picture = _open_header(io.BytesIO(picture), name)
    if not isinstance(picture, Image.Image):
        raise InputError(
            f"a picture must be a path, bytes, a PIL image or an array, got {type(picture).__name__}; "
            "a list of numbers becomes one by numpy.asarray(..., dtype='uint8')"
        )
    _check_pixels(picture, name)
    return picture, name


def _check_pixels(image: Image.Image, name: str) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise InputError(
            f"{name}: the header says {image.height:,} x {image.width:,} pixels, more than {MAX_PIXELS:,}; not decoded"
        )


def _open_header(file: IO[bytes], name: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # Pillow warns of large pictures; the limit is ours.
            warnings.simplefilter("ignore")
            return Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError:
        raise InputError(f"{name}: the header says more than {MAX_PIXELS:,} pixels; not decoded") from None
    except Exception:
        # Besides its own error Pillow lets through whatever a broken header makes its parsers raise.
        raise InputError(f"{name}: not a picture that can be read ({', '.join(FORMATS)})") from None


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


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3, 4)) or 0 in shape:
        raise InputError(f"an array must be (rows, columns) or (rows, columns, 1, 3 or 4) to be a picture, got {shape}")


def _from_array(array: np.ndarray, channels: int) -> Tensor:
    """(rows, columns) or (rows, columns, 1 | 3 | 4) of any range that is clear: (channels, rows, columns) uint8."""
    _check_shape(array.shape)
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
class Idx(Source):
    """Pictures in the idx format of MNIST and its family, `.gz` or not.

    Columns: image, (rows, columns) uint8; label, its class's name. Raises InputError for files that are missing, cut
    off, of another format, or of different numbers of pictures and labels.
    """

    images: str
    """The file of pictures, `train-images-idx3-ubyte.gz`: from the current folder, else inside $ANYFORMER_DATA."""
    labels: str
    """The file of labels, `train-labels-idx1-ubyte.gz`."""
    classes: str | None = None
    """A text file with the name of a class a line; their numbers if left out."""
    rows: tuple[int, int] | None = None
    """First picture, and the one after the last."""

    def __len__(self) -> int:
        start, stop = self._range
        return stop - start

    def __getitem__(self, i: int) -> dict[str, Any]:
        number = self._range[0] + range(len(self))[i]
        return {"image": self._images[number], "label": self._labels[number]}

    def name(self, i: int) -> str:
        return f"{self.images} picture {self._range[0] + i}"

    @cached_property
    def _images(self) -> np.ndarray:
        return _read_idx(find_file(self.images), 3)

    @cached_property
    def _labels(self) -> list[str]:
        numbers = _read_idx(find_file(self.labels), 1)
        if len(numbers) != len(self._images):
            raise InputError(
                f"{self.labels} holds {len(numbers)} labels for the {len(self._images)} pictures of {self.images}; "
                "give the two files of one set"
            )
        if self.classes is None:
            return [str(number) for number in numbers.tolist()]
        names = read_file(find_file(self.classes)).decode("utf-8", "replace").splitlines()
        if len(numbers) and numbers.max() >= len(names):
            raise InputError(f"{self.classes} has {len(names)} names, but {self.labels} has the class {numbers.max()}")
        return [names[number] for number in numbers.tolist()]

    @cached_property
    def _range(self) -> tuple[int, int]:
        n = len(self._labels)
        start, stop = self.rows or (0, n)
        if not 0 <= start < stop <= n:
            raise InputError(f"{self.images}: rows {start} to {stop} were asked for, the file has pictures 0 to {n}")
        return start, stop


def _read_idx(path: str, axes: int) -> np.ndarray:
    """An array of bytes with so many axes, in memory once however many parts of it are used."""
    return _read_idx_once(path, axes, os.stat(path).st_mtime_ns)


@lru_cache(maxsize=4)
def _read_idx_once(path: str, axes: int, changed: int) -> np.ndarray:
    content = read_file(path)
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path}: damaged or truncated: {error}") from None
    # Two zeros, the code of unsigned bytes, the number of axes; then the length of each axis.
    if content[:4] != bytes([0, 0, 8, axes]) or len(content) < 4 * (1 + axes):
        raise InputError(f"{path}: must be an idx file of bytes with {axes} axes, which begins with 0 0 8 {axes}")
    shape = struct.unpack(f">{axes}I", content[4 : 4 * (1 + axes)])
    array = np.frombuffer(content, np.uint8, offset=4 * (1 + axes))
    if len(array) != math.prod(shape):
        raise InputError(f"{path}: the header says {' x '.join(map(str, shape))} bytes, and {len(array)} follow")
    return array.reshape(shape)


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
