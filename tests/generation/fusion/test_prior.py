"""What a prior says of a text is the same id by id, and what its parts say of the whole."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anyformer.generation.fusion.ngrams import END_UNIT, NGrams
from anyformer.generation.fusion.prior import UNFINISHED, PriorScorer, TextPrior
from anyformer.tokenizers.text.text import Text

TEXTS = ["ab a", "ba ab", "a b ab"]
LETTERS = Text("characters").fit(["ab "])
PIECES = Text("bpe", vocab_size=262).fit(["ab ab ab ba ba \u00e9"] * 3)


def by_hand(text: str, ngrams: NGrams, by_word: bool, weight: float, bonus: float) -> float:
    words = text.split()
    units = words if by_word else list(" ".join(words))
    context, total = ngrams.start, bonus * len(words)
    for unit in [*units, END_UNIT]:
        total += weight * ngrams.log_prob(context, unit)
        context = ngrams.after(context, unit)
    return total


@given(
    text=st.text("ab ", max_size=9),
    by_word=st.booleans(),
    order=st.integers(1, 3),
    tokenizer=st.sampled_from([LETTERS, PIECES, Text("bytes")]),
)
def test_the_score_of_a_text_is_that_of_its_words_or_characters(text, by_word, order, tokenizer) -> None:
    ngrams = NGrams([each.split() if by_word else each for each in TEXTS], order)
    prior = TextPrior(tokenizer, ngrams, by_word, weight=0.7, word_bonus=0.3)
    ids = tokenizer.encode_batch([text])[0].tolist()
    assert prior.score(ids) == pytest.approx(by_hand(text, ngrams, by_word, 0.7, 0.3))


def test_special_ids_say_nothing_and_a_character_of_several_bytes_is_one() -> None:
    tokenizer = Text("bytes")
    ngrams = NGrams(["\u00e9", "e"], 2)
    prior = TextPrior(tokenizer, ngrams, by_word=False, weight=1.0)
    ids = tokenizer.encode_batch(["\u00e9"])[0].tolist()
    assert len(ids) == 2 and prior.score(ids) == pytest.approx(by_hand("\u00e9", ngrams, False, 1.0, 0.0))
    assert prior.score([tokenizer.eos_id, *ids, tokenizer.mask_id]) == prior.score(ids)
    of_letters = TextPrior(LETTERS, lexicon=["ab"])
    a, b = LETTERS.encode_batch(["ab"])[0].tolist()
    assert of_letters.score([a, b]) == 0 and of_letters.score([a, LETTERS.unk_id, b]) == -math.inf


def test_nothing_but_the_words_of_a_lexicon_may_be_written() -> None:
    prior = TextPrior(LETTERS, lexicon=["ab", "abba"], word_bonus=0.5)

    def score(text: str) -> float:
        return prior.score(LETTERS.encode_batch([text])[0].tolist())

    assert score("ab abba") == 1.0 and score("") == 0 and score(" ab ") == 0.5
    assert score("abb") == UNFINISHED and score("ab ab ab") == 1.5
    assert score("b") == score("ab ba") == score("abb ab") == -math.inf
    ids = LETTERS.encode_batch(["ab abb"])[0].tolist()
    assert LETTERS.decode(prior.whole_words(ids)).strip() == "ab" and prior.whole_words(ids[:2]) == ids[:2]


def test_the_rows_of_a_generation_are_scored_as_their_texts() -> None:
    ngrams = NGrams([each.split() for each in TEXTS], 2)
    prior = TextPrior(LETTERS, ngrams, weight=1.0, word_bonus=0.2)
    eos, n_ids = LETTERS.eos_id, LETTERS.n_ids
    texts = ["ab ab", "a b a", "ba ba"]
    all_ids = [LETTERS.encode_batch([text])[0].tolist() for text in texts]
    scorer, totals = PriorScorer(prior, 3, n_ids, [eos]), torch.zeros(3, dtype=torch.float64)
    for step in range(5):
        new = [ids[step] for ids in all_ids]
        found = scorer.score()
        assert found.shape == (3, n_ids)
        totals += found[torch.arange(3), new]
        scorer.advance(new)
    totals += scorer.score()[:, eos]
    assert totals.tolist() == pytest.approx([prior.score(ids) for ids in all_ids])
    before = scorer.score()
    scorer.copy([(0, 1)])
    scorer.select([2, 1, 1])
    assert torch.equal(scorer.score(), before[[2, 0, 0]])
