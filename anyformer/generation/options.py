"""The options of generation that hold whatever the method; `config.py` adds those of the methods."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

from anyformer.choices import Values
from anyformer.errors import InputError


def check_counts(options: Any, *names: str) -> None:
    """Raise InputError for options that are given and below 1."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")


def split_answers(answers: str) -> list[str]:
    """Texts that are parted by |. Raises InputError where one is empty or there twice."""
    texts = answers.split("|")
    if "" in texts or len(set(texts)) < len(texts):
        raise InputError(f"score must be different texts parted by |, as yes|no, got {answers!r}")
    return texts


@dataclass(frozen=True, kw_only=True)
class IdOptions(Values):
    """Which ids may follow."""

    repetition_penalty: float = 1.0
    """Logits of ids in the prompt or already generated are divided by it where positive, multiplied where negative
    (CTRL, Keskar et al. 2019, 4.1)."""
    allowed: tuple[int, ...] | None = None
    """The only ids that are generated, those that stop included; all when left out."""
    suppressed: tuple[int, ...] = ()
    """Ids that are not generated: of Whisper what stands for other sounds than speech."""
    suppressed_first: tuple[int, ...] = ()
    """Ids that are not generated as the first."""

    def __post_init__(self) -> None:
        if not self.repetition_penalty > 0:
            raise InputError(f"repetition_penalty must be above 0 (1 for none), got {self.repetition_penalty}")
        if self.allowed is not None and not self.allowed:
            raise InputError("allowed must name at least one id; leave it out to allow all")


@dataclass(frozen=True)
class CommonOptions(IdOptions):
    """How many continuations, of which ids, and where they end."""

    max_new_tokens: int = 100
    """Tokens after the prompt, at the most."""
    _: KW_ONLY
    n_samples: int = 1
    """Continuations of each prompt: drawn apart, or the best of the beams."""
    stop: tuple[str, ...] = ()
    """Texts that end a continuation; they and what follows are not shown."""
    stop_ids: tuple[int, ...] = ()
    """Ids that end a continuation, such as the end of a text."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "max_new_tokens", "n_samples")
        if "" in self.stop:
            raise InputError("stop must not hold an empty string, which every text contains")
