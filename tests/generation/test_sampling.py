"""How a token is chosen, against formulas written out here."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from anyformer.errors import InputError
from anyformer.generation import sampling
from anyformer.generation.config import GenerationConfig
from anyformer.generation.sampling import candidates, draw

LOGITS = torch.tensor([[2.0, 1.0, 0.5, -1.0, 3.0], [0.0, 0.1, 4.0, 0.2, -torch.inf]])


def distribution(logits: torch.Tensor = LOGITS, **options: float) -> torch.Tensor:
    """Probabilities of all ids in sequence, (b, v)."""
    p, ids = candidates(logits, GenerationConfig(**{"temperature": 1.0, **options}))
    assert ids is not None or p.shape == logits.shape
    return p if ids is None else torch.zeros_like(logits).scatter(1, ids, p)


def by_hand(
    logits: Sequence[float], temperature: float = 1.0, top_k: int = 99, top_p: float = 1.0, min_p: float = 0.0
) -> list[float]:
    weights = [torch.tensor(logit / temperature).double().exp().item() for logit in logits]
    ranked = sorted(range(len(weights)), key=lambda i: -weights[i])[:top_k]
    total, reached, kept = sum(weights[i] for i in ranked), 0.0, []
    for i in ranked:
        if reached < top_p and weights[i] / total >= min_p * weights[ranked[0]] / total:
            kept.append(i)
        reached += weights[i] / total
    total = sum(weights[i] for i in kept)
    return [weights[i] / total if i in kept else 0.0 for i in range(len(weights))]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.5},
        {"top_k": 1},
        {"top_k": 3},
        {"top_k": 50},
        {"top_p": 0.01},
        {"top_p": 0.7},
        {"top_p": 0.9},
        {"top_p": 1.0},
        {"min_p": 0.1},
        {"min_p": 1.0},
        {"temperature": 2.0, "top_k": 4, "top_p": 0.8, "min_p": 0.3},
        {"temperature": 1.5, "top_p": 0.95, "min_p": 0.2},
    ],
    ids=str,
)
@pytest.mark.parametrize("head", [2, 256])
def test_only_what_the_filters_leave_is_drawn_renormalised(
    options: dict, head: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "N_SORTED", head)
    found = distribution(**options)
    expected = torch.tensor([by_hand(row, **options) for row in LOGITS.tolist()])
    torch.testing.assert_close(found, expected)


def test_a_draw_follows_the_distribution() -> None:
    p, n = torch.tensor([[0.0, 0.2, 0.0, 0.7, 0.1, 0.0]]), 2_000
    uniform = [(i + 0.5) / n for i in range(n)]
    drawn = draw(p.expand(n, -1), None, uniform)
    assert (drawn.bincount(minlength=6) / n).tolist() == pytest.approx(p[0].tolist(), abs=1e-3)
    assert draw(p.expand(2, -1), None, [0.0, 1 - 2**-53]).tolist() == [1, 4], "never what has no probability"
    ids = torch.tensor([[9, 8, 7, 6, 5, 4]])
    assert draw(p, ids, [0.5]).tolist() == [6]


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 1.0, "top_k": 0}, "top_k must be at least 1, got 0"),
        ({"temperature": -0.1}, r"temperature must be at least 0 \(greedy\), got -0.1"),
        ({"temperature": float("nan")}, "temperature must be at least 0"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p must be above 0 and at most 1, got 0.0"),
        ({"temperature": 1.0, "top_p": 1.1}, "top_p must be above 0 and at most 1, got 1.1"),
        ({"temperature": 1.0, "min_p": -0.1}, "min_p must be above 0 and at most 1, got -0.1"),
        ({"top_k": 5}, "top_k needs a temperature above 0"),
        ({"top_p": 0.5}, "top_p needs a temperature above 0"),
        ({"min_p": 0.5}, "min_p needs a temperature above 0"),
        ({"seed": -1}, "seed must not be negative, got -1"),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        GenerationConfig(**options)
    assert "\n" not in str(caught.value)
