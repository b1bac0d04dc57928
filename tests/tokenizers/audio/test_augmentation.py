"""Augmentation of sound: what it does, what it draws from, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from anyformer.errors import InputError
from anyformer.tokenizers.audio.audio import Audio, AudioStem
from anyformer.tokenizers.audio.augmentation import SoundAugmentation, SpecAugment
from anyformer.tokenizers.audio.mel import MelConfig
from tests.helpers.random_generators import global_generators
from tests.helpers.sounds import hiss, tone

EVERYTHING = {
    "crop": SoundAugmentation(crop=0.5),
    "speeds": SoundAugmentation(speeds=(0.9, 1.0, 1.1)),
    "gain": SoundAugmentation(gain=12),
    "noise": SoundAugmentation(noise=(0, 20)),
    "frequency masks": SoundAugmentation(masks=SpecAugment(n_time_masks=0, frequency_mask=9)),
    "time masks": SoundAugmentation(masks=SpecAugment(n_frequency_masks=0, time_mask=20)),
    "warp": SoundAugmentation(masks=SpecAugment(n_frequency_masks=0, n_time_masks=0, warp=10)),
}


def audio(augment: SoundAugmentation | None) -> Audio:
    return Audio(MelConfig(n_mels=30), stem=AudioStem(), augment=augment)


@pytest.mark.parametrize("augment", EVERYTHING.values(), ids=EVERYTHING)
def test_what_is_drawn_is_a_function_of_the_generator_alone(augment):
    samples, tokenizer = tone(440, 0.5).float() + hiss(8000), audio(augment)

    def content(seed: int | None) -> torch.Tensor:
        return tokenizer.encode(samples, None if seed is None else np.random.default_rng(seed)).content

    before = global_generators()
    drawn = [content(seed) for seed in range(12)]
    assert global_generators() == before
    assert all(torch.equal(content(seed), each) for seed, each in enumerate(drawn))
    assert sum(each.shape != drawn[0].shape or not torch.equal(each, drawn[0]) for each in drawn) >= 3
    assert torch.equal(content(None), audio(None).encode(samples).content)
    assert all(each.isfinite().all() and each.dtype == torch.float32 for each in drawn)


def test_without_augmentation_nothing_is_drawn():
    samples = hiss(8000)
    for augment in (SoundAugmentation(), SoundAugmentation(masks=SpecAugment(0, 9, 0, 9))):
        tokens = audio(augment).encode(samples, np.random.default_rng(0))
        assert torch.equal(tokens.content, audio(None).encode(samples).content)


def test_a_part_of_at_least_a_share_is_kept():
    samples = torch.arange(1000, dtype=torch.float32)
    parts = [SoundAugmentation(crop=0.5).change(samples, np.random.default_rng(seed)) for seed in range(200)]
    assert all(torch.equal(part, samples[int(part[0]) :][: len(part)]) for part in parts)
    assert 500 <= min(map(len, parts)) < 510 and max(map(len, parts)) > 990
    # It may begin and end anywhere: what is at either edge is as a rule left out, and not always.
    for without in (sum(part[0] > 0 for part in parts), sum(part[-1] < 999 for part in parts)):
        assert 150 < without < 200


@pytest.mark.parametrize(("speed", "n"), [(0.9, 17_778), (1.1, 14_546), (2.0, 8000), (1.0, 16_000)])
def test_a_faster_recording_is_shorter_and_higher(speed, n):
    changed = SoundAugmentation(speeds=(speed,)).change(tone(400).float(), np.random.default_rng(0))
    assert len(changed) == n
    heard = torch.fft.rfft(changed[1000:-1000]).abs().argmax() * 16_000 / (n - 2000)
    assert heard == pytest.approx(400 * speed, abs=1)


def test_all_speeds_come():
    augment, random = SoundAugmentation(speeds=(0.9, 1.0, 1.1)), np.random.default_rng(0)
    lengths = [len(augment.change(torch.zeros(9000), random)) for _ in range(60)]
    assert {n: lengths.count(n) > 10 for n in set(lengths)} == {10_000: True, 9000: True, 8182: True}
    assert augment.longest == pytest.approx(1 / 0.9) and SoundAugmentation(speeds=(1.1,)).longest == 1


def test_noise_is_as_much_softer_as_was_drawn():
    samples, random = tone(440, level=0.2).float(), np.random.default_rng(0)
    noise = SoundAugmentation(noise=(20, 20)).change(samples, random) - samples
    assert 10 * torch.log10(samples.square().mean() / noise.square().mean()) == pytest.approx(20, abs=0.2)
    spectrum = torch.fft.rfft(noise).abs().square()
    assert spectrum[:4000].mean() == pytest.approx(spectrum[4000:].mean().item(), rel=0.1)
    sometimes = SoundAugmentation(noise=(20, 20), noise_chance=0.25)
    untouched = [torch.equal(sometimes.change(samples[:100], random), samples[:100]) for _ in range(200)]
    assert 120 < sum(untouched) < 180


def test_gain_is_of_decibels_each_way():
    random, samples = np.random.default_rng(0), hiss(100)
    gains = [(SoundAugmentation(gain=6).change(samples, random) / samples).mean().item() for _ in range(200)]
    assert 10 ** (-6 / 20) <= min(gains) < 0.52 and 1.9 < max(gains) <= 10 ** (6 / 20)


@pytest.mark.parametrize("level", ["peak", "rms"])
def test_a_level_is_that_of_what_is_heard_whatever_was_drawn(level):
    quiet, loud = hiss(8000), hiss(8000, 1) * 20
    still = Audio(MelConfig(n_mels=30), level=level)
    louder = replace(still, augment=SoundAugmentation(gain=12))
    for seed in range(3):
        found = louder.encode(quiet, np.random.default_rng(seed)).content
        torch.testing.assert_close(found, still.encode(quiet).content, atol=1e-4, rtol=1e-4)
    # Of a part it is the level of the part, and not of the whole that it was cut out of.
    cut = SoundAugmentation(crop=0.1)
    for seed in range(20):
        part = cut.change(torch.cat([quiet, loud]), np.random.default_rng(seed))
        found = replace(still, augment=cut).encode(torch.cat([quiet, loud]), np.random.default_rng(seed)).content
        torch.testing.assert_close(found, still.encode(part).content)


def test_masks_hide_runs_of_bands_and_of_frames():
    mel, random = torch.randn(200, 40), np.random.default_rng(0)
    widths, runs, covered = [], [], torch.zeros(200, 40, dtype=torch.bool)
    for _ in range(200):
        hidden = SpecAugment(1, 10, 1, 30).hide(mel, random)
        same = hidden == mel
        bands, frames = ~same.any(0), ~same.any(1)
        assert torch.equal(~same, bands | frames[:, None])
        assert (hidden[~same] == mel.mean()).all()
        covered |= ~same
        widths.append(int(bands.sum()))
        runs.append(int(frames.sum()))
        for places in (bands.nonzero()[:, 0], frames.nonzero()[:, 0]):
            assert len(places) == 0 or places[-1] - places[0] == len(places) - 1
    assert set(widths) == set(range(11)) and (min(runs), max(runs)) == (0, 30)
    assert covered.all(), "the first and the last as well"


def test_a_clip_is_never_hidden_by_more_than_its_share():
    mel, random = torch.randn(50, 8), np.random.default_rng(0)
    masks = SpecAugment(n_frequency_masks=0, n_time_masks=1, time_mask=100, time_share=0.2)
    hidden = [int((masks.hide(mel, random) != mel).all(1).sum()) for _ in range(100)]
    assert max(hidden) == 10
    short = SpecAugment(n_frequency_masks=9, frequency_mask=99, n_time_masks=9, time_mask=99).hide(mel[:1], random)
    assert short.shape == (1, 8) and short.isfinite().all()


def test_time_is_bent_about_a_frame_and_the_length_stays():
    mel = torch.arange(100.0)[:, None].expand(100, 3)
    masks, random = SpecAugment(n_frequency_masks=0, n_time_masks=0, warp=15), np.random.default_rng(0)
    moved = []
    for _ in range(40):
        bent = masks.hide(mel, random)
        assert (
            bent.shape == mel.shape
            and (bent.diff(dim=0) >= 0).all()
            and bent[[0, -1], 0].tolist() == pytest.approx([0, 99])
        )
        moved.append((bent - mel).abs().max().item())
    assert max(moved) > 8 and max(moved) < 16
    short = hiss(90).view(30, 3)
    assert torch.equal(masks.hide(short, random), short)


def test_the_recording_itself_is_left_as_it_was():
    samples, mel, random = hiss(4000), torch.randn(60, 20), np.random.default_rng(0)
    held = samples.clone(), mel.clone()
    everything = SoundAugmentation(gain=9, noise=(0, 0), masks=SpecAugment(warp=9))
    everything.change(samples, random)
    everything.hide(mel, random)
    assert torch.equal(samples, held[0]) and torch.equal(mel, held[1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SoundAugmentation(speeds=(0.9, 0)), r"augment.speeds must lie between 0.1 and 10, got \[0.9, 0\]"),
        (lambda: SoundAugmentation(gain=-1), "augment.gain must be at least 0, got -1"),
        (lambda: SoundAugmentation(noise=(9, 3)), r"augment.noise must be two levels in decibels, low <= high, got"),
        (lambda: SoundAugmentation(noise_chance=2), "augment.noise_chance must be between 0 and 1, got 2"),
        (lambda: SpecAugment(time_mask=-1), "augment.masks.time_mask must be at least 0, got -1"),
        (lambda: SpecAugment(time_share=1.5), "augment.masks.time_share must be between 0 and 1, got 1.5"),
    ],
)
def test_options_that_cannot_be_say_why(make, message):
    with pytest.raises(InputError, match=message):
        make()
