"""Sounds and series as statistics."""

from __future__ import annotations

import numpy as np
import pytest

from anyformer.baselines.features.signals import MelSegments, SeriesSegments
from anyformer.tokenizers.audio.audio import Audio
from anyformer.tokenizers.audio.mel import MelConfig
from anyformer.tokenizers.series.series import Series


def test_a_rising_tone_moves_up_the_bands_from_stretch_to_stretch() -> None:
    time = np.arange(8000) / 8000
    sweep = np.sin(2 * np.pi * (200 * time + 1500 * time**2)).astype(np.float32)
    mel = MelConfig(rate=8000, window=256, hop=80, n_mels=20)
    found = MelSegments(Audio(mel=mel)).read(sweep)
    means, most, length = found[:120].reshape(6, 20), found[120:240].reshape(6, 20), found[240:]
    loudest = means.argmax(1)
    assert (np.diff(loudest) > 0).all() and (most >= means).all()
    assert length == pytest.approx(np.log(100))


def test_series_of_any_length_come_to_as_many_columns_and_missing_channels_are_flagged() -> None:
    features = SeriesSegments(Series())
    records = [{"a": [1.0, 2, 3], "b": [0.0, 0, 6]}, {"a": list(range(30)), "b": None}, {"a": [5.0], "b": [7.0]}]
    kept = [features.read(record) for record in records]
    features.fit(kept)
    found = features.transform(kept)
    assert len(found) == 3 and not np.isnan(found).any()
    # The mean, the deviation, the least, the most, the first, the last and the change, of both channels.
    assert found[0, [0, 2, 4, 6, 8, 10, 12]] == pytest.approx([2, np.std([1, 2, 3]), 1, 3, 1, 3, 1])
    assert found[0, [1, 13]] == pytest.approx([2, 3])
    assert found[:, -1].tolist() == [0, 1, 0]


def test_arrays_whose_steps_come_first_are_read_as_such() -> None:
    values = np.arange(12.0).reshape(6, 2)
    turned, straight = SeriesSegments(Series(time_first=True)), SeriesSegments(Series())
    for features, value in ((turned, values), (straight, values.T)):
        features.fit([features.read(value)] * 2)
    assert np.array_equal(turned.transform([turned.read(values)]), straight.transform([straight.read(values.T)]))
    timed = SeriesSegments(Series(times="t"))
    kept = timed.read({"t": [0.0, 1.0, 4.0], "x": [1.0, 2.0, 6.0]})
    timed.fit([kept])
    assert timed.transform([kept])[0, 0] == pytest.approx(3)
