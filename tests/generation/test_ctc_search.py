"""Search by CTC against every path there is written down, the plain algorithm, and torchaudio's alignment."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from anyformer.errors import InputError
from anyformer.generation.ctc_search import CTCPrefixScorer, align, greedy, prefix_beam_search
from anyformer.generation.fusion.ngrams import NGrams
from anyformer.generation.fusion.prior import UNFINISHED, TextPrior
from anyformer.tokenizers.text.text import Text
from tests.helpers.labellings import Labelling, collapse, draw_log_probs, every_labelling

# Decoding by CTC alone


def test_greedy_ids_are_the_likeliest_path_without_repeats_and_blanks() -> None:
    lengths, blank = [7, 0, 1, 12, 3], 3
    log_probs = draw_log_probs(sum(lengths), blank + 1)
    expected = [list(collapse(part.argmax(1).tolist(), blank)) for part in log_probs.split(lengths)]
    assert greedy(log_probs, lengths) == expected and any(expected)
    # An utterance may begin with the id that the one before it ends with.
    same = torch.full((3, 4), -9.0).index_fill(1, torch.tensor([1]), 0)
    assert greedy(same, [1, 2]) == [[1], [1]]
    assert greedy(log_probs[:0], []) == []


@pytest.mark.parametrize("seed", range(5))
def test_beams_wide_enough_find_every_labelling_and_its_probability(seed: int) -> None:
    lengths = [3, 5, 1, 4]
    log_probs = draw_log_probs(sum(lengths), 4, seed=seed)
    results = prefix_beam_search(log_probs, lengths, n_beams=400)
    for part, found in zip(log_probs.split(lengths), results, strict=True):
        expected = every_labelling(part)
        assert {tuple(ids): math.exp(score) for ids, score in found} == pytest.approx(expected, rel=1e-5)
        assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
        assert found[0][0] == list(max(expected, key=expected.get))


def beams_by_hand(log_probs: Tensor, n_beams: int) -> dict[Labelling, float]:
    """Prefix beam search as it is written down, id by id."""
    t, v = log_probs.shape
    p = log_probs.double().exp().tolist()
    beams = {(): (1.0, 0.0)}
    for frame in range(t):
        found: dict[Labelling, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for prefix, (in_blank, in_id) in beams.items():
            found[prefix][0] += (in_blank + in_id) * p[frame][v - 1]
            for token in range(v - 1):
                if prefix and token == prefix[-1]:
                    found[prefix][1] += in_id * p[frame][token]
                    found[(*prefix, token)][1] += in_blank * p[frame][token]
                else:
                    found[(*prefix, token)][1] += (in_blank + in_id) * p[frame][token]
        best = sorted(found, key=lambda prefix: -sum(found[prefix]))[:n_beams]
        beams = {prefix: (found[prefix][0], found[prefix][1]) for prefix in best}
    return {prefix: sum(both) for prefix, both in beams.items()}


@pytest.mark.parametrize("n_beams", [1, 2, 5, 12])
def test_narrow_beams_are_those_of_the_plain_algorithm(n_beams: int) -> None:
    lengths = [30, 11, 0, 24]
    log_probs = draw_log_probs(sum(lengths), 7, spread=1.0)
    results = prefix_beam_search(log_probs, lengths, n_beams)
    for part, found in zip(log_probs.split(lengths), results, strict=True):
        expected = beams_by_hand(part, n_beams)
        assert {tuple(ids): math.exp(score) for ids, score in found} == pytest.approx(expected, rel=1e-4)
    assert results[2] == [([], 0.0)] and prefix_beam_search(log_probs[:0], []) == []


LETTERS = Text("characters").fit(["ab "])
NGRAMS = NGrams([["ab", "a"], ["b", "ab"], ["ab"]], 2)


@pytest.mark.parametrize("by_word", [True, False])
@pytest.mark.parametrize("lexicon", [None, ["ab", "b", "bba"]])
def test_beams_wide_enough_find_what_is_best_by_all_paths_and_a_prior(by_word: bool, lexicon: list[str] | None) -> None:
    ngrams = NGRAMS if by_word else NGrams(["ab a", "b ab", "ab"], 3)
    prior = TextPrior(LETTERS, ngrams, by_word, weight=0.8, word_bonus=0.4, lexicon=lexicon)
    lengths = [3, 5, 1, 4]
    log_probs = draw_log_probs(sum(lengths), LETTERS.n_ids + 1, seed=3)
    # Only letters and the space, so that every path can be written down.
    log_probs[:, 3:-1] = -torch.inf
    results = prefix_beam_search(log_probs, lengths, 500, prior)
    for part, found in zip(log_probs.split(lengths), results, strict=True):
        expected = {
            ids: math.log(p) + prior.score(ids)
            for ids, p in every_labelling(torch.cat([part[:, :3], part[:, -1:]], 1)).items()
            if prior.score(ids) > -math.inf
        }
        assert {tuple(ids): score for ids, score in found} == pytest.approx(expected, rel=1e-5)
        assert found[0][0] == list(max(expected, key=expected.get))


@pytest.mark.parametrize("n_beams", [3, 70])
def test_a_prior_of_no_weight_changes_nothing(n_beams: int) -> None:
    lengths = [30, 11, 0, 24]
    log_probs = draw_log_probs(sum(lengths), LETTERS.n_ids + 1, spread=1.0)
    without = prefix_beam_search(log_probs, lengths, n_beams)
    for prior in (TextPrior(LETTERS), TextPrior(LETTERS, NGRAMS, weight=0.0)):
        assert prefix_beam_search(log_probs, lengths, n_beams, prior) == without
    assert prefix_beam_search(log_probs, lengths, n_beams, TextPrior(LETTERS, NGRAMS, weight=1.0)) != without


def test_narrow_beams_write_nothing_but_words_of_a_lexicon_and_may_have_to_leave_the_last_one_open() -> None:
    prior = TextPrior(LETTERS, lexicon=["ab", "abba"])
    lengths = [30, 11, 24, 2]
    log_probs = draw_log_probs(sum(lengths), LETTERS.n_ids + 1, spread=2.0, seed=1)
    log_probs[:, 3:-1] = -torch.inf
    for beams in prefix_beam_search(log_probs, lengths, 4, prior):
        assert beams and set(LETTERS.decode(prior.whole_words(beams[0][0])).split()) <= {"ab", "abba"}
        whole = [score > UNFINISHED / 2 for _, score in beams]
        assert whole == sorted(whole, reverse=True), "what ends within a word is behind all others"


def test_all_paths_of_some_ids_may_outweigh_the_likeliest_path() -> None:
    # "a" in either frame, or in both, is likelier than nothing; yet the likeliest path is two blanks.
    log_probs = torch.tensor([[0.4, 0.6], [0.4, 0.6]]).log()
    assert greedy(log_probs, [2]) == [[]]
    ((ids, score), _) = prefix_beam_search(log_probs, [2], 2)[0]
    assert ids == [0] and math.exp(score) == pytest.approx(0.64)


# Decoding jointly


def prefix_probability(labellings: dict[Labelling, float], prefix: Labelling) -> float:
    return sum(p for labelling, p in labellings.items() if labelling[: len(prefix)] == prefix)


STOP = 2


def scores_of(scorer: CTCPrefixScorer, totals: Sequence[float]) -> list[list[float]]:
    """The probabilities of prefixes with one id more, where the rows' own are known."""
    return [[math.exp(s + total) for s in row] for row, total in zip(scorer.score().tolist(), totals, strict=True)]


