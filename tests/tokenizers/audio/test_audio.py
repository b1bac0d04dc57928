"""Sound as tokens: slices and stems, lengths, and the laws of the lifts."""

from __future__ import annotations

import jsonargparse
import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from anyformer.errors import InputError
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.positions import PositionConfig
from anyformer.packing import collate
from anyformer.planning.parameters import measure, token_counts
from anyformer.tokenizers.audio.audio import Audio, AudioLift, AudioStem
from anyformer.tokenizers.audio.augmentation import SoundAugmentation, SpecAugment
from anyformer.tokenizers.audio.mel import MelConfig, log_mel
from anyformer.tokenizers.mixing import Mixing
from tests.helpers.lifts import assert_lifted_alone
from tests.helpers.sounds import hiss, sound_file, tone
from tests.helpers.witnesses import redraw

MEL = MelConfig(n_mels=20)
AUDIO = {
    "slices": Audio(MEL, slice=3),
    "whisper": Audio(MEL, stem=AudioStem()),
    "by 4": Audio(MEL, stem=AudioStem(d_hidden=5, strides=(2, 2), activation="relu")),
    "wide": Audio(MEL, stem=AudioStem(d_hidden=4, kernel=7, strides=(2, 1, 3), activation="silu")),
    "htk": Audio(MelConfig("htk", n_mels=20), slice=2),
    "padded": Audio(MEL, stem=AudioStem(), pad_to_seconds=0.5),
    "silent": Audio(MEL, stem=AudioStem(), pad_seconds=0.3),
}
EVERY = pytest.mark.parametrize("audio", AUDIO.values(), ids=AUDIO)


# Tokens


