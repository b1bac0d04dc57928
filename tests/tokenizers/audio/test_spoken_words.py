"""Speech made in the run."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from anyformer.errors import InputError
from anyformer.tokenizers.audio.audio import Audio
from anyformer.tokenizers.audio.mel import MelConfig
from anyformer.tokenizers.audio.spoken_words import WORDS, SpokenWords
from anyformer.tokenizers.audio.synthesizer import RATE


def sounds(source: SpokenWords) -> list[np.ndarray]:
    return [source[i]["audio"]["array"] for i in range(len(source))]


def test_a_recording_is_a_function_of_part_seed_and_number():
    recordings = sounds(SpokenWords(n=12))
    again = sounds(SpokenWords(n=5))
    assert all((one == other).all() for one, other in zip(recordings, again, strict=False))
    assert len({len(sound) for sound in recordings}) > 6
    assert not np.array_equal(recordings[0], sounds(SpokenWords(n=1, seed=1))[0])
    assert not np.array_equal(recordings[0], sounds(SpokenWords("validation", n=1))[0])


def test_no_phrase_and_no_voice_of_one_part_occurs_in_another():
    parts = {part: SpokenWords(part, n=3000) for part in ("train", "validation", "test")}
    texts = {part: source.column("text") for part, source in parts.items()}
    assert len(set.union(*(set(found) for found in texts.values()))) == sum(len(set(found)) for found in texts.values())
    assert {word for text in texts["train"] for word in text.split()} == set(WORDS)
    assert {len(text.split()) for text in texts["validation"]} == {1, 2, 3, 4}
    assert len(set(texts["train"])) < len(set(texts["test"])) == 3000
    voices = [{script[1].split("+")[1] for script in source._scripts} for source in parts.values()]
    assert sum(map(len, voices)) == len(set.union(*voices)) == 23
    assert "_recordings" not in vars(parts["train"])


def test_a_recording_is_speech_in_noise_of_its_level():
    clean, noisy, noisier = (SpokenWords(n=8, snr=(level, level)) for level in (60.0, 6.0, 0.0))
    # At 0 decibels half of the power is noise, at 6 a fifth.
    for i, (source, share) in product(range(8), ((noisy, 0.2), (noisier, 0.5))):
        record, other = clean[i], source[i]
        assert record["text"] == other["text"] == clean.column("text")[i]
        one, two = (part["audio"]["array"].astype(float) for part in (record, other))
        assert one.shape == two.shape and 3_000 < np.abs(two).max() <= 32_000
        assert np.corrcoef(one, two)[0, 1] == pytest.approx((1 - share) ** 0.5, abs=0.05)
    audio = Audio(mel=MelConfig(rate=RATE, window=512, hop=220))
    assert len(audio.encode(record["audio"])) == audio.count(record["audio"]) > 8
    assert clean.name(3) == "spoken words, train recording 3"
    with pytest.raises(IndexError):
        clean[8]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n must be from 1 to 20,000, got 0"),
        ({"n": 20_001}, "n must be from 1 to 20,000, got 20001"),
        ({"snr": (9, 3)}, r"snr must be two levels in decibels, low <= high, got \[9, 3\]"),
    ],
)
def test_options_that_make_no_sense_are_named(options, message):
    with pytest.raises(InputError, match=message):
        SpokenWords(**options)
