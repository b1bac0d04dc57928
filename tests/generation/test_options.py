"""The options that hold whatever the method."""

from __future__ import annotations

import pytest

from anyformer.errors import InputError
from anyformer.generation.options import CommonOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ({"n_samples": 0}, "n_samples must be at least 1, got 0"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be above 0"),
        ({"stop": ("a", "")}, "stop must not hold an empty string"),
        ({"allowed": ()}, "allowed must name at least one id"),
        ({"stop": "end"}, r"CommonOptions.stop must be \(str, ...\), got 'end'"),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        CommonOptions(**options)
    assert "\n" not in str(caught.value)
