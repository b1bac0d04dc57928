"""How a text is generated: the one place where the options are declared."""

from __future__ import annotations

from dataclasses import dataclass

from anyformer.errors import InputError


@dataclass(frozen=True)
class GenerationConfig:
    """How tokens are generated; greedily when nothing is given."""

    max_new_tokens: int = 100
    """Tokens after the prompt, at the most."""
    temperature: float = 0.0
    """The logits are divided by it before a token is drawn; at 0 the likeliest token is taken (greedy)."""
    top_k: int | None = None
    """Only the k likeliest tokens are drawn."""
    top_p: float | None = None
    """Only the likeliest tokens that together reach this probability are drawn (nucleus, Holtzman et al. 2020)."""
    min_p: float | None = None
    """Only tokens at least this share as likely as the likeliest are drawn (Nguyen et al. 2024)."""
    repetition_penalty: float = 1.0
    """Logits of ids in the prompt or already generated are divided by it where positive, multiplied where negative
    (CTRL, Keskar et al. 2019, 4.1)."""
    n_beams: int = 1
    """Width of beam search; 1 for none."""
    length_penalty: float = 1.0
    """A beam's score is the sum of its log-probabilities over its length to this power (after Wu et al. 2016, 7): above
    0 favours longer ones."""
    n_samples: int = 1
    """Continuations of each prompt: drawn apart, or the best of the beams."""
    stop: tuple[str, ...] = ()
    """Texts that end a continuation; they and what follows are not shown."""
    stop_ids: tuple[int, ...] = ()
    """Ids that end a continuation, such as the end of a text."""
    allowed: tuple[int, ...] | None = None
    """The only ids that are generated, those that stop included; all when left out."""
    suppressed: tuple[int, ...] = ()
    """Ids that are not generated."""
    suppressed_first: tuple[int, ...] = ()
    """Ids that are not generated as the first."""
    seed: int = 0
    """Of the draws, together with the numbers of the prompt and of the sample."""

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "n_beams", "n_samples", "top_k"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        if not self.temperature >= 0:
            raise InputError(f"temperature must be at least 0 (greedy), got {self.temperature}")
        for name in ("top_p", "min_p"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise InputError(f"{name} must be above 0 and at most 1, got {value}")
        if not self.repetition_penalty > 0:
            raise InputError(f"repetition_penalty must be above 0 (1 for none), got {self.repetition_penalty}")
        if self.seed < 0:
            raise InputError(f"seed must not be negative, got {self.seed}")
        if isinstance(self.stop, str):
            raise InputError(f"stop is a sequence of texts, got one: give ({self.stop!r},)")
        if "" in self.stop:
            raise InputError("stop must not hold an empty string, which every text contains")
        if self.allowed is not None and not self.allowed:
            raise InputError("allowed must name at least one id; leave it out to allow all")
        if self.n_beams > 1 and (self.temperature > 0 or self.stop):
            what = "temperature" if self.temperature > 0 else "stop"
            raise InputError(f"n_beams above 1 goes without {what}: beams are not drawn and end at stop_ids")
        if not self.temperature:
            for name in ("top_k", "top_p", "min_p"):
                if getattr(self, name) is not None:
                    raise InputError(f"{name} needs a temperature above 0, at which tokens are drawn")
            if self.n_samples > self.n_beams:
                raise InputError(
                    f"n_samples {self.n_samples} need a temperature above 0 or as many n_beams, got {self.n_beams}"
                )
