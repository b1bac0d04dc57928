"""How the next token is chosen from logits, and which text may be shown: options, filters, draws, stop strings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anyformer.errors import InputError

N_SORTED = 256
"""Logits that are sorted first for `top_p`; all of them only where these do not suffice."""
BROKEN = "\ufffd"
"""What a decoder writes for bytes that are no character, or not yet one."""
N_BEFORE = 8
"""Ids of the prompt that new ones are decoded behind."""
UNFINISHED = 3
"""Bytes of a character in UTF-8 before its last, at the most, and so what they can be written as."""


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


def penalize(logits: Tensor, history: Tensor, penalty: float) -> Tensor:
    """The repetition penalty on the ids of history (b, n), of which some may be there twice; logits: (b, v)."""
    seen = logits.gather(1, history)
    return logits.scatter(1, history, torch.where(seen > 0, seen / penalty, seen * penalty))


def candidates(logits: Tensor, config: GenerationConfig) -> tuple[Tensor, Tensor | None]:
    """The distribution that a token is drawn from: temperature, then top-k, then top-p, then min-p.

    logits: (b, v). Returns probabilities (b, m), which sum to 1, and the ids they are of, (b, m), likeliest first; ids
    are None where the probabilities are of all ids in sequence.
    """
    values, ids, total = logits / config.temperature, None, None
    if config.top_k is not None:
        values, ids = values.topk(min(config.top_k, values.shape[1]))
    elif config.top_p is not None:
        # Sorting the whole vocabulary costs as much as a block of the model, and the head of it nearly always suffices.
        total = values.logsumexp(1, keepdim=True)
        head, ids = values.topk(min(N_SORTED, values.shape[1]))
        if head.shape[1] < values.shape[1] and bool(((head - total).exp().sum(1) < config.top_p).any()):
            head, ids = values.sort(descending=True)
        values = head
    p = values.softmax(1) if total is None else (values - total).exp()
    if config.top_p is not None:
        p = p.masked_fill(p.cumsum(1) - p >= config.top_p, 0)
    if config.min_p is not None:
        p = p.masked_fill(p < config.min_p * p.amax(1, keepdim=True), 0)
    return p / p.sum(1, keepdim=True), ids


def draw(p: Tensor, ids: Tensor | None, uniform: Sequence[float]) -> Tensor:
    """An id of each row's distribution (see `candidates`), by a number from [0, 1) each. Returns (b,) int64."""
    reached = p.cumsum(1, dtype=torch.float64)
    level = torch.tensor(uniform, dtype=torch.float64, device=p.device)[:, None] * reached[:, -1:]
    place = torch.searchsorted(reached, level, right=True).clamp(max=p.shape[1] - 1)
    return (place if ids is None else ids.gather(1, place)).squeeze(1)


class ShownText:
    """The text of tokens that come one by one, as far as it can be shown.

    Held back are tokens that end within a character, and text that may become a stop string.
    """

    def __init__(
        self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = (), before: Sequence[int] = ()
    ) -> None:
        """before: the ids that stand before them, which are not shown."""
        self.decode, self.stop = decode, stop
        self.held = ""
        # Decoders may treat the first token of a text apart (its leading space), so new ones are decoded behind others.
        self._window = list(before[-N_BEFORE:])
        self._n_old, self._n_shown = len(self._window), len(_whole(decode(self._window))) if before else 0

    def push(self, new: int) -> tuple[str, bool]:
        """The text that the next token sets free, and whether it completes a stop string."""
        self._window.append(new)
        return self._scan(self._decoded(last=False), last=False)

    def flush(self) -> tuple[str, bool]:
        """What is left when no token follows; whether a stop string was in it."""
        return self._scan(self._decoded(last=True), last=True)

    def _decoded(self, last: bool) -> str:
        text = self.decode(self._window)
        whole = text if last else _whole(text)
        new = whole[self._n_shown :]
        self._n_shown = len(whole)
        if whole == text:
            # Nothing hangs on older tokens any more.
            self._window = self._window[self._n_old :]
            self._n_old, self._n_shown = len(self._window), len(self.decode(self._window))
        return new

    def _scan(self, text: str, last: bool) -> tuple[str, bool]:
        self.held += text
        found = [place for place in map(self.held.find, self.stop) if place >= 0]
        if found:
            shown, self.held = self.held[: min(found)], ""
            return shown, True
        n = 0 if last else max((_overlap(self.held, stop) for stop in self.stop), default=0)
        cut = len(self.held) - n
        shown, self.held = self.held[:cut], self.held[cut:]
        return shown, False


def _whole(text: str) -> str:
    """A text without what may be the beginning of a character."""
    return text[:-UNFINISHED] + text[-UNFINISHED:].rstrip(BROKEN)


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of a text with which the stop string begins."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
