"""A text as ids: what a decoder is fed, and what it is to find."""

from __future__ import annotations

import pytest

from anyformer.errors import InputError
from anyformer.tasks.sequence.target import read_target, written
from anyformer.tokenizers.text.text import Text

TEXT = Text(kind="characters", max_len=8).fit(["abc de"])


def test_what_is_fed_stands_in_sequence_behind_all_conditions() -> None:
    tokens = written([5, 6], [1])
    assert tokens.content.tolist() == [1, 5, 6] and tokens.position[:, 0].tolist() == [0, 1, 2]
    assert tokens.order.tolist() == [1, 2, 3]


def test_a_target_is_read_and_its_start_has_room() -> None:
    ids = read_target({"text": "abc"}, "text", TEXT, 2)
    assert TEXT.decode(ids) == "abc"
    with pytest.raises(InputError, match="7 tokens, more than the 6 that max_len=8 leaves beside the start"):
        read_target({"text": "abcabca"}, "text", TEXT, 2)
    assert len(read_target({"text": ""}, "text", TEXT, 2, allow_empty=True)) == 0


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({}, "must hold the text to be learnt, but it is missing"),
        ({"text": ""}, "the text is empty, there is nothing to learn from it"),
        ({"text": "abz"}, "'z', which is not in the vocabulary"),
    ],
)
def test_what_there_is_nothing_to_learn_from_is_refused(record: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_target(record, "text", TEXT, 1)
