"""Tokens that say when something is said, and texts that are written with them (Radford et al. 2022, "Robust Speech
Recognition via Large-Scale Weak Supervision", 2.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from anyformer.choices import Values
from anyformer.errors import InputError
from anyformer.weights.whisper import N_TIMES

STEP = 0.02
"""Seconds from the time of a token to that of the next."""
LATEST_BEGIN = 1.0
"""Seconds of a recording after which no text of Whisper begins."""


@dataclass(frozen=True, kw_only=True)
class TimeOptions(Values):
    """What a model knows of times."""

    time_id: int | None = None
    """The id that stands for 0.00 seconds, those behind it for 0.02 seconds more each: of Whisper `<|0.00|>`. The id
    before it says that a text goes without."""
    alignment_heads: tuple[tuple[int, int], ...] = ()
    """Layer and head, from 0, of the cross-attention that tells when a token is said; those of the upper half of the
    layers when left out."""

    def __post_init__(self) -> None:
        if self.time_id is not None and self.time_id < 1:
            raise InputError(f"time_id must be at least 1, got {self.time_id}")
        if wrong := [each for each in self.alignment_heads if len(each) != 2 or min(each) < 0]:
            raise InputError(f"alignment_heads must be pairs of a layer and a head, from 0, got {list(wrong[0])}")


class Segment(NamedTuple):
    """What is said from one time to another, in seconds after its part begins."""

    start: float
    end: float
    ids: list[int]
    """Without times."""


@dataclass(frozen=True)
class TimeTokens:
    """The times of a vocabulary."""

    first: int
    """The id of 0.00 seconds."""
    end_id: int
    """The end of a text, an id below."""

    @property
    def without(self) -> int:
        """The token that says that a text goes without times."""
        return self.first - 1

    def is_time(self, token: int) -> bool:
        return self.first <= token < self.first + N_TIMES

    def seconds(self, token: int) -> float:
        return (token - self.first) * STEP

    def text(self, ids: Sequence[int]) -> list[int]:
        """The ids without times."""
        return [each for each in ids if not self.is_time(each)]

    def close(self, logits: Tensor, ids: Sequence[Sequence[int]]) -> None:
        """Leave open what may follow: a text begins with a time and within the first second, times come in pairs
        between segments and never go back, and where any time is likelier than the likeliest other token one comes.

        logits: (b, v), which become -inf, in place, for what may not follow the ids of each row.
        """
        last = self.first + N_TIMES
        logits[:, self.without] = -torch.inf
        for row, own in zip(logits, ids, strict=True):
            times = row[self.first : last]
            if not own:
                row[: self.first] = row[last:] = -torch.inf
                times[round(LATEST_BEGIN / STEP) + 1 :] = -torch.inf
                continue
            told = [each for each in own if self.is_time(each)]
            ends_segment = self.is_time(own[-1]) and len(own) > 1 and not self.is_time(own[-2])
            if ends_segment:
                # The next begins, or nothing follows.
                row[: self.end_id] = -torch.inf
            elif self.is_time(own[-1]):
                times[:] = -torch.inf
            if told:
                # A segment lasts, and the next may begin where it ended.
                times[: told[-1] - self.first + (not ends_segment)] = -torch.inf
            others = torch.cat([row[: self.first], row[last:]])
            if times.logsumexp(0) > others.max():
                row[: self.first] = row[last:] = -torch.inf

    def segments(self, ids: Sequence[int], seconds: float) -> list[Segment]:
        """The segments of a part that lasts so many seconds; what no time ends lasts to its end."""
        found: list[Segment] = []
        start, held = 0.0, []
        for each in ids:
            if not self.is_time(each):
                held.append(each)
                continue
            time = min(self.seconds(each), seconds)
            if held:
                found.append(Segment(start, time, held))
            start, held = time, []
        return [*found, Segment(start, seconds, held)] if held else found

    def whole(self, ids: Sequence[int]) -> tuple[list[int], float | None]:
        """The ids up to the last pair of times, and the time where the next window begins: None where the model came
        to the end of this one, and all ids are kept."""
        pairs = [i for i in range(1, len(ids)) if self.is_time(ids[i - 1]) and self.is_time(ids[i])]
        ends_once = len(ids) > 1 and self.is_time(ids[-1]) and not self.is_time(ids[-2])
        if not pairs or ends_once or not (begin := self.seconds(ids[pairs[-1] - 1])):
            return list(ids), None
        return list(ids[: pairs[-1]]), begin
