"""One record cut in several ways: each as alone, learnt and inherited, and its names and mistakes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anyformer.errors import InputError
from anyformer.tokenizers.facets import Facets
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.molecule import Molecule
from anyformer.tokenizers.text.ngrams import NGrams
from anyformer.tokenizers.text.text import Text

TEXTS = ["one two", "three, four", "naïve"]


def test_each_cut_is_what_its_tokenizer_makes_alone() -> None:
    made = Facets({"letters": Text("characters"), "grams": NGrams()}).fit(iter(TEXTS))
    alone = Text("characters").fit(TEXTS)
    for text in TEXTS:
        tokens = made.encode(text)
        assert torch.equal(tokens["letters"].content, alone.encode(text).content)
        assert torch.equal(tokens["grams"].content, NGrams().encode(text).content)
        assert made.count(text) == 2 * len(text)
    assert not made.augments and Facets({"grams": NGrams(dropout=0.5)}).augments


def test_what_one_has_learnt_another_inherits_by_name() -> None:
    made = Facets({"letters": Text("characters"), "grams": NGrams()}).fit(TEXTS)
    other = Facets({"letters": Text("characters"), "words": NGrams(unit="words")}).inherit(made)
    assert other.cuts["letters"] == made.cuts["letters"] and other.cuts["words"] == NGrams(unit="words")
    with pytest.raises(InputError, match=r"text\.letters: not the vocabulary"):
        made.agree(Facets({"letters": Text("characters").fit(["xyz"])}), "text")
    assert Facets({"letters": Text("characters")}).inherit(Text("characters")) == Facets(
        {"letters": Text("characters")}
    )


def test_a_file_is_opened_by_all() -> None:
    made = Facets({"small": ImagePatches((8, 8), patch=4), "large": ImagePatches((16, 16), patch=8)})
    assert made.reads_files and ".png" in made.endings
    assert {name: len(tokens) for name, tokens in made.encode(np.zeros((9, 9), dtype=np.uint8)).items()} == {
        "small": 4,
        "large": 4,
    }


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Facets({}), "cuts must name at least one"),
        (lambda: Facets({"a.b": NGrams()}), "a name must be a word without a dot"),
        (lambda: Facets({"a": Facets({"b": NGrams()})}), "cuts.a: Facets cuts a record into several"),
        (lambda: Facets({"grams": NGrams(), "symbols": Molecule()}).encode("C?"), "symbols: 'C\\?' is no SMILES"),
    ],
)
def test_what_cannot_be_is_refused(make, said) -> None:
    with pytest.raises(InputError, match=said):
        make()
