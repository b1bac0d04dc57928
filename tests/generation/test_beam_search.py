"""Beams against every continuation there is, and against those of transformers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from anyformer.errors import InputError
from anyformer.generation.beam_search import BeamOptions
from anyformer.generation.config import GenerationConfig
from anyformer.generation.ctc_search import CTCPrefixScorer
from anyformer.generation.fusion.ngrams import NGrams
from anyformer.generation.fusion.prior import PriorScorer, TextPrior
from anyformer.generation.generator import Generator
from anyformer.model.losses.ctc import needed_frames
from anyformer.tokens import Sample
from tests.helpers.generators import ROWS, V, both, build, ids_of, letters, logits_after, text


def best_by_hand(
    generator: Generator, prompt: Sample, n_new: int, penalty: float, stop: int
) -> tuple[float, list[int]]:
    """The best of all continuations: the score, and the ids without the one that stops."""
    best: tuple[float, list[int]] = (-torch.inf, [])
    open_ones: list[tuple[float, list[int]]] = [(0.0, [])]
    for length in range(1, n_new + 1):
        found = []
        for score, ids in open_ones:
            for token, p in enumerate(logits_after(generator, prompt, ids).log_softmax(0).tolist()):
                if token == stop or length == n_new:
                    own = ids if token == stop else [*ids, token]
                    best = max(best, ((score + p) / length**penalty, own))
                if token != stop:
                    found.append((score + p, [*ids, token]))
        open_ones = found
    return best


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_beams_wide_enough_find_the_best_of_all(penalty: float) -> None:
    generator, prompts = build(), text(4, 2)
    config = GenerationConfig(3, n_beams=V**2, length_penalty=penalty, stop_ids=(1,))
    for prompt, (found,) in zip(prompts, generator.generate(prompts, config), strict=True):
        score, ids = best_by_hand(generator, prompt, 3, penalty, stop=1)
        assert found.ids == ids and found.score == pytest.approx(score, abs=1e-5) and found.text == letters(ids)


# A second scorer


def joint_by_hand(
    generator: Generator,
    prompt: Sample,
    log_probs: Tensor,
    n_new: int,
    share: float,
    stop: int,
    prior: TextPrior | None = None,
) -> tuple[float, list[int]]:
    """The best of all texts that end: the score of attention, of CTC's loss and of a prior, and the ids."""
    best: tuple[float, list[int]] = (-torch.inf, [])
    log_p = cache(lambda ids: logits_after(generator, prompt, ids).log_softmax(0))
    for length in range(n_new):
        for ids in product([i for i in range(V) if i != stop], repeat=length):
            whole = torch.tensor(ids, dtype=torch.int64)[None]
            ctc = -nn.functional.ctc_loss(log_probs[:, None], whole, (len(log_probs),), (length,), V, reduction="sum")
            if ctc == -torch.inf:
                continue  # It has no path.
            own = sum(log_p(ids[:n])[token] for n, token in enumerate([*ids, stop]))
            known = 0.0 if prior is None else prior.score(ids)
            best = max(best, (float((1 - share) * own + share * ctc) + known, list(ids)))
    return best


class Letters:
    """Ids as letters, of which the last is a space and the one that stops is none."""

    n_ids, special_ids, unk_id = V, (1,), None

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(" " if i == V - 1 else chr(97 + i) for i in tokens if i != 1)


