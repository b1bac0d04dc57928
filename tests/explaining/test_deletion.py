"""Deletion curves: what is taken out, and what is said of it."""

from __future__ import annotations

import numpy as np
import torch

from anyformer.explaining.deletion import DRAWS, Deletion, deletion, n_passes, over_records
from tests.helpers.explained import OfClass, model_of, sample

WORTH = {"left": torch.arange(10.0), "right": torch.zeros(4), "picture": torch.zeros(6)}


class Counted(OfClass):
    """Adds up numbers that its tokens are worth, whatever the model says."""

    def values(self, samples, dropped=None):
        self.played = getattr(self, "played", 0) + len(samples)
        gone = dropped or [{}] * len(samples)
        return np.array([45 - sum(float(WORTH[name][which].sum()) for name, which in own.items()) for own in gone])


def test_the_most_relevant_tokens_go_first() -> None:
    asked, own = Counted(model_of()), sample(10, 4)
    right = WORTH
    wrong = {name: -values for name, values in right.items()}
    found = deletion(asked, own, {"right": right, "wrong": wrong})
    # Of 20 tokens 2, 6 and 10 go: 9 + 8, then 7 to 4, then 3 to 0.
    assert found.by_map["right"] == (45 - 17, 45 - 39, 45 - 45)
    assert found.by_map["wrong"] == (45.0, 45.0, 45.0)
    assert found.random.shape == (DRAWS, 3) and (np.diff(found.random, axis=1) <= 0).all()
    assert asked.played == n_passes(2)
    assert found.is_better("right") and not found.is_better("wrong")
    assert found.verdict("right", "points").startswith("better than random: without the tokens that it points at the")
    assert found.verdict("wrong").startswith("no better than random, so do not go by this map")


def test_tokens_of_the_model_stay() -> None:
    own = sample(2, 2)
    values = {name: torch.rand(len(tokens)) for name, tokens in own.items()}
    found = deletion(OfClass(model_of()), own, {"map": values})
    assert found.n_tokens == 10, "without the class token"
    assert np.isfinite(found.random).all()


def test_over_records_the_mean_is_told_with_its_error() -> None:
    random = np.tile([4.0, 3.0, 2.0], (DRAWS, 1))
    records = [Deletion(5, 9, (0.1, 0.3, 0.5), {"map": (4 - d, 3 - d, 2.0)}, random) for d in (0.5, 1.0, 1.5)]
    found = over_records(records)
    assert found.mean["map"] == (1.0, 1.0, 0.0)
    np.testing.assert_allclose(found.error["map"], (0.5 / 3**0.5, 0.5 / 3**0.5, 0))
    assert found.is_better("map")
    assert not over_records([records[0], Deletion(5, 9, (0.1, 0.3, 0.5), {"map": (5, 5, 5)}, random)]).is_better("map")
