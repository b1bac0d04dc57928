"""A text that repeats itself, is improbable or is of silence is told from a good one."""

from __future__ import annotations

import pytest

from anyformer.errors import InputError
from anyformer.generation.fallback import FallbackOptions, compression, judge

GOOD = "It was the best of times, it was the worst of times."


@pytest.mark.parametrize(
    ("text", "log_prob", "silence", "doubt"),
    [
        (GOOD, -0.99, 0.89, ""),
        (GOOD, -1.01, 0.59, "improbable"),
        (GOOD, -1.01, 0.61, "silence"),
        (GOOD, -0.01, 0.91, "silence"),
        ("and so on " * 20, -0.01, 0.89, "repetition"),
        ("and so on " * 20, -1.01, 0.61, "silence"),
        ("and so on " * 20, -1.01, 0.59, "repetition"),
        ("", -0.01, 0.0, ""),
    ],
)
def test_a_failure_is_called_by_its_name(text: str, log_prob: float, silence: float, doubt: str) -> None:
    assert judge(FallbackOptions(fallback=(0.5,)), text, log_prob, silence) == doubt


def test_the_bounds_are_options() -> None:
    options = FallbackOptions(max_compression=9.0, min_log_prob=-3.0, max_silence=1.0, certain_silence=1.0)
    assert judge(options, "and so on " * 10, -2.0, 0.99) == ""
    assert compression("and so on " * 10) > 2.4 > 1 > compression("x")
    assert compression("\ud800") > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fallback": (0.2, 0.0)}, r"fallback must be temperatures above 0, got \[0.2, 0.0\]"),
        ({"max_silence": 1.5}, "max_silence must lie between 0 and 1, got 1.5"),
        ({"certain_silence": -0.1}, "certain_silence must lie between 0 and 1, got -0.1"),
        ({"max_compression": 0.0}, "max_compression must be above 0, got 0.0"),
        ({"silence_id": -1}, "silence_id must not be negative, got -1"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        FallbackOptions(**options)
