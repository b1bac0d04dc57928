"""Sampling: each continuation goes on by the likeliest token, or by one that is drawn from what the filters leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from anyformer.choices import Checked, Values
from anyformer.errors import InputError
from anyformer.generation.continuation import Continuation, Ending, Step
from anyformer.generation.detokenizer import ShownText
from anyformer.generation.method import Move
from anyformer.generation.options import check_counts
from anyformer.generation.running_batch import Rows

N_SORTED = 256
"""Logits that are sorted first for `top_p`; all of them only where these do not suffice."""


@dataclass(frozen=True, kw_only=True)
class SamplingOptions(Values):
    """From which tokens the next is drawn; the likeliest is taken when nothing is given."""

    temperature: float = 0.0
    """The logits are divided by it before a token is drawn; at 0 the likeliest token is taken (greedy)."""
    top_k: int | None = None
    """Only the k likeliest tokens are drawn."""
    top_p: float | None = None
    """Only the likeliest tokens that together reach this probability are drawn (nucleus, Holtzman et al. 2020)."""
    min_p: float | None = None
    """Only tokens at least this share as likely as the likeliest are drawn (Nguyen et al. 2024)."""
    seed: int = 0
    """Of the draws, together with the numbers of the prompt and of the sample."""

    def __post_init__(self) -> None:
        check_counts(self, "top_k")
        if not self.temperature >= 0:
            raise InputError(f"temperature must be at least 0 (greedy), got {self.temperature}")
        for name in ("top_p", "min_p"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise InputError(f"{name} must be above 0 and at most 1, got {value}")
        if self.seed < 0:
            raise InputError(f"seed must not be negative, got {self.seed}")
        for name in ("top_k", "top_p", "min_p"):
            if not self.temperature and getattr(self, name) is not None:
                raise InputError(f"{name} needs a temperature above 0, at which tokens are drawn")


@dataclass
class Line(Checked):
    """A continuation under way: one row."""

    prompt: int
    sample: int
    random: np.random.Generator | None = None
    text: ShownText | None = None
    ids: list[int] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    ended: Ending = ""


class Sampling:
    """Greedy decoding and draws. A method that only chooses otherwise among the next ids overrides `choose`."""

    not_streamed = ""

    def __init__(self, rows: Rows, options: SamplingOptions) -> None:
        self.rows, self.options, self.n_rows = rows, options, rows.options.n_samples
        decode, stop = rows.of.decode, rows.options.stop
        self._all = [
            Line(
                prompt,
                sample,
                np.random.default_rng([options.seed, number, sample]) if options.temperature else None,
                None if decode is None else ShownText(decode, stop, rows.prompt_ids[prompt]),
            )
            for prompt, number in enumerate(rows.numbers)
            for sample in range(self.n_rows)
        ]
        self.lines = self._all

    @staticmethod
    def is_asked(options: SamplingOptions) -> bool:
        return True

    @property
    def ids(self) -> list[list[int]]:
        return [line.ids for line in self.lines]

    def choose(self, logits: Tensor) -> list[int]:
        """The next id of each of the lines; logits: (b, v)."""
        if not self.options.temperature:
            return logits.argmax(1).tolist()
        return draw(*candidates(logits, self.options), [line.random.random() for line in self.lines]).tolist()

    def step(self, logits: Tensor, is_last: bool) -> tuple[list[Step], Move | None]:
        chosen = self.choose(logits)
        steps = [self._take(line, new, is_last) for line, new in zip(self.lines, chosen, strict=True)]
        keep = [i for i, line in enumerate(self.lines) if not line.ended]
        if len(keep) == len(steps):
            return steps, Move(chosen)
        self.lines = [self.lines[i] for i in keep]
        return steps, Move([chosen[i] for i in keep], keep) if keep else None

    def _take(self, line: Line, new: int, is_last: bool) -> Step:
        """Give a continuation its next token."""
        line.ids.append(new)
        by_id = stopped = new in self.rows.options.stop_ids
        text = ""
        if line.text is not None:
            if not by_id:
                text, stopped = line.text.push(new)
            if by_id or (is_last and not stopped):
                rest, found = line.text.flush()
                text, stopped = text + rest, by_id or found
        line.shown.append(text)
        line.ended = "stop" if stopped else "length" if is_last else ""
        return Step(line.prompt, line.sample, new, text, line.ended)

    def continuations(self) -> list[list[Continuation]]:
        results: list[list[Continuation]] = [[] for _ in self.rows.prompt_ids]
        for line in self._all:
            ids = line.ids[:-1] if line.ids[-1] in self.rows.options.stop_ids else line.ids
            text = None if line.text is None else "".join(line.shown)
            results[line.prompt].append(Continuation(ids, text, line.ended))
        return results


def candidates(logits: Tensor, options: SamplingOptions) -> tuple[Tensor, Tensor | None]:
    """The distribution that a token is drawn from: temperature, then top-k, then top-p, then min-p.

    logits: (b, v). Returns probabilities (b, m), which sum to 1, and the ids they are of, (b, m), likeliest first; ids
    are None where the probabilities are of all ids in sequence.
    """
    values, ids, total = logits / options.temperature, None, None
    if options.top_k is not None:
        values, ids = values.topk(min(options.top_k, values.shape[1]))
    elif options.top_p is not None:
        # Sorting the whole vocabulary costs as much as a block of the model, and the head of it nearly always suffices.
        total = values.logsumexp(1, keepdim=True)
        head, ids = values.topk(min(N_SORTED, values.shape[1]))
        if head.shape[1] < values.shape[1] and bool(((head - total).exp().sum(1) < options.top_p).any()):
            head, ids = values.sort(descending=True)
        values = head
    p = values.softmax(1) if total is None else (values - total).exp()
    if options.top_p is not None:
        p = p.masked_fill(p.cumsum(1) - p >= options.top_p, 0)
    if options.min_p is not None:
        p = p.masked_fill(p < options.min_p * p.amax(1, keepdim=True), 0)
    return p / p.sum(1, keepdim=True), ids


def draw(p: Tensor, ids: Tensor | None, uniform: Sequence[float]) -> Tensor:
    """An id of each row's distribution (see `candidates`), by a number from [0, 1) each. Returns (b,) int64."""
    reached = p.cumsum(1, dtype=torch.float64)
    level = torch.tensor(uniform, dtype=torch.float64, device=p.device)[:, None] * reached[:, -1:]
    place = torch.searchsorted(reached, level, right=True).clamp(max=p.shape[1] - 1)
    return (place if ids is None else ids.gather(1, place)).squeeze(1)
