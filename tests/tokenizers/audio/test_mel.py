"""The spectrogram against those of Whisper, transformers and torchaudio, and clip by clip."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchaudio
import transformers
import whisper
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

from anyformer.errors import InputError
from anyformer.tokenizers.audio.mel import MelConfig, filter_bank, log_mel
from tests.helpers.sounds import hiss, tone

WHISPER, HTK = MelConfig(), MelConfig("htk", n_mels=26)


def speech(seconds: float = 1.3) -> Tensor:
    """Something of all frequencies, loud and soft."""
    n = round(16_000 * seconds)
    sweep = torch.cumsum(torch.linspace(80, 7000, n, dtype=torch.float64), 0) / 16_000
    return (torch.sin(2 * torch.pi * sweep) * torch.linspace(0.001, 0.8, n) + hiss(n, level=0.003)).float()


def gap(ours: Tensor, theirs: Tensor | np.ndarray) -> float:
    theirs = torch.as_tensor(theirs)
    assert ours.shape == theirs.shape
    return (ours - theirs).abs().max().item()


# Witnesses


@pytest.mark.parametrize("n_mels", [80, 128])
def test_it_is_whispers_own_front_end(n_mels):
    for samples in (speech(), speech(0.21), hiss(16_007)):
        (mel,) = log_mel([samples], MelConfig(n_mels=n_mels))
        assert gap(mel.T, whisper.log_mel_spectrogram(samples, n_mels)) < 1e-4


@pytest.mark.parametrize("n_mels", [80, 128])
def test_it_is_that_of_transformers_at_30_seconds(n_mels):
    theirs = transformers.WhisperFeatureExtractor(n_mels)
    samples = speech()
    (mel,) = log_mel([torch.cat([samples, torch.zeros(480_000 - len(samples))])], MelConfig(n_mels=n_mels))
    expected = theirs(samples.numpy(), sampling_rate=16_000).input_features[0]
    assert mel.shape == (3000, n_mels) and gap(mel.T, expected) < 1e-4


def test_bands_of_power_are_those_of_torchaudio():
    config = MelConfig(rate=8000, window=200, hop=80, n_mels=40, f_min=60, f_max=3500)
    samples = speech()
    power = torchaudio.transforms.MelSpectrogram(
        8000, 200, hop_length=80, f_min=60, f_max=3500, n_mels=40, norm="slaney", mel_scale="slaney"
    )(samples)[:, :-1]
    expected = power.clamp(min=1e-10).log10()
    (mel,) = log_mel([samples], config)
    assert gap(mel.T, (expected.clamp(min=expected.max() - 8) + 4) / 4) < 1e-4


@pytest.mark.parametrize("n_mels", [26, 40])
def test_htks_are_those_that_kaldi_computes_when_told_so(n_mels):
    samples = speech()
    expected = torchaudio.compliance.kaldi.fbank(
        samples[None] * 2**15,
        htk_compat=True,
        low_freq=0,
        num_mel_bins=n_mels,
        remove_dc_offset=False,
        use_power=False,
        window_type="hamming",
    ).clamp(min=0)
    (mel,) = log_mel([samples], MelConfig("htk", n_mels=n_mels))
    assert gap(mel, expected) < 1e-3  # They count frequencies in float32.
    assert mel.std() > 1


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        (WHISPER, "slaney"),
        (MelConfig(n_mels=128), "slaney"),
        (HTK, "htk"),
        (MelConfig("htk", 8000, 160, 80, 20, 100.0), "htk"),
    ],
)
def test_filters_are_those_of_transformers(config, scale):
    expected = mel_filter_bank(
        config.n_fft // 2 + 1,
        config.n_mels,
        config.f_min,
        config.highest,
        config.rate,
        norm="slaney" if scale == "slaney" else None,
        mel_scale=scale,
        triangularize_in_mel_space=False,
    )
    # Theirs for HTK's are straight in Hz; narrow triangles hardly differ.
    tolerance = 1e-9 if scale == "slaney" else 0.06
    assert np.abs(filter_bank(config) - expected).max() < tolerance


def test_htks_filters_are_straight_in_mel():
    bank = filter_bank(HTK)
    mels = 2595 * np.log10(1 + np.linspace(0, 8000, 257) / 700)
    # Between the middles of two neighbours they share each frequency, as HTK computes them.
    middles = np.linspace(0, mels[-1], 28)[1:-1]
    between = (mels >= middles[0]) & (mels <= middles[-1])
    assert bank[between].sum(1) == pytest.approx(1)
    assert (bank.argmax(1)[between] == np.abs(mels[between, None] - middles).argmin(1)).all()


# Clips


@pytest.mark.parametrize("config", [WHISPER, HTK, MelConfig(hop=137, window=411)], ids=["whisper", "htk", "odd"])
@given(lengths=st.lists(st.integers(1, 3000), min_size=1, max_size=5), seed=st.integers(0, 9))
def test_a_ragged_batch_is_its_clips_alone(config, lengths, seed):
    clips = [hiss(n, seed + i, 10.0 ** -(i + seed) % 1) for i, n in enumerate(lengths)]
    together = log_mel(clips, config)
    for clip, mel in zip(clips, together, strict=True):
        (alone,) = log_mel([clip], config)
        assert mel.shape == (config.n_frames(len(clip)), config.n_mels)
        torch.testing.assert_close(mel, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("config", [WHISPER, HTK], ids=["whisper", "htk"])
def test_chunks_have_no_seam(config, monkeypatch):
    clips = [speech(), hiss(3000)]
    at_once = log_mel(clips, config)
    monkeypatch.setattr("anyformer.tokenizers.audio.mel.CHUNK", 7)
    torch.testing.assert_close(log_mel(clips, config), at_once, rtol=0, atol=1e-5)


@pytest.mark.parametrize("config", [WHISPER, HTK], ids=["whisper", "htk"])
@pytest.mark.parametrize("n", [0, 1, 150, 200, 201, 399, 400])
def test_the_shortest_clips_have_a_frame(config, n):
    (mel,) = log_mel([hiss(n)], config)
    assert mel.isfinite().all() and len(mel) == config.n_frames(n) == (2 if config is WHISPER and n >= 320 else 1)


@pytest.mark.parametrize("config", [WHISPER, HTK], ids=["whisper", "htk"])
def test_silence_is_finite_and_a_tone_lies_in_its_band(config):
    silent, heard = log_mel([torch.zeros(8000), tone(1000).float()], config)
    assert silent.isfinite().all() and silent.std() == 0
    edges = filter_bank(config)[round(1000 / 16_000 * config.n_fft)]
    assert heard[20:-20].argmax(1).unique().tolist() == [edges.argmax()]


def test_no_clips_are_no_spectrograms():
    assert log_mel([], WHISPER) == []


def test_samples_of_another_type_are_taken_as_they_are():
    torch.testing.assert_close(log_mel([speech().double()], WHISPER), log_mel([speech()], WHISPER))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hop": 0}, "mel.hop must be at least 1, got 0"),
        ({"window": 100}, "mel.window must be at least hop=160, so that nothing is left out, got 100"),
        ({"f_max": 9000}, "must lie between 0 and 8000, half the rate, the first below the second, got 0 and 9000"),
        ({"f_min": 500, "f_max": 400}, "the first below the second, got 500 and 400"),
        ({"n_mels": 200}, "mel.n_mels=200 leaves bands without a frequency; use fewer, or a longer window"),
    ],
)
def test_options_that_cannot_be_say_why(options, message):
    with pytest.raises(InputError, match=message):
        MelConfig(**options)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("config", [WHISPER, HTK], ids=["whisper", "htk"])
def test_a_gpu_gives_the_same(config):
    clips = [speech(), hiss(3000), hiss(90)]
    for ours, theirs in zip(log_mel(clips, config), log_mel(clips, config, "cuda"), strict=True):
        assert theirs.is_cuda and gap(ours, theirs.cpu()) < 1e-3
