"""The speech synthesiser in its own process, as it is called."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from anyformer.errors import InputError
from anyformer.tokenizers.audio.spoken_words import synthesize
from anyformer.tokenizers.audio.synthesizer import RATE


def pitch(sound: np.ndarray) -> float:
    """Hz, of the loudest tenth of a second, by its autocorrelation."""
    middle = int(np.convolve(np.square(sound.astype(float)), np.ones(RATE // 10), "same").argmax())
    part = sound[middle - RATE // 20 : middle + RATE // 20].astype(float)
    alike = np.correlate(part, part, "full")[len(part) - 1 :]
    low, high = RATE // 500, RATE // 60
    return RATE / (low + alike[low:high].argmax())


def test_a_text_is_said_by_a_voice_at_a_speed_and_a_pitch():
    usual = ("seven", "en+m1", 170, 50)
    variants = [("seven seven", *usual[1:]), ("seven", "en+m1", 220, 50), ("seven", "en+m1", 170, 90)]
    variants += [("seven", "en+f2", 170, 50), ("eight", *usual[1:])]
    sound, twice, fast, high, woman, other = synthesize([usual, *variants])
    assert sound.dtype == np.int16 and 0.2 * RATE < len(sound) < RATE
    assert len(twice) > 1.6 * len(sound)
    assert len(fast) < 0.9 * len(sound)
    assert 70 < pitch(sound) < 150 < pitch(woman) < 400 and pitch(high) > 1.15 * pitch(sound)
    n = min(len(sound), len(other))
    assert np.corrcoef(sound[:n], other[:n])[0, 1] < 0.5


def test_what_is_said_is_the_same_again_and_never_in_this_process():
    scripts = [(text, "en-us+f4", 150, 60) for text in ("red", "blue door", "red")]
    first, second = synthesize(scripts), synthesize(scripts[:2])
    assert all((one == other).all() for one, other in zip(first, second, strict=False))
    assert "espeakng_loader" not in sys.modules
    assert synthesize([]) == []


def test_a_voice_that_is_not_there_is_named():
    with pytest.raises(InputError, match=r"^the speech synthesiser .* be used: RuntimeError: .* voice 'nobody'$"):
        synthesize([("red", "nobody", 150, 50)])
