"""Waveforms at another rate and another level."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anyformer.tokenizers.audio.reading import read_sound, sound_length
from anyformer.tokenizers.audio.waveform import resample, resampled_length, set_level
from tests.helpers.sounds import tone


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 44_100, 48_000, 44_056, 192_000, 16_001, 1001])
def test_any_rate_becomes_ours(rate):
    frequency = min(440, 0.2 * rate)
    read = read_sound((tone(frequency, 1, rate), rate))
    assert len(read) == sound_length((tone(frequency, 1, rate), rate)) and len(read) == 16_000
    inside = slice(1600, 14_400)
    assert (read - tone(frequency)[: len(read)])[inside].abs().max() < 2e-3


def test_what_the_new_rate_cannot_hold_is_filtered_out():
    assert read_sound((tone(11_000, 1, 48_000), 48_000))[800:-800].abs().max() < 1e-3
    assert read_sound((tone(5000, 1, 48_000), 48_000))[800:-800].abs().max() == pytest.approx(0.5, abs=2e-3)


@given(st.integers(1, 10**7), st.sampled_from([(44_100, 16_000), (8000, 16_000), (9, 10), (48_000, 44_100)]))
def test_the_length_is_exact(n, rates):
    old, new = rates
    assert resampled_length(n, old, new) == -(-n * new // old)


@pytest.mark.parametrize("n", [1, 2, 441, 500_007, 1_300_013])
def test_as_many_samples_come_as_were_announced(n):
    assert len(resample(torch.zeros(n), 44_100, 16_000)) == resampled_length(n, 44_100, 16_000)


# Of lengths that need no rounding to make a transform quick.
@pytest.mark.parametrize(
    ("rates", "n"),
    [((8000, 16_000), 4096), ((16_000, 8000), 8192), ((44_100, 16_000), 14_112), ((16_000, 44_100), 5120)],
)
def test_what_ends_a_clip_is_not_heard_at_its_start_nor_what_begins_it_at_its_end(rates, n):
    samples = torch.cat([torch.zeros(n // 2), torch.ones(n // 2)])
    for turn in (lambda clip: clip, lambda clip: clip.flip(0)):
        found = turn(resample(turn(samples), *rates))
        quiet, loud = found[: len(found) // 4], found[-len(found) // 4 : -len(found) // 20]
        assert quiet.abs().max() < 2e-3 and (loud - 1).abs().max() < 5e-3


@pytest.mark.parametrize("n", [1600, 1601, 5000])
@pytest.mark.parametrize("rates", [(8000, 16_000), (44_100, 16_000), (16_000, 44_100)])
def test_resampling_keeps_time(n, rates):
    """An impulse stays where it was, however long the clip."""
    old, new = rates
    for at in (100, n // 2, n - 100):
        samples = torch.zeros(n)
        samples[at - 8 : at + 9] = torch.hann_window(19, periodic=False)[1:-1]
        found = resample(samples, old, new)
        heard = (found * torch.arange(len(found))).sum() / found.sum()
        assert heard.item() == pytest.approx(at * new / old, abs=0.2)


def test_a_recording_is_brought_to_a_level_and_silence_is_not():
    samples = tone(440, level=0.01)
    assert set_level(samples, "peak").abs().max() == pytest.approx(1, abs=1e-3)
    assert set_level(samples, "rms").square().mean().sqrt() == pytest.approx(0.1, abs=1e-3)
    for level in ("peak", "rms"):
        for silent in (torch.zeros(100), torch.full((100,), 1e-30)):
            assert torch.equal(set_level(silent, level), silent)
