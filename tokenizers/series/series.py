"""Time series of sensors as tokens: channels over time, at a rate or with time stamps, with values missing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from anyformer.data.moments import Moments
from anyformer.errors import InputError
from anyformer.model.lifts import Projection
from anyformer.tokenizers.arrays import ARRAYS, COLUMNS, array_shape
from anyformer.tokenizers.series.augmentation import SeriesAugmentation
from anyformer.tokenizers.series.channels import (
    UNKNOWN,
    UNNAMED,
    Channels,
    arrange,
    check_shape,
    check_times,
    count_steps,
    read_channels,
    wrong_number,
)
from anyformer.tokens import Tokenizer, TokenSet


@dataclass(frozen=True)
class Series(Tokenizer):
    """Cuts channels over time into tokens of `width` steps each, one after another on the axis `time`.

    A record is an array or lists, (channels, steps) or (steps,); a dict of channels by name, as several columns of a
    table give it; JSON of these; or the name of a .npy, .npz, .csv or .tsv file (a column a channel). A missing value
    is NaN or None, and so may a channel with a name be, which may also be left out; in which sequence names stand
    changes nothing. The content is (n, features) float32: of each channel the standardised values, 0 where missing,
    and of each value whether it is there; where the last token is not filled, nothing is there. With time stamps and
    more than one step a token, the time since the token's first step as well.

    Positions are the tokens' numbers; with `rate` or `times` they are times, float32 in `unit`, for which positions
    must be sinusoidal or rotary.
    """

    width: int = 1
    """Steps that a token stands for."""
    channels: int | None = None
    """How many there are; as the training records have, when left out."""
    times: str | None = None
    """The name of the time stamps among the channels of a record, where it has them: numbers that rise."""
    rate: float | None = None
    """Steps a second, where steps are even and several fields stand beside each other in time: with the same `unit`,
    as each would count its own tokens."""
    unit: float | None = None
    """The time that is 1 on the axis; that from one token to the next, on the average, when left out."""
    time_first: bool = False
    """Whether arrays are (steps, channels)."""
    normalize: bool = True
    """Whether each channel has its mean taken off and is divided by its standard deviation, as the data has them."""
    max_steps: int | None = None
    """How many steps a learned table of positions reaches; the longest training record when left out."""
    augment: SeriesAugmentation | None = None
    """What is drawn for a series in training."""
    mean: tuple[float, ...] | None = None
    """What `fit` has learnt: the mean of each channel."""
    std: tuple[float, ...] | None = None
    """The standard deviations; 1 for what never changes."""
    names: tuple[str, ...] | None = None
    """Of each channel its name, where records have names: as the training records have them, when left out. Several
    channels that come as one array by one name have the same. An array has its channels in this sequence."""

    axes: ClassVar[tuple[str, ...]] = ("time",)
    endings: ClassVar[tuple[str, ...]] = ARRAYS + COLUMNS

    def __post_init__(self) -> None:
        for name in ("mean", "std", "names"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.names is not None and self.channels is None:
            object.__setattr__(self, "channels", len(self.names))
        for name in ("width", "channels", "max_steps"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("rate", "unit"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.times is not None and self.rate is not None:
            raise InputError("times and rate both say when the steps are; leave one of them out")
        if self.unit is not None and not self.is_timed:
            raise InputError("unit is of time, which times or rate tell; give one of them, or leave unit out")
        for name in ("mean", "std", "names"):
            given, what = getattr(self, name), "names" if name == "names" else "numbers"
            if given is not None and self.channels is not None and len(given) != self.channels:
                raise InputError(f"{name} must have {self.channels} {what}, one for each channel, got {len(given)}")
        if self.names is not None and self.times in self.names:
            raise InputError(f"names: {self.times!r} are the times, and no channel; leave it out")
        if self.std is not None and min(self.std) <= 0:
            raise InputError(f"std must be above 0, got {min(self.std)}")

    @property
    def is_timed(self) -> bool:
        """Whether positions are times, and not the numbers of the tokens."""
        return self.times is not None or self.rate is not None

    @property
    def has_offsets(self) -> bool:
        """Whether the content says when each step is within its token."""
        return self.times is not None and self.width > 1

    @property
    def sizes(self) -> dict[str, int]:
        return {} if self.is_timed or self.max_steps is None else {"time": -(-self.max_steps // self.width)}

    @property
    def n_channels(self) -> int:
        """Raises InputError while it is not known."""
        if self.channels is None:
            raise InputError(UNKNOWN)
        return self.channels

    @property
    def d_content(self) -> int:
        """Numbers of a token: values, whether they are there, and perhaps when."""
        return self.width * (2 * self.n_channels + self.has_offsets)

    def encode(self, record: Any, random: np.random.Generator | None = None) -> TokenSet:
        """record: see the class. Raises InputError for other channels, text, infinity, or times that do not rise."""
        values, times = self._read(record)
        augment = self.augment if random is not None else None
        if augment is not None:
            kept = augment.cut(values.shape[1], random)
            values, times = values[:, kept], None if times is None else times[kept]
        mean, std = self._scaling
        values = (values - mean) / std
        if augment is not None:
            values = augment.change(values, random)
        there = ~np.isnan(values)
        parts = [np.where(there, values, 0), there]
        first = None if times is None else times[:: self.width]
        if self.has_offsets:
            parts.append(((times - first.repeat(self.width)[: len(times)]) / self._unit)[None])
        steps = np.concatenate(parts).astype(np.float32)
        n = -(-steps.shape[1] // self.width)
        steps = np.pad(steps, [(0, 0), (0, n * self.width - steps.shape[1])])
        content = steps.reshape(len(steps), n, self.width).swapaxes(0, 1).reshape(n, -1)
        return TokenSet(torch.from_numpy(content), self._position(n, first))

    def _position(self, n: int, first: np.ndarray | None) -> Tensor:
        """first: (n,) the time of each token's first step."""
        if first is None:
            return torch.arange(n)[:, None]
        position = (first / self._unit).astype(np.float32)
        if (np.diff(position) <= 0).any():
            raise InputError(
                f"times from {first[0]:g} on are too large to tell steps of {self._unit:g} apart in float32; "
                "take the time of the beginning off them"
            )
        return torch.from_numpy(position)[:, None]

    def decode(self, tokens: TokenSet) -> np.ndarray | dict[str, np.ndarray]:
        """What `encode` takes, float64 and NaN where missing: an array, (channels, steps), or (steps, channels) with
        `time_first`; with `times` a dict of the time stamps and the channels by name, `values` where they have none.

        Steps at the end of the last token in which no channel is there are left out.
        """
        content = tokens.content.detach().cpu().double().numpy()
        n, c = len(content), self.n_channels
        steps = content.reshape(n, -1, self.width).swapaxes(0, 1).reshape(-1, n * self.width)
        there = steps[c : 2 * c] > 0.5
        end = n * self.width
        while end > (n - 1) * self.width + 1 and not there[:, end - 1].any():
            end -= 1
        mean, std = self._scaling
        values = np.where(there, steps[:c] * std + mean, np.nan)[:, :end]
        if self.times is None:
            return values.T if self.time_first else values
        times = tokens.position[:, 0].double().numpy().repeat(self.width)
        times = (times + steps[2 * c] if self.has_offsets else times)[:end] * self._unit
        record, first = {self.times: times}, 0
        for name, n in Counter(self.names or ["values"] * c).items():
            part = values[first : first + n]
            record[name] = part[0] if n == 1 else part.T if self.time_first else part
            first += n
        return record

    def show(self, tokens: TokenSet) -> np.ndarray:
        """The channels one above the other as curves, from -3 to 3 deviations; a grey line where a token begins."""
        n, c, height = len(tokens), self.n_channels, 32
        steps = tokens.content.numpy().reshape(n, -1, self.width).swapaxes(0, 1).reshape(-1, n * self.width)
        picture = np.full((c, height, n * self.width * 3, 3), 255, dtype=np.uint8)
        picture[:, -1], picture[:, :, :: self.width * 3] = 192, 224
        rows = np.round((1 - np.clip(steps[:c] / 3, -1, 1)) / 2 * (height - 2)).astype(int)
        for channel, step in np.argwhere(steps[c : 2 * c] > 0.5):
            row = rows[channel, step]
            before = rows[channel, step - 1] if step and steps[c + channel, step - 1] > 0.5 else row
            low, high = sorted((before, row))
            picture[channel, low : high + 1, step * 3] = picture[channel, row, step * 3 : step * 3 + 3] = (31, 119, 180)
        return picture.reshape(c * height, -1, 3)

    def count(self, record: Any) -> int:
        if isinstance(record, str) and record.lower().endswith(ARRAYS):
            shape = check_shape(array_shape(record))
            n = shape[0] if self.time_first or len(shape) == 1 else shape[-1]
        else:
            n = self._read(record)[0].shape[1]
        return -(-n // self.width)

    def empty(self) -> TokenSet:
        dtype = torch.float32 if self.is_timed else torch.int64
        return TokenSet(torch.zeros(0, self.d_content), torch.zeros(0, 1, dtype=dtype))

    def lift(self, d_model: int) -> nn.Module:
        return Projection(self.d_content, d_model)

    def fit(self, records: Iterable[Any]) -> Self:
        """A copy with the channels and their names, means and deviations, the longest record, and the unit of time."""
        is_scaled = not self.normalize or (self.mean is not None and self.std is not None)
        is_sized = self.is_timed or self.max_steps is not None
        if self.channels is not None and is_scaled and is_sized and (self.times is None or self.unit is not None):
            # All is known, but for names, if there are any: one record says whether.
            records = iter(records)
            begin = [] if self.names is not None else list(islice(records, 1))
            if all(UNNAMED in self._parts(record)[0] for record in begin):
                return self
            records = chain(begin, records)
        longest, spans = 0, []
        found: dict[str | None, Moments | None] = {}
        for record in records:
            parts, times = self._parts(record)
            if self.names is not None:
                parts = {UNNAMED: self._arrange(parts, times)}
            for name, part in parts.items():
                if part is None:
                    found.setdefault(name, None)
                    continue
                before = found.get(name)
                needed = len(before.mean) if before is not None else self.channels if name is UNNAMED else None
                if needed not in (None, len(part)):
                    raise wrong_number(name, part, needed, self.time_first)
                found[name] = before or Moments()
                found[name].add(part.T)
                longest = max(longest, part.shape[1])
            if times is not None and (first := times[:: self.width]).size > 1:
                spans.append((first[-1] - first[0], len(first) - 1))
        if not longest:
            raise InputError("there is no series to learn the channels from: the training records hold none")
        if UNNAMED in found and len(found) > 1:
            others = ", ".join(name for name in found if name != UNNAMED)
            raise InputError(f"some records have channels by name ({others}), some are arrays; give their names: [...]")
        for name, moments in found.items():
            if moments is None:
                found[name] = Moments()
                found[name].add(np.full((1, 1), np.nan))
        mean = np.concatenate([moments.mean for moments in found.values()])
        if self.channels not in (None, len(mean)):
            held = ", ".join(map(str, found))
            raise InputError(f"the records have {len(mean)} channels ({held}), and there must be {self.channels}")
        names = tuple(name for name, moments in found.items() for _ in moments.mean)
        unit = sum(span for span, _ in spans) / max(sum(gaps for _, gaps in spans), 1)
        return replace(
            self,
            channels=len(mean),
            mean=self.mean if is_scaled else tuple(mean.tolist()),
            std=self.std if is_scaled else tuple(value for part in found.values() for value in part.std.tolist()),
            names=self.names if UNNAMED in found else names,
            max_steps=self.max_steps if is_sized else longest,
            unit=self.unit if self.times is None or self.unit is not None else unit or 1.0,
        )

    def inherit(self, other: Tokenizer) -> Self:
        if not isinstance(other, Series):
            return self
        learnt = ("channels", "mean", "std", "names", "unit", "max_steps")
        return replace(self, **{name: getattr(other, name) for name in learnt if getattr(self, name) is None})

    def agree(self, other: Tokenizer, name: str) -> None:
        if not isinstance(other, Series):
            return
        # Arrays have no names, and go with any.
        facts = ("width", "channels", "mean", "std", "unit", *["names"] * (None not in (self.names, other.names)))
        for fact in facts:
            if getattr(self, fact) != getattr(other, fact):
                raise InputError(f"{name}: {fact} is {getattr(self, fact)} and {getattr(other, fact)}; set it alike")

    @property
    def _unit(self) -> float:
        if self.unit is not None:
            return self.unit
        if self.rate is not None:
            return self.width / self.rate
        raise InputError("the unit of time is not known yet; give unit, or fit to data first")

    @property
    def _scaling(self) -> tuple[np.ndarray, np.ndarray]:
        """What is taken off the values, and what they are divided by: (channels, 1) each."""
        if not self.normalize:
            return np.zeros((1, 1)), np.ones((1, 1))
        if self.mean is None or self.std is None:
            raise InputError("the means of the channels are not known yet; fit to data first, or give normalize: false")
        return np.array(self.mean)[:, None], np.array(self.std)[:, None]

    def _read(self, record: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """The values, (channels, steps) float64, and the times, (steps,) float64, where there are any."""
        parts, times = self._parts(record)
        return self._arrange(parts, times), times

    def _parts(self, record: Any) -> tuple[Channels, np.ndarray | None]:
        parts, times = read_channels(record, self.times, self.time_first)
        n = count_steps(parts, times)
        if not n:
            raise InputError("a series must have a channel with a step, and all of them are missing")
        if self.rate is not None:
            times = np.arange(n) / self.rate
        if times is not None:
            check_times(times, n)
        return parts, times

    def _arrange(self, parts: Channels, times: np.ndarray | None) -> np.ndarray:
        return arrange(parts, count_steps(parts, times), self.names, self.channels, self.time_first)
