"""Which features a tokenizer has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from anyformer.baselines.features.contents import TokenStatistics
from anyformer.baselines.features.features import Vectors
from anyformer.baselines.features.pictures import Pixels
from anyformer.baselines.features.table import FEATURES, features_of
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.points import Points


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