def test_prefix_scores_are_sums_over_all_labellings() -> None:
    lengths = [5, 3]
    log_probs = draw_log_probs(sum(lengths), 5)
    labellings = [every_labelling(part) for part in log_probs.split(lengths)]
    scorer = CTCPrefixScorer(log_probs, lengths, [STOP], 0.5)
    prefixes: list[Labelling] = [(), ()]
    # Repeats, with a blank between; and more ids than the second has frames for.
    for new in ([1, 0], [1, 3], [0, 0], [3, 1]):
        totals = [math.log(prefix_probability(*each)) for each in zip(labellings, prefixes, strict=True)]
        for row, prefix, every in zip(scores_of(scorer, totals), prefixes, labellings, strict=True):
            expected = [prefix_probability(every, (*prefix, token)) for token in range(4)]
            expected[STOP] = every.get(prefix, 0.0)
            assert row == pytest.approx(expected, rel=1e-6, abs=1e-12)
        if len(prefixes[1]) == 3:
            break
        scorer.advance(new)
        prefixes = [(*prefix, token) for prefix, token in zip(prefixes, new, strict=True)]
    assert prefixes == [(1, 1, 0), (0, 3, 0)]
    assert scorer.score()[1].isneginf().tolist() == [True, True, False, True], "three frames hold three ids"


