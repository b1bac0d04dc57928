"""Tokens of times: what may follow what, and what a text with times says."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
import torch

from anyformer.errors import InputError
from anyformer.tasks.sequence.decoding import DecodeConfig
from anyformer.tasks.sequence.time_tokens import Segment, TimeTokens
from anyformer.weights.whisper import N_TIMES

FIRST, END = 10, 6
TIMES = TimeTokens(FIRST, END)
WORD = 3


def at(seconds: float) -> int:
    return FIRST + round(seconds / 0.02)


def open_after(*ids: int, **likely: float) -> torch.Tensor:
    """Which ids may follow. likely: logits of ids, by `t` and the id; the others have 0."""
    logits = torch.zeros(1, FIRST + N_TIMES + 1)
    for name, value in likely.items():
        logits[0, int(name[1:])] = value
    TIMES.close(logits, [list(ids)])
    return (logits[0] > -torch.inf).nonzero()[:, 0]


def test_a_text_begins_with_a_time_within_the_first_second() -> None:
    assert open_after(t3=90).tolist() == list(range(FIRST, FIRST + 51))


def test_a_word_is_open_where_it_is_likelier_than_all_times_together() -> None:
    assert WORD in open_after(at(0), WORD, t3=math.log(N_TIMES) + 0.1)
    # Each of 1,501 times is far less likely than the word, and together they are not.
    found = open_after(at(0), WORD, t3=math.log(N_TIMES) - 0.1)
    assert WORD not in found and found.min() == at(0.02)


def test_times_come_in_pairs_and_never_go_back() -> None:
    after_end = open_after(at(0), WORD, at(2))
    assert set(after_end.tolist()) >= {at(2), at(30)} and after_end.min() >= END and at(1.98) not in after_end
    assert END in open_after(at(0), WORD, at(2), t6=90)
    # The second of a pair is followed by a word, of which the segment has at least one, and lasts.
    assert open_after(at(0), WORD, at(2), at(2.5)).max() < FIRST + N_TIMES + 1
    begun = open_after(at(0), WORD, at(2), at(2.5), t3=1)
    assert WORD in begun and not any(TIMES.is_time(each) for each in begun.tolist())
    ending = open_after(at(0), WORD, at(2), at(2.5), WORD)
    assert ending.min() == at(2.52)


def test_the_token_for_no_times_is_closed_and_ids_behind_the_times_are_words() -> None:
    found = open_after(at(0), WORD, t3=99)
    assert TIMES.without not in found and FIRST + N_TIMES in found


def test_whatever_is_drawn_the_segments_follow_on_each_other() -> None:
    draws = random.Random(0)
    for _ in range(30):
        ids: list[int] = []
        while len(ids) < 40 and END not in ids:
            logits = torch.randn(
                1, FIRST + N_TIMES + 1, generator=torch.Generator().manual_seed(draws.randrange(2**31))
            )
            logits[0, :FIRST] += 6
            TIMES.close(logits, [ids])
            ids.append(int(logits[0].argmax()))
        parted = TIMES.segments([each for each in ids if each != END], 30.0)
        assert all(each.start <= each.end for each in parted)
        assert all(before.end <= after.start for before, after in pairwise(parted))
        assert TIMES.text(ids) == [each for segment in parted for each in segment.ids] + [END] * (END in ids)


def test_segments_and_where_the_next_window_begins() -> None:
    ids = [at(0), 1, 2, at(2), at(2.4), 3, at(5)]
    assert TIMES.segments(ids, 9.0) == [Segment(0.0, 2.0, [1, 2]), Segment(pytest.approx(2.4), 5.0, [3])]
    # It came to the end of the window: what is behind the last time is silence.
    assert TIMES.whole(ids) == (ids, None)
    # What is not ended is heard again, from where the segment before ended.
    assert TIMES.whole([*ids, at(5), 4]) == (ids, 5.0)
    assert TIMES.whole([*ids, at(5)]) == (ids, 5.0)
    assert TIMES.whole([at(0), 1, 2]) == ([at(0), 1, 2], None)
    assert TIMES.segments([at(0), 1, 2], 9.0) == [Segment(0.0, 9.0, [1, 2])]
    # A time beyond the recording is its end.
    assert TIMES.segments([at(0), 1, at(20)], 9.0) == [Segment(0.0, 9.0, [1])]
    assert TIMES.segments([], 9.0) == [] and TIMES.whole([]) == ([], None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"time_id": 0}, "time_id must be at least 1, got 0"),
        (
            {"alignment_heads": ((1, -2),)},
            r"alignment_heads must be pairs of a layer and a head, from 0, got \[1, -2\]",
        ),
    ],
)
def test_wrong_options_are_said(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        DecodeConfig(**options)
