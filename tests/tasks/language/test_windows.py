"""Windows of a text."""

from __future__ import annotations

import numpy as np
import pytest

from anyformer.errors import InputError
from tests.helpers.language_models import stream_of, task


def test_training_windows_begin_anywhere_and_have_the_same_length(corpus, tmp_path):
    made = task(corpus, tmp_path)
    source, chopper = made.view(corpus, True), made.chopper(True)
    stream, starts = stream_of(made), set()
    for epoch in range(60):
        for i in range(len(source)):
            _, place, target, _ = chopper(source[i], np.random.default_rng((epoch, i)))
            assert len(place) == len(target) == 8
            text = target.tolist()
            starts |= {at for at in range(len(stream) - 7) if stream[at : at + 8] == text}
    assert starts == set(range(len(stream) - 7))


def test_a_text_shorter_than_a_window_says_so(corpus, tmp_path):
    made = task(corpus, tmp_path, context=500)
    with pytest.raises(InputError, match=r"the training text has 81 tokens, not more than one window of context=500"):
        made.view(corpus, training=True)
    assert len(made.view(corpus, training=False)) == 1
