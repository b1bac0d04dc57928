"""How the next token is chosen from logits, and which text may be shown: options, filters, draws, stop strings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from anyformer.generation.config import GenerationConfig

N_SORTED = 256
"""Logits that are sorted first for `top_p`; all of them only where these do not suffice."""


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
