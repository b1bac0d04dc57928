"""Words with times, and what players show of them: lines of subtitles as srt, vtt or JSON.

Times are seconds from the beginning of the recording.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple


class Word(NamedTuple):
    """A word, and when it is said."""

    text: str
    start: float
    end: float


class Line(NamedTuple):
    """Words that are shown together."""

    words: tuple[Word, ...]

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)

    @property
    def start(self) -> float:
        return self.words[0].start

    @property
    def end(self) -> float:
        return max(word.end for word in self.words)


def join_words(pieces: Iterable[tuple[str, float, float]]) -> list[Word]:
    """Words from pieces of a text with the times of each, such as characters or parts of words: (text, start, end).

    Words are what stands between white space; a piece may hold some, and then what it holds shares its times.

    >>> join_words([("a", 0, 1), (" wo", 1, 2), ("rd ", 2, 4)])
    [Word(text='a', start=0, end=1), Word(text='word', start=1, end=4)]
    """
    words: list[Word] = []
    is_open = False
    for text, start, end in pieces:
        for i, part in enumerate(_split(text)):
            if i or not part:
                is_open = False
            if part and is_open:
                words[-1] = Word(words[-1].text + part, words[-1].start, end)
            elif part:
                words.append(Word(part, start, end))
                is_open = True
    return words


LONGEST_WORD, MOST_OF_MEDIAN = 0.7, 2.0
"""A word lasts at most so many seconds, twice, or twice as long as the median, where it begins or ends a sentence."""
SENTENCE_END = (".", "!", "?", "\u3002", "\uff01", "\uff1f")
"""The last three are those of Chinese and Japanese."""


def settle(words: Sequence[Word]) -> list[Word]:
    """Words of a part with the pauses about sentences taken from them: attention knows no pause, and gives it to the
    word before or behind."""
    durations = sorted(word.end - word.start for word in words if word.end > word.start)
    if not durations:
        return list(words)
    longest = MOST_OF_MEDIAN * min(LONGEST_WORD, durations[len(durations) // 2])
    settled, begins = [], True
    for text, start, end in words:
        ends = text.endswith(SENTENCE_END)
        if end - start > longest:
            if begins:
                start = end - longest
            elif ends:
                end = start + longest
        settled.append(Word(text, start, end))
        begins = ends
    return settled


def word_confidences(pieces: Iterable[tuple[str, Sequence[float]]]) -> list[tuple[str, float]]:
    """Words from pieces of a text with the log-probabilities of their tokens, each with its confidence: the geometric
    mean of the probabilities. White space alone belongs to no word.

    >>> word_confidences([("a", [math.log(0.5)]), (" ", [-9.0]), ("b", [0.0]), ("c", [math.log(0.25)])])
    [('a', 0.5), ('bc', 0.5)]
    """
    words: list[tuple[str, list[float]]] = []
    is_open = False
    for text, log_probs in pieces:
        for i, part in enumerate(_split(text)):
            if i or not part:
                is_open = False
            if part and is_open:
                words[-1] = words[-1][0] + part, [*words[-1][1], *log_probs]
            elif part:
                words.append((part, list(log_probs)))
                is_open = True
    return [(word, confidence(log_probs)) for word, log_probs in words]


def confidence(log_probs: Sequence[float]) -> float:
    """The geometric mean of probabilities; 1 of none."""
    return math.exp(sum(log_probs) / len(log_probs)) if log_probs else 1.0


def _split(text: str) -> list[str]:
    """What stands between white space; "" first where the text begins with it, and last where it ends so."""
    parts = text.split()
    if not parts:
        return [""] * bool(text)
    return [""] * text[0].isspace() + parts + [""] * text[-1].isspace()


def break_lines(
    words: Sequence[Word], max_characters: int = 42, max_seconds: float = 7.0, max_pause: float = 1.0
) -> list[Line]:
    """The words of a recording as lines, in their sequence.

    A line ends before the word with which it would have more than max_characters, or last longer than max_seconds, or
    that comes more than max_pause seconds after the one before. One word alone may be longer.
    """
    lines: list[list[Word]] = []
    n_characters = 0
    for word in words:
        n_characters += 1 + len(word.text)
        if (
            not lines
            or n_characters > max_characters
            or word.end - lines[-1][0].start > max_seconds
            or word.start - lines[-1][-1].end > max_pause
        ):
            lines.append([])
            n_characters = len(word.text)
        lines[-1].append(word)
    return [Line(tuple(line)) for line in lines]


def to_srt(lines: Sequence[Line]) -> str:
    """SubRip, which cannot say that what looks like a tag, such as <i>, is none: players may take it for one."""
    cues = [
        f"{number}\n{_time(start, ',')} --> {_time(end, ',')}\n{text}\n"
        for number, (start, end, text) in enumerate(_cues(lines, _plain), start=1)
    ]
    return "\n".join(cues)


def to_vtt(lines: Sequence[Line]) -> str:
    """WebVTT (W3C)."""
    cues = [f"\n{_time(start, '.')} --> {_time(end, '.')}\n{text}\n" for start, end, text in _cues(lines, _escaped)]
    return "".join(["WEBVTT\n", *cues])


def to_json(lines: Sequence[Line]) -> str:
    """A list of objects on a line each: start, end and text of a line, and its words with theirs."""
    objects = [
        json.dumps(
            {"start": line.start, "end": line.end, "text": line.text, "words": [word._asdict() for word in line.words]},
            ensure_ascii=False,
        )
        for line in lines
    ]
    return "[\n" + ",\n".join(objects) + "\n]\n" if objects else "[]\n"


FORMATS: dict[str, Callable[[Sequence[Line]], str]] = {"srt": to_srt, "vtt": to_vtt, "json": to_json}
"""What lines can be written as."""


def _cues(lines: Sequence[Line], clean: Callable[[str], str]) -> list[tuple[int, int, str]]:
    """Start and end of each line in whole milliseconds, and its text; a line without a letter is left out."""
    cues = []
    for line in lines:
        text = clean(line.text)
        if text:
            start = round(1000 * line.start)
            # One that ends as it starts is shown by no player, and is no cue of WebVTT.
            cues.append((start, max(round(1000 * line.end), start + 1), text))
    return cues


def _plain(text: str) -> str:
    # An empty line would end the cue, and an arrow would look like times.
    return " ".join(text.split()).replace("-->", "->")


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _time(milliseconds: int, point: str) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{point}{milliseconds:03}"
