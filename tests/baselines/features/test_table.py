"""Which features a tokenizer has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from anyformer.baselines.features.contents import TokenStatistics
from anyformer.baselines.features.features import Vectors
from anyformer.baselines.features.pictures import Pixels
from anyformer.baselines.features.table import FEATURES, features_of
from anyformer.tokenizers.facets import Facets
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.molecule import Molecule
from anyformer.tokenizers.points import Points
from anyformer.tokenizers.text.ngrams import NGrams
from anyformer.tokenizers.text.text import Text


@dataclass(frozen=True)
class Own(ImagePatches):
    """A user's."""


class Brightness(Vectors):
    def read(self, value: object) -> np.ndarray:
        return np.array([np.mean(value)])


def test_a_class_has_those_of_what_it_is_a_subclass_of_and_may_bring_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(features_of(Own())) is Pixels
    assert type(features_of(Points())) is TokenStatistics
    monkeypatch.setitem(FEATURES, Own, Brightness)
    assert type(features_of(Own())) is Brightness and type(features_of(ImagePatches())) is Pixels


def columns(tokenizer: object, texts: list[str]) -> np.ndarray:
    features = features_of(tokenizer)
    kept = [features.read(text) for text in texts]
    features.fit(kept)
    return features.transform(kept).toarray()


def test_of_several_cuts_there_are_the_columns_of_each_kind_once() -> None:
    texts = ["CCO", "CCN", "OCCN"]
    one, other = columns(NGrams(), texts), columns(Text(), texts)
    assert np.array_equal(columns(Facets({"atoms": Molecule(), "grams": NGrams()}), texts), one)
    assert np.array_equal(columns(Facets({"grams": NGrams(), "words": Text()}), texts), np.hstack([one, other]))
