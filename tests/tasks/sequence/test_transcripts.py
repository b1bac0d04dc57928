"""Recordings in parts, words with their times, and the forms that they come in."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

from anyformer.errors import InputError
from anyformer.tasks.sequence.subtitles import Word
from anyformer.tasks.sequence.transcripts import Part, TranscriptConfig, find_words, parts, show_words, sure_words
from anyformer.tokenizers.text.text import Text
from tests.helpers.turned import RATE, audio, sound

LETTERS = Text("characters", vocabulary=" abcé")


def frames(path: str) -> torch.Tensor:
    """Log-probabilities that say a path of frames: characters, and - for the blank."""
    ids = [LETTERS.n_ids if c == "-" else " abcé".index(c) for c in path]
    return torch.nn.functional.one_hot(torch.tensor(ids), LETTERS.n_ids + 1).float().log_softmax(1) * 9


def test_words_begin_and_end_with_their_characters() -> None:
    ids = LETTERS.encode_batch(["ab ca"])[0].tolist()
    part = Part({}, start=10.0, end=10.95)
    words = find_words(ids, LETTERS, part, frames("--aab- -ccca--"), 0.1)
    assert [word.text for word in words] == ["ab", "ca"]
    assert np.allclose([word[1:] for word in words], [(10.2, 10.5), (10.8, 10.95)])
    assert find_words([], LETTERS, part, frames("--"), 0.1) == []


def test_words_are_as_sure_as_their_tokens() -> None:
    ids, sure = LETTERS.encode_batch(["ab \u00e9"])[0].tolist(), np.log([0.5, 0.5, 0.1, 0.25])
    assert sure_words(ids, sure, LETTERS) == [("ab", pytest.approx(0.5)), ("\u00e9", pytest.approx(0.25))]
    # A character of several tokens, and the end behind the text.
    bytes_of = Text("bytes")
    ids = bytes_of.encode_batch(["\u00e9"])[0].tolist()
    assert sure_words(ids, np.log([0.5, 0.125, 0.9]), bytes_of) == [("\u00e9", pytest.approx(0.25))]
    assert sure_words([], [], LETTERS) == []


def test_a_text_without_times_is_one_word_as_long_as_its_part() -> None:
    ids = LETTERS.encode_batch(["ab ca"])[0].tolist()
    part = Part({}, 2.0, 3.0)
    assert find_words(ids, LETTERS, part) == [Word("ab ca", 2.0, 3.0)]
    assert find_words(ids, LETTERS, part, frames("ab"), 0.1) == [Word("ab ca", 2.0, 3.0)], "no path in two frames"
    assert find_words([], LETTERS, part) == []


def test_characters_of_several_tokens_are_whole() -> None:
    text = Text("bytes")
    ids = text.encode_batch(["é a"])[0].tolist()
    spoken = torch.nn.functional.one_hot(torch.tensor(ids), text.n_ids + 1).float().log_softmax(1) * 9
    assert [word.text for word in find_words(ids, text, Part({}, 0.0, 4.0), spoken, 1.0)] == ["é", "a"]


def test_a_long_recording_comes_in_parts_that_cover_it() -> None:
    tokenizers = {"text": Text("bytes"), "audio": audio()}
    short = {"audio": (sound("abc"), RATE), "text": "a"}
    (part,) = parts(short, tokenizers, None)
    assert part.record is short and part.end == pytest.approx(0.45)
    long = {"audio": (sound("abcd" * 16), RATE), "text": "a"}
    found = list(parts(long, tokenizers, None))
    assert len(found) > 3 and found[0].start == 0 and found[-1].end == pytest.approx(9.6)
    assert [part.start for part in found[1:]] == [part.end for part in found[:-1]]
    assert all(part.end - part.start <= 3 and part.record["text"] == "a" for part in found)
    for part in found:
        tokenizers["audio"].encode(part.record["audio"])
    assert [(part.start, part.end) for part in parts(long, tokenizers, 8.5)] == [
        (part.start, part.end) for part in found
    ], "what the tokenizer takes is the limit"
    (whole,) = parts(long, {"audio": audio(max_seconds=None)}, None)
    assert whole.end == pytest.approx(9.6)
    assert len(list(parts(long, {"audio": audio(max_seconds=None)}, 8.5))) == 2
    assert list(parts({"text": "a"}, tokenizers, None)) == [Part({"text": "a"})]
    with pytest.raises(InputError, match=r"^field 'audio': .*no such file"):
        list(parts({"audio": "absent.wav"}, tokenizers, None))


def test_words_are_shown_as_lines_or_as_subtitles() -> None:
    words = [Word("one", 0.25, 0.5), Word("two", 0.5, 1.0)]
    assert show_words(words, "txt").splitlines() == ["    0.25     0.50  one", "    0.50     1.00  two"]
    assert show_words(words, "srt") == "1\n00:00:00,250 --> 00:00:01,000\none two"
    assert show_words(words, "vtt").startswith("WEBVTT\n")
    assert json.loads(show_words(words, "json"))[0]["words"][1] == {"text": "two", "start": 0.5, "end": 1.0}
    assert show_words([], "txt") == ""


def test_options_that_cannot_be_say_why() -> None:
    assert not TranscriptConfig().timed and TranscriptConfig(format="vtt").timed
    for options, message in (
        ({"piece_seconds": 2.0}, "piece_seconds must be at least 3, got 2"),
        ({"n_beams": 0}, "n_beams must be at least 1"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            TranscriptConfig(**options)