def test_rows_of_a_scorer_move_with_their_beams() -> None:
    lengths = [6, 4]
    log_probs = draw_log_probs(sum(lengths), 6)
    scorer = CTCPrefixScorer(log_probs, lengths, [STOP], 0.5)
    scorer.select([0, 0, 0, 1, 1, 1])
    scorer.advance([0, 1, 3, 4, 1, 0])
    scorer.score()
    scorer.copy([(1, 0), (3, 5)])
    scorer.select([0, 2, 3, 5])
    scorer.advance([1, 0, 0, 4])
    for row, (prompt, prefix) in enumerate([(0, (1, 1)), (0, (3, 0)), (1, (4, 0)), (1, (4, 4))]):
        alone = CTCPrefixScorer(log_probs.split(lengths)[prompt], lengths[prompt : prompt + 1], [STOP], 0.5)
        for token in prefix:
            alone.advance([token])
        assert torch.allclose(scorer.score()[row], alone.score()[0])


def test_a_prefix_that_cannot_be_stays_impossible() -> None:
    scorer = CTCPrefixScorer(draw_log_probs(1, 4), [1], [STOP], 0.5)
    for _ in range(3):
        scorer.advance([1])
    assert scorer.score().isneginf().all()
    silent = CTCPrefixScorer(draw_log_probs(0, 4), [0], [STOP], 0.5).score()
    assert silent.tolist() == [[0, 0, 0]], "what was not heard says nothing of the text"


def test_long_recordings_lose_no_precision() -> None:
    t = 1500
    ids = torch.randint(30, (300,), generator=torch.Generator().manual_seed(1)).tolist()
    log_probs = draw_log_probs(t, 31, spread=8.0)
    scorer = CTCPrefixScorer(log_probs, [t], [30 - 1], 0.5)
    total = 0.0
    for token in ids:
        total += float(scorer.score()[0, token])
        scorer.advance([token])
    total += float(scorer.score()[0, 29])
    expected = -F.ctc_loss(log_probs.double()[:, None], torch.tensor([ids]), (t,), (300,), 30, reduction="sum")
    assert total == pytest.approx(expected.item(), rel=1e-8) and total < -1000


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"weight": 0.0}, "the weight of CTC beside attention must be above 0 and below 1, got 0.0"),
        ({"weight": 1.0}, "above 0 and below 1, got 1.0"),
        ({"stop_ids": []}, "joint decoding needs an id that ends a text, got no stop_ids"),
    ],
    ids=str,
)
def test_a_scorer_that_cannot_be_is_refused(given: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        CTCPrefixScorer(draw_log_probs(3, 4), [3], **{"stop_ids": [STOP], **given})


# Alignment


def path_of(spans: Sequence[tuple[int, int]], ids: Sequence[int], t: int, blank: int) -> list[int]:
    path = [blank] * t
    for (start, end), token in zip(spans, ids, strict=True):
        path[start:end] = [token] * (end - start)
    return path


@pytest.mark.parametrize("ids", [[0], [1, 1], [0, 1, 1], [2, 0, 2], [1, 1, 1]], ids=str)
def test_an_alignment_is_the_likeliest_path(ids: list[int]) -> None:
    for seed in range(4):
        log_probs = draw_log_probs(6, 4, seed=seed)
        paths = [path for path in product(range(4), repeat=6) if collapse(path, 3) == tuple(ids)]
        best = max(paths, key=lambda path: sum(log_probs[frame, token].item() for frame, token in enumerate(path)))
        assert path_of(align(log_probs, ids), ids, 6, 3) == list(best)


def test_an_alignment_is_torchaudios() -> None:
    forced_align = pytest.importorskip("torchaudio.functional").forced_align
    log_probs, ids = draw_log_probs(900, 30), torch.randint(29, (250,), generator=torch.Generator().manual_seed(0))
    path, _ = forced_align(log_probs[None], ids[None].int(), blank=29)
    assert path_of(align(log_probs, ids.tolist()), ids.tolist(), 900, 29) == path[0].tolist()


def test_what_does_not_fit_is_not_aligned() -> None:
    with pytest.raises(InputError, match="2 ids need 3 frames to be aligned, got 2"):
        align(draw_log_probs(2, 4), [1, 1])
    assert align(draw_log_probs(3, 4), [1, 1]) == [(0, 1), (2, 3)]
    assert align(draw_log_probs(3, 4), []) == align(draw_log_probs(0, 4), []) == []
