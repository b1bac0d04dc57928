"""Moving pictures as tokens: tubelets, which are squares of a few frames one behind the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from anyformer.data.files import read_file
from anyformer.data.values import is_json, is_missing, parse_json, to_number
from anyformer.errors import InputError
from anyformer.model.lifts import Projection
from anyformer.tokenizers.arrays import ARRAYS, array_shape, read_array
from anyformer.tokenizers.film import FORMATS, Clip, Film
from anyformer.tokenizers.image.augmentation import Augmentation
from anyformer.tokenizers.image.patches import check_channels
from anyformer.tokenizers.image.reading import open_image
from anyformer.tokens import Tokenizer, TokenSet

A_CLIP = "a clip must be (frames, rows, columns, channels), a list of pictures or a file"


@dataclass(frozen=True)
class Video(Tokenizer):
    """Cuts a clip into tubelets of `tubelet` frames by patch x patch pixels (Arnab et al. 2021, "ViViT", 3.2):
    one token each, at (time, row, column).

    A record is an array, (frames, rows, columns) or (frames, rows, columns, channels), or a list of pictures; the name
    of a .npy, .npz, .gif or video file; or {"bytes": ..., "path": ...} of a .gif or video file as tables hold them,
    where `start` and `end`, in seconds, say which part is read. A film is turned upright as it says. The content is
    (n, channels * tubelet * patch * patch), a tubelet's values ordered channel, frame, row, column.
    """

    size: tuple[int, int] = (64, 64)
    """Rows and columns that every frame is brought to, multiples of patch: by the largest part in its middle that has
    that shape."""
    frames: int | None = 16
    """Frames that are taken of each clip, a multiple of tubelet: of as many stretches of equal time the one in its
    middle, and in training any (Wang et al. 2016, "Temporal Segment Networks", 3.1). null: all, at whatever times they
    are, the last one again until the last tubelet is full."""
    patch: int = 16
    """Side of the square that a token stands for."""
    tubelet: int = 2
    """Frames that it stands for."""
    channels: int = 3
    """1: grey. 3: colour."""
    mean: tuple[float, ...] = (0.5,)
    """Taken from the pixels, which run from 0 to 1; one number, or one a channel."""
    std: tuple[float, ...] = (0.5,)
    """What they are then divided by."""
    augment: Augmentation | None = None
    """What is drawn for a clip in training, the same for all its frames; of colours nothing."""

    axes: ClassVar[tuple[str, ...]] = ("time", "row", "column")
    endings: ClassVar[tuple[str, ...]] = ARRAYS + tuple(FORMATS)

    def __post_init__(self) -> None:
        for name in ("size", "mean", "std"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("patch", "tubelet"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        check_channels(self.channels, self.mean, self.std)
        if min(self.size) < 1 or any(side % self.patch for side in self.size):
            raise InputError(f"size must be multiples of patch={self.patch}, got {self.size}")
        if self.frames is not None and (self.frames < 1 or self.frames % self.tubelet):
            raise InputError(f"frames must be a multiple of tubelet={self.tubelet}, got {self.frames}")
        if self.augment is not None and (self.augment.policy is not None or self.augment.jitter):
            raise InputError("augment.policy and augment.jitter recolour single pictures; leave them out for clips")
        if self.augment is not None and self.augment.crop >= min(self.size):
            raise InputError(f"augment.crop must be less than the sides of size={self.size}, got {self.augment.crop}")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tubelets."""
        return self.size[0] // self.patch, self.size[1] // self.patch

    @property
    def sizes(self) -> dict[str, int]:
        times = {} if self.frames is None else {"time": self.frames // self.tubelet}
        return times | {"row": self.grid[0], "column": self.grid[1]}

    @property
    def augments(self) -> bool:
        """Of a number of frames others are taken each time."""
        return self.augment is not None or self.frames is not None

    def encode(self, record: Any, random: np.random.Generator | None = None) -> TokenSet:
        """record: see the class. Raises InputError for what is no clip, or has no frame."""
        augment = self.augment if random is not None else None
        # As one picture of many channels, so that what is drawn is the same for all frames.
        image = torch.cat(list(self._frames(record, augment, random)))
        t = len(image) // self.channels
        if augment is not None:
            image = augment.move(image, random)
        pixels = image.float().unflatten(0, (t, self.channels)) / 255
        mean, std = self._scaling
        pixels = (pixels - mean) / std
        if augment is not None:
            pixels = augment.blot(pixels.flatten(0, 1), random).unflatten(0, (t, self.channels))
        pattern = "(t f) c (row p) (column q) -> (t row column) (c f p q)"
        content = rearrange(pixels, pattern, f=self.tubelet, p=self.patch, q=self.patch)
        places = np.indices((t // self.tubelet, *self.grid)).reshape(3, -1).T
        extent = (t // self.tubelet, *self.grid)
        return TokenSet(content, torch.from_numpy(np.ascontiguousarray(places)), extent=extent)

    def _frames(
        self, record: Any, augment: Augmentation | None, random: np.random.Generator | None
    ) -> Iterator[Tensor]:
        """The frames that are taken, one by one: (channels, *size)."""
        clip = _open(record)
        window = shape = None
        for frame in clip.take(self._choose(clip, random)):
            image = open_image(frame, self.channels)
            if shape is None:
                shape = image.shape
                window = None if augment is None else augment.window(*shape[1:], random)
            elif image.shape != shape:
                before, now = (f"{rows} x {columns}" for _, rows, columns in (shape, image.shape))
                raise InputError(f"the frames of a clip must be of one size, and after {before} pixels come {now}")
            yield self._fit(image, window)

    def _choose(self, clip: Clip, random: np.random.Generator | None) -> np.ndarray:
        """Which frames of a clip are taken, in their sequence; a short clip's several times."""
        n = len(clip)
        if self.frames is None:
            return np.minimum(np.arange(-(-n // self.tubelet) * self.tubelet), n - 1)
        within = np.full(self.frames, 0.5) if random is None else random.random(self.frames)
        return clip.shown_at(np.arange(self.frames) + within, self.frames)

    def _fit(self, image: Tensor, window: tuple[int, int, int, int] | None) -> Tensor:
        """A part of the picture, the largest in its middle where none is given, on the grid: (c, rows, columns)."""
        if window is None:
            rows, columns = image.shape[1:]
            ratio = min(rows / self.size[0], columns / self.size[1])
            height, width = (max(round(ratio * side), 1) for side in self.size)
            window = (rows - height) // 2, (columns - width) // 2, height, width
        top, left, height, width = window
        image = image[:, top : top + height, left : left + width]
        if image.shape[1:] == self.size:
            return image
        return F.interpolate(image[None], self.size, mode="bilinear", antialias=True)[0]

    def decode(self, tokens: TokenSet) -> np.ndarray:
        """The frames that were taken, (frames, rows, columns, channels) uint8."""
        (rows, columns), mean_std = self.grid, self._scaling
        pattern = "(t row column) (c f p q) -> (t f) c (row p) (column q)"
        sides = {"row": rows, "column": columns, "p": self.patch, "q": self.patch, "f": self.tubelet}
        pixels = rearrange(tokens.content, pattern, **sides) * mean_std[1] + mean_std[0]
        pixels = (pixels * 255).round().clamp(0, 255).to(torch.uint8)
        return rearrange(pixels, "t c row column -> t row column c").numpy()

    def show(self, tokens: TokenSet) -> np.ndarray:
        """The frames side by side."""
        frames = np.broadcast_to(self.decode(tokens), (len(tokens) // np.prod(self.grid) * self.tubelet, *self.size, 3))
        return rearrange(frames, "t row column c -> row (t column) c")

    def count(self, record: Any) -> int:
        frames = self.frames
        if frames is None:
            is_array = isinstance(record, str) and record.lower().endswith(ARRAYS)
            frames = _check_shape(array_shape(record))[0] if is_array else len(_open(record))
        return -(-frames // self.tubelet) * self.grid[0] * self.grid[1]

    def empty(self) -> TokenSet:
        d_content = self.channels * self.tubelet * self.patch**2
        return TokenSet(torch.zeros(0, d_content), torch.zeros(0, 3, dtype=torch.int64), extent=(0, *self.grid))

    def lift(self, d_model: int) -> nn.Module:
        return Projection(self.channels * self.tubelet * self.patch**2, d_model)

    @property
    def _scaling(self) -> tuple[Tensor, Tensor]:
        mean, std = (torch.tensor(part, dtype=torch.float32)[:, None, None] for part in (self.mean, self.std))
        return mean, std


def _open(record: Any) -> Clip:
    """A clip out of whatever holds it."""
    content, start, end = None, 0.0, None
    record = parse_json(record) if is_json(record) else record
    if isinstance(record, Mapping) and record.keys() & {"bytes", "path"}:
        if not is_missing(record.get("start")):
            start = to_number(record["start"], "start")
        if not is_missing(record.get("end")):
            end = to_number(record["end"], "end")
        content, record = record.get("bytes"), record.get("path") or ""
        if (start or end is not None) and record.lower().endswith(ARRAYS):
            raise InputError(f"{record}: an array has no times, and so no part from start to end; cut it first")
    if isinstance(record, str) and record.lower().endswith(ARRAYS):
        if content is not None:
            raise InputError(f"{record}: an array is read from its file, and not from bytes; give the path alone")
        record = read_array(record)
    elif isinstance(record, str):
        if not record.lower().endswith(tuple(FORMATS)):
            raise InputError(f"{record or 'bytes without a name'}: a clip must end in {', '.join((*ARRAYS, *FORMATS))}")
        clip = Film(read_file(record) if content is None else content, record, start, end)
        if not len(clip):
            raise InputError(f"{record}: a clip needs at least one frame")
        return clip
    if isinstance(record, Tensor):
        record = record.numpy()
    if not isinstance(record, list | tuple | np.ndarray):
        raise InputError(f"{A_CLIP}, got {type(record).__name__}")
    _check_shape(record.shape if isinstance(record, np.ndarray) else (len(record), 1, 1))
    return Clip(record)


def _check_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) not in (3, 4):
        raise InputError(f"{A_CLIP}, got an array {shape}")
    if not shape[0]:
        raise InputError("a clip needs at least one frame")
    return shape
