"""A text as n-grams: what a token holds, what is left out in training, and what is refused."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from anyformer.errors import InputError
from anyformer.tokenizers.text.ngrams import NGrams


def test_a_token_is_the_n_grams_that_end_there() -> None:
    one, two = (NGrams(n=3).encode(text).content for text in ("abcd", "xbcd"))
    same = one == two
    # The unigram of `b`, the bigrams without the first letter, and the trigram `bcd` alone do not see it.
    assert same.tolist() == [[False, False, False], [True, False, False], [True, True, False], [True, True, True]]


def test_where_a_text_begins_is_part_of_its_first_n_grams() -> None:
    first, later = NGrams(n=2).encode("ab").content[0], NGrams(n=2).encode("ba").content[1]
    assert first[0] == later[0] and first[1] != later[1]


def test_words_are_cut_apart_from_punctuation_and_spaces() -> None:
    words = NGrams(unit="words", n=1)
    assert len(words.encode("It's  one, naïve\ttest.")) == words.count("It's  one, naïve\ttest.") == 8
    assert torch.equal(words.encode("a  b").content, words.encode("a b").content)


def test_ids_are_the_same_in_every_process() -> None:
    code = "from anyformer.tokenizers.text.ngrams import NGrams; print(NGrams().encode('C[C@H]').content.tolist())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == str(NGrams().encode("C[C@H]").content.tolist())
    assert int(NGrams(n_buckets=7).encode("abcdefgh" * 9).content.max()) == 6


def test_in_training_a_share_of_the_tokens_is_left_out_and_the_others_stay_where_they_are() -> None:
    tokenizer, text = NGrams(dropout=0.25), "the quick brown fox " * 20
    whole = tokenizer.encode(text)
    drawn = [tokenizer.encode(text, np.random.default_rng(seed)) for seed in range(20)]
    assert np.mean([len(tokens) for tokens in drawn]) == pytest.approx(0.75 * len(whole), rel=0.02)
    assert all(torch.equal(whole.content[tokens.position[:, 0]], tokens.content) for tokens in drawn)
    assert all(len(NGrams(dropout=0.99).encode("ab", np.random.default_rng(seed))) >= 1 for seed in range(20))
    assert len(tokenizer.encode("", np.random.default_rng(0))) == 0


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: NGrams(n=0), "n must be at least 1"),
        (lambda: NGrams(n_buckets=0), "n_buckets must be at least 1"),
        (lambda: NGrams(dropout=1.0), "dropout must be from 0 to below 1"),
        (lambda: NGrams(max_len=3).encode("abcd"), "the text has 4 characters, more than max_len=3"),
        (lambda: NGrams(unit="words", max_len=1).count("a b"), "the text has 2 words, more than max_len=1"),
        (lambda: NGrams().encode(3), "a text must be a string, got int"),
    ],
)
def test_what_cannot_be_is_refused(make, said) -> None:
    with pytest.raises(InputError, match=said):
        make()