@pytest.mark.parametrize("lexicon", [None, ["a", "ac", "dc"]])
@pytest.mark.parametrize("share", [0.2, 0.8])
def test_beams_wide_enough_find_the_best_by_attention_ctc_and_a_prior_together(
    share: float, lexicon: list[str] | None
) -> None:
    generator, prompts, lengths = build(), text(4, 2), [2, 2]
    log_probs = (2 * torch.randn(sum(lengths), V + 1)).log_softmax(1)
    config = GenerationConfig(3, n_beams=V**2, length_penalty=0.0, stop_ids=(1,))
    ngrams = NGrams([["a", "dc"], ["ac"], ["a"]], 2)
    prior = TextPrior(Letters(), ngrams, weight=0.9, word_bonus=2.0, lexicon=lexicon)
    second, known = CTCPrefixScorer(log_probs, lengths, (1,), share), PriorScorer(prior, 2, V, (1,))
    found = generator.generate(prompts, config, second=second, prior=known)
    for prompt, frames, (each,) in zip(prompts, log_probs.split(lengths), found, strict=True):
        score, ids = joint_by_hand(generator, prompt, frames, 3, share, stop=1, prior=prior)
        assert each.ids == ids and each.score == pytest.approx(score, abs=1e-4)
        assert lexicon is None or set(Letters().decode(ids).split()) <= set(lexicon)


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_beams_wide_enough_find_the_best_by_attention_and_ctc_together(share: float) -> None:
    generator, prompts, lengths = build(), text(4, 2), [2, 2]
    log_probs = (2 * torch.randn(sum(lengths), V + 1)).log_softmax(1)
    # Two frames hold two ids, so that the third must be the end.
    config = GenerationConfig(3, n_beams=V**2, length_penalty=0.0, stop_ids=(1,))
    alone = generator.generate(prompts, config)
    found = generator.generate(prompts, config, second=CTCPrefixScorer(log_probs, lengths, (1,), share))
    for prompt, frames, (each,) in zip(prompts, log_probs.split(lengths), found, strict=True):
        score, ids = joint_by_hand(generator, prompt, frames, 3, share, stop=1)
        assert each.ids == ids and each.score == pytest.approx(score, abs=1e-4)
    assert ids_of(found) != ids_of(alone), "CTC has a say"


@pytest.mark.parametrize("seed", range(3))
def test_a_prompt_has_the_same_beams_alone_and_beside_others(seed: int) -> None:
    torch.manual_seed(seed)
    generator, prompts, lengths = build(), text(5, 1, 3), [7, 12, 4]
    log_probs = (3 * torch.randn(sum(lengths), V + 1)).log_softmax(1)
    config = GenerationConfig(12, n_beams=4, n_samples=4, stop_ids=(1,))
    together = generator.generate(prompts, config, second=CTCPrefixScorer(log_probs, lengths, (1,), 0.4))
    for i, frames in enumerate(log_probs.split(lengths)):
        second = CTCPrefixScorer(frames, lengths[i : i + 1], (1,), 0.4)
        (alone,) = generator.generate(prompts[i : i + 1], config, second=second)
        assert [each.ids for each in alone] == [each.ids for each in together[i]]
        assert [each.score for each in alone] == pytest.approx([each.score for each in together[i]], abs=1e-4)
        assert all(needed_frames(each.ids) <= len(frames) for each in alone)


# transformers' GPT-2


@pytest.mark.parametrize("length_penalty", [1.0, 0.6, 0.0, -1.0])
@pytest.mark.parametrize("n_stops", [0, 1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_beams_are_transformers(length_penalty: float, n_stops: int, seed: int) -> None:
    config = GenerationConfig(24, n_beams=4, n_samples=3, length_penalty=length_penalty)
    torch.manual_seed(seed)
    expected, found = both(ROWS, config, length_penalty=length_penalty)
    if n_stops:
        often = Counter(token for own in found for token in own).most_common(n_stops)
        config = replace(config, stop_ids=tuple(token for token, _ in often))
        torch.manual_seed(seed)
        expected, found = both(ROWS, config, length_penalty=length_penalty)
        assert min(map(len, found)) < 24
    assert found == expected


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_beams": 0}, "n_beams must be at least 1, got 0"),
        ({"length_penalty": float("nan")}, "length_penalty must be a number, got nan"),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        BeamOptions(**options)
    assert "\n" not in str(caught.value)
