"""What generation gives: steps as they come, and the whole continuation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from anyformer.choices import Checked

Ending = Literal["", "stop", "length"]


class Step(NamedTuple):
    """One new token of one continuation."""

    prompt: int
    """Which of the prompts, from 0."""
    sample: int
    """Which of its continuations, from 0."""
    id: int
    """The token; the last may be one of stop_ids."""
    text: str
    """What can be shown now: "" while the text is within a character or may become a stop string, or is not decoded."""
    ended: Ending
    """Whether it is the last: "stop" for a stop string or id, "length" for max_new_tokens."""


@dataclass(frozen=True)
class Continuation(Checked):
    """What was generated after a prompt."""

    ids: list[int]
    """Without the one of stop_ids that ended it; with those of a stop string."""
    text: str | None
    """Up to a stop string; None where nothing decodes it."""
    ended: Ending
    """"stop" or "length"."""
    score: float | None = None
    """Of a beam: its log-probability over its length to the power of length_penalty."""
