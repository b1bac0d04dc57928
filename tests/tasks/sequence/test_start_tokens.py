"""What stands before a text: with what was said before, to transcribe or translate, with times or without."""

from __future__ import annotations

import pytest

from anyformer.errors import InputError
from anyformer.tasks.sequence.start_tokens import StartTokens
from anyformer.tasks.sequence.time_tokens import TimeTokens
from anyformer.tokenizers.text.text import Text

MARKS = ["<|start|>", "<|de|>", "<|transcribe|>", "<|translate|>", "<|startofprev|>", "<|notimestamps|>"]


def text(*marks: str, **options: int) -> Text:
    return Text(kind="bpe", vocab_size=300, special_tokens=marks, **options).fit(["abc de"])


TEXT = text(*MARKS)
START, GERMAN, TRANSCRIBE, TRANSLATE, PREVIOUS, PLAIN = TEXT.ids_of(MARKS)
TIMES = TimeTokens(PLAIN + 1, TEXT.eos_id)
KNOWN = StartTokens(TEXT, (START, GERMAN, TRANSCRIBE, PLAIN))


def test_a_start_is_opened_as_asked_and_stays_so() -> None:
    (said,) = TEXT.encode_batch([" ab"])
    before = [PREVIOUS, *said.tolist()]
    for options, expected in (
        ({}, [START, GERMAN, TRANSCRIBE, PLAIN]),
        ({"translate": True}, [START, GERMAN, TRANSLATE, PLAIN]),
        ({"times": TIMES}, [START, GERMAN, TRANSCRIBE]),
        ({"prompt": "ab ", "times": TIMES, "translate": True}, [*before, START, GERMAN, TRANSLATE]),
    ):
        opened = KNOWN.opened(KNOWN.ids, **options)
        assert opened == expected and KNOWN.opened(opened, **options) == expected
    assert KNOWN.split([*before, *KNOWN.ids]) == (before, list(KNOWN.ids))
    # What was written before counts more than the prompt.
    assert KNOWN.opened([PREVIOUS, 1, *KNOWN.ids], prompt="ab")[:3] == [PREVIOUS, 1, START]


def test_of_what_was_said_before_the_last_is_kept() -> None:
    ids = list(range(20))
    short = StartTokens(text(*MARKS, max_len=12), KNOWN.ids)
    assert short.previous(ids) == [PREVIOUS, *ids[-5:]] and KNOWN.previous(ids) == [PREVIOUS, *ids]


def test_what_the_text_has_no_tokens_for_is_refused() -> None:
    none = StartTokens(text(), (0,))
    with pytest.raises(InputError, match="prompt is for a Whisper, whose text has the tokens for it: "):
        none.opened((0,), prompt="ab")
    with pytest.raises(InputError, match="translate is for a Whisper"):
        none.opened((0,), translate=True)
    english = StartTokens(TEXT, (START, PLAIN))
    with pytest.raises(InputError, match="translate needs a Whisper that knows several languages, and this one"):
        english.opened(english.ids, translate=True)
