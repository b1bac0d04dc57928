"""Texts and SMILES as n-grams."""

from __future__ import annotations

import numpy as np
import pytest

from anyformer.baselines.features.ngrams import CharacterNgrams, TextNgrams, WordNgrams
from anyformer.errors import InputError
from anyformer.tokenizers.molecule import Molecule
from anyformer.tokenizers.text.text import Text
from anyformer.tokenizers.tree.tree import Tree


def test_texts_of_like_words_are_alike_and_capitals_do_not_count() -> None:
    ngrams = TextNgrams(Text())
    texts = ["the red dog runs", "The red dog ran", "snow falls in winter", "snow fell in winter"]
    ngrams.fit(texts)
    found = ngrams.transform([*texts, "THE RED DOG RUNS"])
    likeness = (found @ found.T).toarray()
    assert likeness[0, 1] > 3 * likeness[0, 2]
    assert likeness[0, 4] == pytest.approx(likeness[0, 0])


def test_texts_without_a_word_have_no_columns_and_rare_ones_are_kept_where_there_are_no_others() -> None:
    ngrams = TextNgrams(Text())
    ngrams.fit(["", " "])
    assert ngrams.transform(["a dog", ""]).shape == (2, 0)
    ngrams.fit(["one", "two"])
    assert ngrams.transform(["one"]).sum() > 0


def test_a_larger_molecule_has_more_of_everything() -> None:
    ngrams = CharacterNgrams(Molecule())
    ngrams.fit(["CCO", "CCCCO", "c1ccccc1"])
    small, large = ngrams.transform(["CCO", "CCCCCCO"]).toarray()
    assert (large >= small).all() and large.sum() > small.sum()
    # Case tells aromatic atoms.
    assert not np.array_equal(*ngrams.transform(["CC", "cc"]).toarray())


@pytest.mark.parametrize("features", [TextNgrams(Text()), CharacterNgrams(Molecule())])
def test_what_is_no_text_is_refused(features: TextNgrams | CharacterNgrams) -> None:
    with pytest.raises(InputError, match=r"must be a .*, got int"):
        features.read(3)


def test_of_a_text_with_a_parse_words_are_counted_and_not_characters() -> None:
    ngrams = WordNgrams(Tree("brackets"))
    texts = ["[MAX 1 2 ]", "[MIN 1 2 ]", "[MAX 2 1 ]"]
    ngrams.fit([ngrams.read(text) for text in texts])
    one, again, other = ngrams.transform([ngrams.read(text) for text in (texts[0], "[MAX  1 2 ]", texts[2])]).toarray()
    assert np.array_equal(one, again) and not np.array_equal(one, other)
    # Of "[MAX", "1", "2", "]" and what comes one after another in two texts: "1 2", "2 ]", "1 2 ]".
    assert (one > 0).sum() == 7 and np.allclose(one[one > 0], np.log(2))
    with pytest.raises(InputError, match="is never closed"):
        ngrams.read("[MAX 1 2")
