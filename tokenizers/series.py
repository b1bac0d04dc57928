"""Time series of sensors as tokens: channels over time, at a rate or with time stamps, with values missing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from anyformer.data.moments import Moments
from anyformer.data.values import is_json, read_json, to_numbers
from anyformer.errors import InputError, nearest
from anyformer.model.lifts import Projection
from anyformer.tokenizers.arrays import ARRAYS, COLUMNS, array_shape, read_array, read_columns
from anyformer.tokens import Tokenizer, TokenSet

UNNAMED = None
"""What the channels of an array are called."""


@dataclass(frozen=True)
class SeriesAugmentation:
    """What is drawn for a series whenever it comes up in training. Nothing by default."""

    jitter: float = 0.0
    """Normal noise is added to every value, of so many standard deviations of its channel (Um et al. 2017)."""
    scale: float = 0.0
    """Each channel is multiplied by a number from N(1, scale)."""
    shift: float = 0.0
    """Each channel is moved by a number from N(0, shift), in its standard deviations."""
    crop: float = 1.0
    """A stretch of at least this share of the steps is kept, of a length and place that are drawn."""

    def __post_init__(self) -> None:
        for name in ("jitter", "scale", "shift"):
            if getattr(self, name) < 0:
                raise InputError(f"augment.{name} must be at least 0, got {getattr(self, name)}")
        if not 0 < self.crop <= 1:
            raise InputError(f"augment.crop must be above 0 and at most 1, got {self.crop}")

    def cut(self, n: int, random: np.random.Generator) -> slice:
        """Which of n steps are kept."""
        if self.crop == 1:
            return slice(0, n)
        length = int(random.integers(max(math.ceil(self.crop * n), 1), n + 1))
        start = int(random.integers(n - length + 1))
        return slice(start, start + length)

    def change(self, values: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Standardised values, (channels, steps), to the same."""
        channels = len(values)
        if self.scale:
            values = values * random.normal(1, self.scale, (channels, 1))
        if self.shift:
            values = values + random.normal(0, self.shift, (channels, 1))
        if self.jitter:
            values = values + random.normal(0, self.jitter, values.shape)
        return values


