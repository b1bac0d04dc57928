"""Reading of pictures: files, bytes, PIL images and arrays become tensors.

Every picture of a record is read by `open_image`, which refuses what is none, is damaged or is too large.
"""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from anyformer.data.files import read_file
from anyformer.data.values import is_json, parse_json, to_array
from anyformer.errors import InputError

MAX_PIXELS = 64_000_000
"""A file whose header says more is refused before it is decoded: a few bytes can ask for gigabytes."""

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000", "QOI", "ICO", "PSD")
"""Formats that are tried, whose files all begin with what they are. Pillow knows more, among them some that start other
programs."""


def open_image(picture: Any, channels: int = 3) -> Tensor:
    """Read a picture.

    picture: a path (also into a zip), the bytes of a file, `{"bytes": ..., "path": ...}` as tables hold them, a PIL
        image, or an array or tensor (rows, columns), (rows, columns, 1 | 3 | 4) or (1 | 3 | 4, rows, columns): uint8,
        uint16, or float from 0 to 1. Where the shape may be either, a tensor has its channels first and an array last.
        The array may be lists of numbers, from 0 to 255 where they are whole, or JSON of them; and a square of grey may
        be its pixels in a row, also as columns of a table.
    channels: 1 for grey, 3 for colour; what comes in is converted.
    Returns (channels, rows, columns) uint8: turned upright as its EXIF data says, the first frame of an animation, 16
    bits rounded to 8, what is transparent laid over white.
    Raises InputError that names the file and the reason: no picture, truncated, more than `MAX_PIXELS`.
    """
    picture = _unpack(picture)
    if isinstance(picture, np.ndarray):
        return _from_array(picture, channels)
    image, name = _open(picture)
    try:
        return _from_array(_pixels(image, channels), channels)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def image_size(picture: Any) -> tuple[int, int]:
    """Rows and columns of a picture, from its header; of a file before it is turned upright."""
    picture = _unpack(picture)
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


def _unpack(picture: Any) -> Any:
    """The picture, as an array where it is numbers."""
    if isinstance(picture, np.ndarray | Tensor):
        return _channels_last(picture)
    picture = parse_json(picture) if is_json(picture) else picture
    if isinstance(picture, Mapping) and picture.keys() & {"bytes", "path"}:
        return picture
    if not isinstance(picture, Mapping | list | tuple):
        return picture
    array = to_array(picture, "a picture")
    if array.ndim == 1:
        side = math.isqrt(len(array))
        if side**2 != len(array):
            raise InputError(
                f"{len(array)} numbers in a row are no square of grey pixels; give the picture as lists of rows"
            )
        array = array.reshape(side, side)
    if array.dtype.kind == "i":
        if array.min() < 0 or array.max() > 255:
            raise InputError(
                f"whole numbers of a picture must lie between 0 and 255, got {array.min()} to {array.max()}"
            )
        array = array.astype(np.uint8)
    return array


def _channels_last(picture: np.ndarray | Tensor) -> np.ndarray:
    array = picture
    if isinstance(picture, Tensor):
        # numpy knows no bfloat16.
        array = (picture.float() if picture.is_floating_point() else picture).detach().cpu().numpy()
    first, last = (array.ndim == 3 and array.shape[axis] in (1, 3, 4) for axis in (0, 2))
    return np.moveaxis(array, 0, 2) if first and (isinstance(picture, Tensor) or not last) else array


def _open(picture: Any) -> tuple[Image.Image, str]:
    """A PIL image whose header has been read, and what to call it."""
    if isinstance(picture, Mapping):
        name = picture.get("path") or "picture"
        picture = picture["bytes"] if picture.get("bytes") is not None else name
    else:
        name = str(picture) if isinstance(picture, str | Path) else "picture"
    if isinstance(picture, str | Path):
        picture = read_file(picture)
    if isinstance(picture, bytes):
        picture = _open_header(io.BytesIO(picture), name)
    if not isinstance(picture, Image.Image):
        raise InputError(
            f"a picture must be a path, bytes, a PIL image, an array or lists of numbers, got {type(picture).__name__}"
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