@EVERY
@given(n=st.integers(1, 20_000), rate=st.sampled_from([16_000, 8000, 44_100]))
def test_a_header_tells_the_number_of_tokens(audio, n, rate):
    record = (hiss(n), rate)
    tokens = audio.encode(record)
    assert len(tokens) == audio.count(record) == -(-len(audio.decode(tokens)) // audio.frames_per_token) >= 1
    assert tokens.position[:, 0].tolist() == list(range(len(tokens)))
    assert tokens.order.tolist() == [0] * len(tokens)


def test_three_seconds_are_three_seconds():
    for audio, n in ((Audio(slice=4), 75), (Audio(stem=AudioStem()), 150), (Audio(stem=AudioStem(strides=(2, 2))), 75)):
        assert len(audio.encode(hiss(48_000))) == n and n * audio.seconds_per_token == pytest.approx(3)


def test_the_content_is_the_spectrogram():
    samples = hiss(4000)
    (mel,) = log_mel([samples], MEL)
    assert torch.equal(AUDIO["whisper"].encode(samples).content, mel)
    tokens = AUDIO["slices"].encode(samples)
    assert tokens.content.shape == (9, 60) and torch.equal(AUDIO["slices"].decode(tokens)[:25], mel)
    # What the last slice lacks is as silent as anything in the clip.
    assert (AUDIO["slices"].decode(tokens)[25:] == mel.min()).all()


def test_padded_to_30_seconds_it_is_what_whisper_sees():
    audio = Audio(stem=AudioStem(), pad_to_seconds=30)
    samples = tone(440, 2).float()
    expected = transformers.WhisperFeatureExtractor()(samples.numpy(), sampling_rate=16_000).input_features[0]
    assert np.abs(audio.encode(samples).content.T.numpy() - expected).max() < 1e-4
    assert audio.sizes == {"time": 1500} and audio.count(samples) == 1500


def test_a_recording_may_be_brought_to_a_level():
    soft, loud = tone(440, level=0.003).float(), tone(440, level=0.9).float()
    for level in ("peak", "rms"):
        audio = Audio(MEL, level=level)
        torch.testing.assert_close(audio.encode(soft).content, audio.encode(loud).content, atol=1e-3, rtol=0)
    assert (Audio(MEL).encode(soft).content - Audio(MEL).encode(loud).content).abs().max() > 0.5


@pytest.mark.parametrize("norm", ["bands", "clip"])
def test_a_spectrogram_may_be_brought_to_mean_0_and_deviation_1(norm):
    mel = Audio(MEL, norm=norm, stem=AudioStem()).encode(tone(440).float() + hiss(16_000)).content
    axes = 0 if norm == "bands" else (0, 1)
    assert mel.mean(axes).abs().max() < 1e-4 and (mel.std(axes, correction=0) - 1).abs().max() < 1e-4
    assert (mel.std(0) - 1).abs().max() < 0.01 or norm == "clip"


@pytest.mark.parametrize("level", [None, "peak", "rms"])
@pytest.mark.parametrize("norm", [None, "bands", "clip"])
def test_silence_is_no_trouble(level, norm):
    augment = SoundAugmentation(speeds=(0.9,), gain=6, noise=(0, 10), masks=SpecAugment(warp=5))
    audio = Audio(MEL, level=level, norm=norm, augment=augment)
    for random in (None, np.random.default_rng(0)):
        tokens = audio.encode(torch.zeros(8000), random)
        assert tokens.content.isfinite().all() and not audio.show(tokens).any()


def test_how_far_time_reaches():
    assert Audio(stem=AudioStem()).sizes == {"time": 1500} and Audio(slice=4, max_seconds=10).sizes == {"time": 250}
    assert Audio(max_seconds=None).sizes == {}
    slow = Audio(MEL, slice=1, max_seconds=0.5, augment=SoundAugmentation(speeds=(0.8, 1.0)))
    assert slow.sizes == {"time": 62}
    lengths = {len(slow.encode(hiss(8000), np.random.default_rng(seed))) for seed in range(9)}
    assert lengths == {50, 62}


def test_a_recording_that_is_too_long_is_refused():
    for ask in (Audio(max_seconds=1).encode, Audio(max_seconds=1).count):
        with pytest.raises(InputError, match=r"recording: 1\.1 seconds long, more than max_seconds=1"):
            ask(hiss(17_600))


def test_it_is_shown_with_time_to_the_right_and_frequency_up():
    for audio in (AUDIO["slices"], AUDIO["whisper"]):
        picture = audio.show(audio.encode(torch.cat([tone(300, 0.3), tone(6000, 0.3)]).float()))
        assert picture.shape == (20, 60, 3) and picture.dtype == np.uint8
        assert picture[:, 10, 0].argmax() > 15 and picture[:, 50, 0].argmax() < 5


@EVERY
def test_sounds_are_blended_at_the_length_of_the_first(audio):
    short, long = audio.encode(hiss(3000, 1)), audio.encode(hiss(9000, 2))
    for first, other in ((short, long), (long, short), (short, short)):
        mixed, share = audio.mix(first, other, Mixing(mixup=1.0), np.random.default_rng(0))
        assert mixed.extent == first.extent and torch.equal(mixed.position, first.position) and 0 < share < 1
        one, two, both = (audio.decode(tokens) for tokens in (first, other, mixed))
        assert len(both) == len(one)
        # What was put in stands there, from some place on, and again where it is too short.
        over = (both - share * one) / (1 - share)
        starts = range(max(len(two) - len(one), 0) + 1)
        turned = [two.repeat(9, 1)[start : start + len(one)] for start in starts]
        assert min((over - each).abs().max() for each in turned) < 1e-3


def test_any_part_of_a_longer_sound_may_be_blended_in():
    audio = AUDIO["slices"]
    short, long = audio.encode(hiss(3000, 1)), audio.encode(hiss(9000, 2))
    one, two, starts = audio.decode(short), audio.decode(long), []
    for seed in range(60):
        mixed, share = audio.mix(short, long, Mixing(mixup=9.0), np.random.default_rng(seed))
        over = (audio.decode(mixed) - share * one) / (1 - share)
        apart = [(over - two[start : start + len(one)]).abs().max() for start in range(len(two) - len(one) + 1)]
        starts.append(int(np.argmin(apart)))
    last = len(two) - len(one)
    assert min(starts) < last / 8 and max(starts) > last * 7 / 8 and len(set(starts)) > last / 3


def test_cutmix_puts_a_rectangle_of_one_spectrogram_into_another():
    audio = AUDIO["whisper"]
    one, other = audio.encode(hiss(16_000, 1)), audio.encode(hiss(16_000, 2))
    mixed, share = audio.mix(one, other, Mixing(cutmix=1.0), np.random.default_rng(3))
    taken = mixed.content == other.content
    assert torch.equal(mixed.content[~taken], one.content[~taken]) and 0 < share < 1
    assert taken.float().mean().item() == pytest.approx(1 - share, abs=0.01)
    assert audio.unmixable is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Audio(slice=0), "slice must be at least 1, got 0"),
        (lambda: Audio(max_seconds=0), "max_seconds must be above 0, got 0"),
        (lambda: Audio(pad_to_seconds=-1), "pad_to_seconds must be above 0, got -1"),
        (lambda: Audio(pad_seconds=0), "pad_seconds must be above 0, got 0"),
        (lambda: AudioStem(kernel=4), "stem.kernel must be odd, got 4"),
        (lambda: AudioStem(strides=()), r"stem.strides must be a number for each convolution, at least 1, got \(\)"),
        (lambda: AudioStem(strides=(2, 0)), r"stem.strides must be a number .* got \(2, 0\)"),
        (lambda: AudioStem(d_hidden=0), "stem.d_hidden must be at least 1, got 0"),
    ],
)
def test_options_that_cannot_be_say_why(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_yaml_names_it_with_lists():
    parser = jsonargparse.ArgumentParser()
    parser.add_class_arguments(Audio, "audio")
    plain = {"mel": {"n_mels": 40}, "stem": {"strides": [2, 2]}, "level": "peak"}
    plain["augment"] = {"speeds": [0.9, 1.1], "noise": [10, 40], "masks": {"time_share": 0.2}}
    augment = SoundAugmentation(speeds=(0.9, 1.1), noise=(10, 40), masks=SpecAugment(time_share=0.2))
    expected = Audio(MelConfig(n_mels=40), stem=AudioStem(strides=(2, 2)), level="peak", augment=augment)
    assert parser.instantiate(parser.parse_object({"audio": plain})).audio == expected
    assert hash(Audio(stem=AudioStem(strides=[2, 2]))) == hash(Audio(stem=AudioStem(strides=(2, 2))))


# Lifts


def lifted(audio: Audio, seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    lift = audio.lift(7).double()
    redraw(lift)
    return lift


@pytest.mark.parametrize("audio", list(AUDIO.values())[:4], ids=list(AUDIO)[:4])
@pytest.mark.parametrize("lengths", [(30, 1, 31, 30, 2, 17, 64), (12, 12, 12), (5,), (1, 2)])
def test_lifting_a_batch_equals_lifting_each_clip_forward_and_gradient(audio, lengths):
    lift = lifted(audio)
    samples = [audio.encode(hiss(160 * n, seed)) for seed, n in enumerate(lengths)]
    assert_lifted_alone(lift, samples)


@given(
    lengths=st.lists(st.integers(1, 40), min_size=2, max_size=6),
    kernel=st.sampled_from([1, 3, 5, 9]),
    strides=st.lists(st.integers(1, 4), min_size=1, max_size=3),
)
def test_any_stem_lifts_any_batch_as_its_clips(lengths, kernel, strides):
    audio = Audio(MelConfig(n_mels=3), stem=AudioStem(d_hidden=4, kernel=kernel, strides=tuple(strides)))
    lift = lifted(audio)
    clips = [torch.randn(n, 3, dtype=torch.float64) for n in lengths]
    together = lift(torch.cat(clips), tuple((n,) for n in lengths))
    alone = [lift(clip, ((len(clip),),)) for clip in clips]
    assert [len(part) for part in alone] == [-(-n // np.prod(strides)) for n in lengths]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-9)


def test_without_the_gaps_a_clip_would_hear_its_neighbour():
    lift = lifted(AUDIO["whisper"])
    one, other, third = (torch.randn(n, 20, dtype=torch.float64) for n in (9, 12, 12))
    extents = ((9,), (12,))
    first, second = lift(torch.cat([one, other]), extents), lift(torch.cat([one, third]), extents)
    assert torch.equal(first[:5], second[:5]) and not torch.equal(first[5:], second[5:])
    joined = lift(torch.cat([one, other]), ((21,),))
    assert (joined[:5] - first[:5]).abs().max() > 0.01


@EVERY
def test_without_sound_gradients_are_zero_and_not_none(audio):
    lift, empty = audio.lift(7), audio.empty()
    vectors = lift(empty.content, ())
    assert vectors.shape == (0, 7)
    vectors.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in lift.parameters())
    sample = audio.encode(hiss(3000))
    assert (empty.content.shape[1:], empty.content.dtype) == (sample.content.shape[1:], sample.content.dtype)
    assert (empty.position.shape[1:], empty.position.dtype) == (sample.position.shape[1:], sample.position.dtype)
    assert len(empty.extent) == len(sample.extent)


def test_the_stem_is_whispers():
    config = transformers.WhisperConfig(
        d_model=12, encoder_layers=0, encoder_attention_heads=2, num_mel_bins=20, max_source_positions=9
    )
    witness = transformers.models.whisper.modeling_whisper.WhisperEncoder(config).double()
    lift = AudioLift(AudioStem(), 20, 12).double()
    redraw(lift)
    for ours, theirs in zip(lift.convolutions, (witness.conv1, witness.conv2), strict=True):
        theirs.load_state_dict(ours.state_dict())
    nn.init.zeros_(witness.embed_positions.weight)
    witness.layer_norm = nn.Identity()
    mel = torch.randn(18, 20, dtype=torch.float64)
    torch.testing.assert_close(lift(mel, ((18,),)), witness(mel.T[None]).last_hidden_state[0])


# In a model


@EVERY
def test_a_model_gives_a_clip_the_same_in_company_and_alone(audio):
    sines = EmbeddingConfig(positions=[PositionConfig(("time",), "sinusoidal")])
    model = Anyformer({"sound": audio}, TransformerConfig(d_model=12, n_heads=3, depth=2), sines).eval()
    redraw(model)
    samples = [{"sound": audio.encode(hiss(160 * n, n))} for n in (31, 4, 18)]
    batches = [collate(samples, {"sound": audio}, rows=[0, 1, 1]), *(collate([s], {"sound": audio}) for s in samples)]
    with torch.no_grad():
        together, *alone = (batch.by_field(model(batch))["sound"] for batch in batches)
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-4)


def test_a_stem_is_counted_at_the_sizes_that_it_runs_at():
    audio = Audio(MelConfig(n_mels=80), stem=AudioStem(d_hidden=5), max_seconds=2)
    with torch.device("meta"):
        model = Anyformer({"sound": audio}, TransformerConfig(d_model=12, n_heads=3, depth=0))
    sizes = measure(model, token_counts(model))
    assert sizes.tokens == {"sound": 100} and sizes.flops == 2 * 3 * (200 * 80 * 5 + 100 * 5 * 12)


def test_files_are_read(tmp_path):
    (tmp_path / "a.flac").write_bytes(sound_file(hiss(9000), kind="FLAC"))
    assert Audio().reads_files and ".flac" in Audio().endings
    assert len(Audio().encode(str(tmp_path / "a.flac"))) == Audio().count(str(tmp_path / "a.flac")) == 14


def test_silence_behind_is_as_long_as_asked_and_ends_with_what_is_taken() -> None:
    audio, plain = Audio(stem=AudioStem(), pad_seconds=5, max_seconds=10), Audio(stem=AudioStem(), max_seconds=10)
    for seconds, whole in ((2, 7), (6, 10), (10, 10)):
        sound = np.random.default_rng(0).standard_normal(16_000 * seconds).astype(np.float32) / 10
        silent = np.concatenate([sound, np.zeros(16_000 * (whole - seconds), np.float32)])
        found, expected = audio.encode((sound, 16_000)), plain.encode((silent, 16_000))
        assert torch.equal(found.content, expected.content) and len(found) == 50 * whole
    assert audio.sizes == plain.sizes