@dataclass(frozen=True)
class Series(Tokenizer):
    """Cuts channels over time into tokens of `width` steps each, one after another on the axis `time`.

    A record is an array or lists, (channels, steps) or (steps,); a dict of channels by name, as several columns of a
    table give it; JSON of these; or the name of a .npy, .npz or .csv file (a column a channel). A missing value is NaN
    or None, and so may a channel with a name be, which may also be left out; in which sequence names stand changes
    nothing. The content is (n, features) float32: of each channel the standardised values, 0 where missing, and of each
    value whether it is there; where the last token is not filled, nothing is there. With time stamps and more than one
    step a token, the time since the token's first step as well.

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
            raise InputError("the number of channels is not known yet; give channels, or fit to data first")
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
            shape = _check_shape(array_shape(record))
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
                    raise self._wrong(name, part, needed)
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

    def _parts(self, record: Any) -> tuple[dict[str | None, np.ndarray | None], np.ndarray | None]:
        """The channels of a record by name, (channels, steps) float64 each, None where missing; and the times."""
        if is_json(record):
            record = read_json(record)
        elif isinstance(record, str) and record.lower().endswith(COLUMNS):
            columns = read_columns(record)
            is_named = self.times is not None or list(columns) != [str(i) for i in range(len(columns))]
            stacked = np.stack(list(columns.values()))
            record = columns if is_named else stacked.T if self.time_first else stacked
        elif isinstance(record, str):
            record = read_array(record)
        times = None
        if isinstance(record, Mapping):
            parts, times = self._join(record)
        elif self.times is not None:
            raise InputError(f"times: {self.times!r} needs records of named columns, and this one is an array")
        else:
            values = to_numbers(record, "a series")
            values = values[None] if values.ndim == 1 else values.T if self.time_first else values
            _check_shape(values.shape)
            parts = {UNNAMED: values}
        steps = next((part.shape[1] for part in parts.values() if part is not None), 0 if times is None else times.size)
        if not steps:
            raise InputError("a series must have a channel with a step, and all of them are missing")
        if self.rate is not None:
            times = np.arange(steps) / self.rate
        if times is not None:
            self._check(times, steps)
        return parts, times

    def _join(self, record: Mapping[str, Any]) -> tuple[dict[str | None, np.ndarray | None], np.ndarray | None]:
        """The channels of a record of names, and its times."""
        record = {name: read_json(part) if is_json(part) else part for name, part in record.items()}
        if self.times is not None and self.times not in record:
            raise InputError(f"no times {self.times!r}; there are {', '.join(record)}{nearest(self.times, record)}")
        parts: dict[str | None, np.ndarray | None] = {}
        for name, part in record.items():
            if name == self.times:
                continue
            # An empty cell of a table that keeps its lists as text is a missing channel too.
            if part is None or (isinstance(part, str) and not part.strip()):
                parts[name] = None
                continue
            part = to_numbers(part, f"channel {name!r}")
            if part.ndim not in (1, 2):
                raise InputError(f"channel {name!r} must be a list of numbers, got {record[name]!r:.60}")
            parts[name] = part[None] if part.ndim == 1 else part.T if self.time_first else part
            _check_shape(parts[name].shape)
        there = [part.shape[1] for part in parts.values() if part is not None]
        if len(set(there)) > 1:
            raise InputError(f"channels must have equally many steps, got {', '.join(map(str, there))}")
        return parts, None if self.times is None else to_numbers(record[self.times], f"times {self.times!r}")

    def _arrange(self, parts: Mapping[str | None, np.ndarray | None], times: np.ndarray | None) -> np.ndarray:
        """The channels in the sequence of `names`, (channels, steps), NaN for those that are missing."""
        steps = next((part.shape[1] for part in parts.values() if part is not None), 0 if times is None else len(times))
        if self.names is None or UNNAMED in parts:
            if len(parts) != 1:
                raise InputError(
                    f"the sequence of the channels {', '.join(parts)} is not known yet; fit to data that has them by "
                    "name, or give names: [...]"
                )
            values = next(iter(parts.values()))
            values = np.full((self.n_channels, steps), np.nan) if values is None else values
            if self.channels not in (None, len(values)):
                raise self._wrong(UNNAMED, values, self.channels)
            return values
        if (lost := next((name for name in parts if name not in self.names), None)) is not None:
            known = list(dict.fromkeys(self.names))
            raise InputError(f"no channel {lost!r} is known; there are {', '.join(known)}{nearest(lost, known)}")
        arranged = []
        for name, n in Counter(self.names).items():
            part = parts.get(name)
            part = np.full((n, steps), np.nan) if part is None else part
            if len(part) != n:
                raise self._wrong(name, part, n)
            arranged.append(part)
        return np.concatenate(arranged)

    def _wrong(self, name: str | None, values: np.ndarray, needed: int) -> InputError:
        """What to raise for (channels, steps) of another number of channels than needed."""
        turned = "; its steps come first: give time_first: true" if values.shape[1] == needed else ""
        turned = turned.replace("true", "false") if self.time_first else turned
        what = "a series" if name == UNNAMED else f"{name!r}"
        return InputError(f"{what} of {len(values)} channels, and there must be {needed}{turned}")

    def _check(self, times: np.ndarray, n: int) -> None:
        if times.shape != (n,):
            raise InputError(f"there must be a time for each of the {n} steps, got {times.shape}")
        if np.isnan(times).any():
            raise InputError(f"step {int(np.isnan(times).argmax())} has no time; leave such steps out")
        if (late := np.diff(times) <= 0).any():
            step = int(late.argmax()) + 1
            raise InputError(
                f"times must rise, and step {step} is at {times[step]:g} after {times[step - 1]:g}; sort them"
            )


def _check_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) not in (1, 2) or 0 in shape:
        raise InputError(f"a series must be (channels, steps) with at least one of each, got {shape}")
    return shape
