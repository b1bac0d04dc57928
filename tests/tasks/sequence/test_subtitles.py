"""Words with times become lines, and lines become files that players read."""

from __future__ import annotations

import json
import math

import pytest

from anyformer.tasks.sequence.subtitles import (
    FORMATS,
    Line,
    Word,
    break_lines,
    confidence,
    join_words,
    to_json,
    to_srt,
    to_vtt,
    word_confidences,
)


def words(text: str, start: float = 0.0) -> list[Word]:
    """A word every half second, with a tenth between."""
    return [Word(word, start + i / 2, start + i / 2 + 0.4) for i, word in enumerate(text.split())]


def test_pieces_become_words_at_white_space() -> None:
    pieces = [(" ", 0, 1), ("Hel", 1, 2), ("", 2, 3), ("lo,", 3, 4), (" my", 5, 6), ("  ", 6, 7), ("a b", 7, 9)]
    pieces += [("c\n", 9, 10), ("d", 10, 11)]
    assert join_words(pieces) == [
        ("Hello,", 1, 4),
        ("my", 5, 6),
        ("a", 7, 9),
        ("bc", 7, 10),
        ("d", 10, 11),
    ]
    assert join_words([]) == []


def test_a_line_is_as_long_as_its_characters_allow() -> None:
    lines = break_lines(words("one two three four"), max_characters=8)
    assert [line.text for line in lines] == ["one two", "three", "four"]
    assert [line.text for line in break_lines(words("one two three four"), 7)] == ["one two", "three", "four"]
    assert [line.text for line in break_lines(words("an unbreakable one"), 6)] == ["an", "unbreakable", "one"]
    assert break_lines([]) == []


def test_a_line_is_as_long_as_its_seconds_allow() -> None:
    lines = break_lines(words("a b c d e"), max_seconds=1.0)
    assert [line.text for line in lines] == ["a b", "c d", "e"]
    assert [(line.start, line.end) for line in lines] == [(0, 0.9), (1, 1.9), (2, 2.4)]


def test_a_pause_ends_a_line() -> None:
    spoken = [*words("before the pause"), *words("after it", start=2.5)]
    assert [line.text for line in break_lines(spoken)] == ["before the pause", "after it"]
    assert [line.text for line in break_lines(spoken, max_pause=1.2)] == ["before the pause after it"]
    drawled = [Word("a", 0.0, 1.5), Word("long", 1.6, 3.0), Word("one", 3.1, 3.3)]
    assert [line.text for line in break_lines(drawled)] == ["a long one"], "from the end of a word, not its beginning"


LINES = [
    Line((Word("Tom", 0.0, 0.5), Word("&", 0.5, 0.5004), Word("<i>", 0.6, 1.2346))),
    Line((Word("a\n\n-->", 3599.9996, 3599.9996), Word("b", 360000.1, 360000.25))),
]


def test_srt() -> None:
    assert to_srt(LINES) == (
        "1\n00:00:00,000 --> 00:00:01,235\nTom & <i>\n"
        "\n2\n01:00:00,000 --> 100:00:00,250\na -> b\n"
    )  # fmt: skip


def test_vtt() -> None:
    assert to_vtt(LINES) == (
        "WEBVTT\n"
        "\n00:00:00.000 --> 00:00:01.235\nTom &amp; &lt;i&gt;\n"
        "\n01:00:00.000 --> 100:00:00.250\na --&gt; b\n"
    )  # fmt: skip


def test_json_holds_all_as_it_is() -> None:
    found = json.loads(to_json(LINES))
    assert [line["text"] for line in found] == ["Tom & <i>", "a\n\n--> b"]
    assert found[0]["words"][0] == {"text": "Tom", "start": 0.0, "end": 0.5}
    assert (found[1]["start"], found[1]["end"]) == (3599.9996, 360000.25)
    assert json.loads(to_json([])) == []
    assert "é" in to_json([Line((Word("é", 0, 1),))])


def test_a_line_that_ends_as_it_starts_is_shown_for_a_moment_and_one_without_text_is_not() -> None:
    lines = [Line((Word("x", 1.0, 1.0),)), Line((Word(" ", 2.0, 3.0),))]
    assert to_vtt(lines) == "WEBVTT\n\n00:00:01.000 --> 00:00:01.001\nx\n"


@pytest.mark.parametrize(("kind", "nothing"), [("srt", ""), ("vtt", "WEBVTT\n"), ("json", "[]\n")])
def test_silence_is_a_file_without_lines(kind: str, nothing: str) -> None:
    assert FORMATS[kind]([]) == nothing


def test_the_confidence_of_a_word_is_that_of_its_tokens_and_of_white_space_nobodys() -> None:
    half, quarter = math.log(0.5), math.log(0.25)
    pieces = [("", [half]), (" one", [quarter]), ("s ", [half]), (" ", [-9.0]), ("two", [0.0])]
    assert word_confidences(pieces) == [("ones", pytest.approx(0.125**0.5)), ("two", 1.0)]
    assert confidence([half, quarter]) == pytest.approx(0.125**0.5) and confidence([]) == 1.0
