"""Augmentation of series: what is drawn, and how much it changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from anyformer.errors import InputError
from anyformer.tokenizers.series.augmentation import SeriesAugmentation
from anyformer.tokenizers.series.series import Series
from tests.helpers.channels import WALK


def test_augmentation_is_drawn_in_training_alone_and_from_its_generator() -> None:
    augment = SeriesAugmentation(jitter=0.1, scale=0.1, shift=0.1, crop=0.5)
    tokenizer = Series(augment=augment).fit([WALK])
    assert torch.equal(tokenizer.encode(WALK).content, Series().fit([WALK]).encode(WALK).content)
    first, second, third = (tokenizer.encode(WALK, np.random.default_rng(seed)).content for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert first.shape != third.shape or not torch.equal(first, third)
    lengths = {len(tokenizer.encode(WALK, np.random.default_rng(seed))) for seed in range(50)}
    assert lengths == {6, 7, 8, 9, 10, 11}
    stretches = [SeriesAugmentation(crop=0.5).cut(100, np.random.default_rng(seed)) for seed in range(200)]
    for without in (sum(each.start > 0 for each in stretches), sum(each.stop < 100 for each in stretches)):
        assert 150 < without < 200, "it may begin and end anywhere"


def test_augmentation_is_of_the_strength_asked_for() -> None:
    flat = np.zeros((2, 4000))
    tokenizer = Series(channels=2, normalize=False, augment=SeriesAugmentation(jitter=0.5))
    values = tokenizer.encode(flat, np.random.default_rng(0)).content[:, :2]
    assert values.std().item() == pytest.approx(0.5, rel=0.05)
    tokenizer = replace(tokenizer, augment=SeriesAugmentation(shift=0.5))
    values = tokenizer.encode(flat, np.random.default_rng(0)).content[:, :2]
    assert (values == values[0]).all() and values[0, 0] != values[0, 1]
    tokenizer = replace(tokenizer, augment=SeriesAugmentation(scale=0.5))
    assert not tokenizer.encode(flat, np.random.default_rng(0)).content[:, :2].any()
    tokenizer = Series(channels=1000, normalize=False, augment=SeriesAugmentation(scale=0.5))
    values = tokenizer.encode(np.ones((1000, 3)), np.random.default_rng(0)).content[:, :1000]
    assert (values == values[0]).all(), "a channel is multiplied as a whole"
    assert values[0].mean().item() == pytest.approx(1, abs=0.05) and values.std().item() == pytest.approx(0.5, rel=0.1)


def test_what_was_cropped_keeps_its_times_and_a_missing_value_stays_missing() -> None:
    record = {"t": np.arange(20.0), "x": np.where(np.arange(20) % 3, 1.0, np.nan)}
    tokenizer = Series(times="t", augment=SeriesAugmentation(crop=0.3, jitter=1.0, scale=1, shift=1)).fit([record])
    tokens = tokenizer.encode(record, np.random.default_rng(3))
    there = tokens.content[:, 1].bool().tolist()
    assert there == [bool(time % 3) for time in tokens.position[:, 0].round().long().tolist()]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"jitter": -1.0}, "augment.jitter must be at least 0"), ({"crop": 0.0}, "augment.crop must be above 0")],
)
def test_an_augmentation_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SeriesAugmentation(**options)
