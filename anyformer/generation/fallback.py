"""Failures of a text that a model has written, and when it is found anew (Radford et al. 2022, "Robust Speech
Recognition via Large-Scale Weak Supervision", 4.5)."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal

from anyformer.choices import Values
from anyformer.errors import InputError

Doubt = Literal["", "silence", "repetition", "improbable"]


@dataclass(frozen=True, kw_only=True)
class FallbackOptions(Values):
    """What a text that repeats itself or is improbable is answered with; nothing is judged when nothing is given."""

    fallback: tuple[float, ...] = ()
    """Temperatures at which such a text is found anew, one after another until one is good; none: it is not judged."""
    max_compression: float = 2.4
    """A text repeats itself where zlib makes its bytes fewer by more than this factor."""
    min_log_prob: float = -1.0
    """A text is improbable where the mean log-probability of its tokens is below."""
    max_silence: float = 0.6
    """An improbable text is taken for silence where the probability of that is above, and is left out."""
    certain_silence: float = 0.9
    """Above this probability of silence no text is believed, however probable: to Whisper silence is "you"."""
    silence_id: int | None = None
    """The id whose probability behind the first start token is that of silence: of Whisper `<|nospeech|>`; left out for
    none."""

    def __post_init__(self) -> None:
        if any(not temperature > 0 for temperature in self.fallback):
            raise InputError(f"fallback must be temperatures above 0, got {list(self.fallback)}")
        for name in ("max_silence", "certain_silence"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        if not self.max_compression > 0:
            raise InputError(f"max_compression must be above 0, got {self.max_compression}")
        if self.silence_id is not None and self.silence_id < 0:
            raise InputError(f"silence_id must not be negative, got {self.silence_id}")


def judge(options: FallbackOptions, text: str, log_prob: float, silence: float = 0.0) -> Doubt:
    """What is wrong with a text; "" if nothing.

    log_prob: the mean of its tokens, the one that ends it included. silence: the probability that nothing is said.
    """
    is_improbable = log_prob < options.min_log_prob
    if silence > (options.max_silence if is_improbable else options.certain_silence):
        return "silence"
    if compression(text) > options.max_compression:
        return "repetition"
    return "improbable" if is_improbable else ""


def compression(text: str) -> float:
    """By what factor zlib makes the bytes of a text fewer; the more, the more it repeats itself."""
    written = text.encode("utf-8", "replace")
    return len(written) / len(zlib.compress(written))
