"""Pictures of idx files, and scikit-learn's digits."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from anyformer.data.files import find_file, read_file, read_unpacked
from anyformer.data.source import Source, Subset
from anyformer.data.splits import split
from anyformer.errors import InputError


@dataclass(frozen=True)
class Idx(Source):
    """Pictures in the idx format of MNIST and its family, `.gz` or not.

    Columns: image, (rows, columns) uint8; label, its class's name. Raises InputError for files that are missing, cut
    off, of another format, or of different numbers of pictures and labels.
    """

    images: str
    """The file of pictures, `train-images-idx3-ubyte.gz`: from the current folder, else inside $ANYFORMER_DATA."""
    labels: str | None = None
    """The file of labels, `train-labels-idx1-ubyte.gz`. Without it there are pictures alone, which can be predicted."""
    classes: str | None = None
    """A text file with the name of a class a line; their numbers if left out."""
    rows: tuple[int, int] | None = None
    """First picture, and the one after the last."""

    def __len__(self) -> int:
        start, stop = self._range
        return stop - start

    def __getitem__(self, i: int) -> dict[str, Any]:
        number = self._range[0] + range(len(self))[i]
        label = {} if self.labels is None else {"label": self._labels[number]}
        return {"image": self._images[number], **label}

    def name(self, i: int) -> str:
        return f"{self.images} picture {self._range[0] + i}"

    def _at(self, place: str, needed: Collection[str]) -> Idx | None:
        """The labels are those of the file beside it that is named as in every set of the family, if it is there."""
        if not read_unpacked(find_file(place)).startswith(_magic(3)):
            return None
        folder, file = os.path.split(place)
        beside = os.path.join(folder, file.replace("images", "labels").replace("idx3", "idx1"))
        try:
            labels = beside if beside != place and find_file(beside) else None
        except InputError:
            labels = None
        return replace(self, images=place, labels=labels, rows=None)

    def read_from(self) -> list[str]:
        return [find_file(file) for file in (self.images, self.labels) if file is not None]

    @cached_property
    def _images(self) -> np.ndarray:
        return _read_idx(find_file(self.images), 3)

    @cached_property
    def _labels(self) -> list[str]:
        numbers = _read_idx(find_file(self.labels), 1)  # type: ignore[arg-type]
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
        n = len(self._images if self.labels is None else self._labels)
        start, stop = self.rows or (0, n)
        if not 0 <= start < stop <= n:
            raise InputError(f"{self.images}: rows {start} to {stop} were asked for, the file has pictures 0 to {n}")
        return start, stop


def _magic(axes: int) -> bytes:
    """What a file begins with, before the length of each axis: two zeros, the code of unsigned bytes, how many axes."""
    return bytes([0, 0, 8, axes])


def _read_idx(path: str, axes: int) -> np.ndarray:
    """An array of bytes with so many axes, in memory once however many parts of it are used."""
    return _read_idx_once(path, axes, os.stat(path).st_mtime_ns)


@lru_cache(maxsize=4)
def _read_idx_once(path: str, axes: int, changed: int) -> np.ndarray:
    content = read_unpacked(path)
    if not content.startswith(_magic(axes)) or len(content) < 4 * (1 + axes):
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


PARTS = ("train", "validation")
HELD_OUT = 0.2
"""The share of the digits, of each label, that only validation has."""


@lru_cache(maxsize=len(PARTS))
def digits_of(part: str) -> tuple[Subset, dict[str, np.ndarray]]:
    """The digits of one of the `PARTS`, and by label the numbers of its records among them."""
    left, held_out = split(Digits(), {"validation": HELD_OUT}, stratify="label")
    digits = {"train": left, **held_out}[part]
    labels = np.array(digits.column("label"))
    return digits, {str(label): np.flatnonzero(labels == label) for label in np.unique(labels)}


@lru_cache(maxsize=1)
def _digits() -> tuple[np.ndarray, list[str]]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    # The scans count 0 to 16 black pixels of 4 x 4.
    return (digits.images * (255 / 16)).round().astype(np.uint8), [str(label) for label in digits.target]
