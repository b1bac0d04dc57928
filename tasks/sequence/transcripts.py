"""Using a recogniser: recordings of any length part by part, the times of words, and the forms that they come in."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import Tensor

from anyformer.errors import InputError
from anyformer.generation.ctc_search import align
from anyformer.generation.detokenizer import ShownText
from anyformer.model.losses.ctc import needed_frames
from anyformer.tasks.sequence.decoding import DecodeConfig
from anyformer.tasks.sequence.subtitles import FORMATS, Word, break_lines, join_words, word_confidences
from anyformer.tokenizers.audio.audio import Audio
from anyformer.tokenizers.audio.reading import pieces, sound_seconds
from anyformer.tokenizers.text.text import Text
from anyformer.tokens import Tokenizer

PIECE = 30.0
"""Seconds of a piece at the most, where the tokenizer takes recordings of any length."""


@dataclass(frozen=True)
class TranscriptConfig(DecodeConfig):
    """How a text is found, greedily when nothing is given, and how it is shown."""

    timestamps: bool = False
    """Say when each word is said: by ctc, where the model was trained with it, else by its tokens of times and the
    heads of its cross-attention, as Whisper's."""
    format: Literal["txt", "srt", "vtt", "json"] = "txt"
    """txt: the text. srt, vtt: subtitles. json: lines and words with their times."""
    piece_seconds: float | None = None
    """A longer recording is cut at its pauses into pieces of so many seconds at the most; by default what the
    tokenizer takes."""
    windows: Literal["pauses", "times"] | None = None
    """pauses: the pieces of a longer recording end at its pauses, and are heard apart. times: each begins where the
    last sentence before it ended, by tokens of times, and is told the text before it, as openai-whisper does. times
    where a model has such tokens, when left out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.piece_seconds is not None and not self.piece_seconds >= 3:
            raise InputError(f"piece_seconds must be at least 3, got {self.piece_seconds:g}")
        if self.n_best and self.format != "txt":
            raise InputError(f"n_best: format: {self.format} has the best text alone; leave one of them out")
        if self.n_best and self.windows == "times":
            raise InputError("n_best: by windows: times each window follows from one text; take windows: pauses")

    @property
    def timed(self) -> bool:
        """Whether times are asked for."""
        return self.timestamps or self.format != "txt"

    @property
    def times(self) -> Literal["none", "words", "windows"]:
        return "windows" if self.windows == "times" else "words" if self.timed else "none"

    @property
    def needs_times(self) -> bool:
        return self.timestamps or self.windows == "times"


class Part(NamedTuple):
    """A record, or one piece of a long one."""

    record: Mapping[str, Any]
    start: float = 0.0
    """Seconds after the recording begins."""
    end: float = 0.0


def sound_field(record: Mapping[str, Any], tokenizers: Mapping[str, Tokenizer]) -> str | None:
    """The field of a record that is a recording, the first of several."""
    return next((n for n, t in tokenizers.items() if isinstance(t, Audio) and record.get(n) is not None), None)


def parts(
    record: Mapping[str, Any], tokenizers: Mapping[str, Tokenizer], piece_seconds: float | None
) -> Iterator[Part]:
    """A record as it is; or one whose recording is longer than the tokenizer takes, piece by piece.

    piece_seconds: of a piece at the most, if less than the tokenizer takes.
    Raises InputError for a recording that cannot be read.
    """
    name = sound_field(record, tokenizers)
    if name is None:
        yield Part(record)
        return
    audio = tokenizers[name]
    longest = longest_piece(audio, piece_seconds)
    try:
        seconds = sound_seconds(record[name], audio.mel.rate)
        if seconds <= longest:
            yield Part(record, 0.0, seconds)
            return
        # Of whole seconds resampling rounds nothing up, beyond what the tokenizer takes.
        for piece in pieces(record[name], audio.mel.rate, math.floor(longest)):
            yield Part({**record, name: piece.samples}, piece.start, piece.end)
    except InputError as error:
        raise InputError(f"field {name!r}: {error}") from error


def longest_piece(audio: Audio, piece_seconds: float | None) -> float:
    """Seconds that are heard at once, at the most."""
    return min(piece_seconds or audio.max_seconds or PIECE, audio.max_seconds or math.inf)


def find_words(
    ids: Sequence[int], text: Text, part: Part, log_probs: Tensor | None = None, seconds_per_token: float = 0.0
) -> list[Word]:
    """The words of a text with their times, in seconds of the whole recording, as CTC hears them.

    log_probs: (t, v), what CTC says of each frame of the part, seconds_per_token long. Where it is not known, or has no
    path for the text, all of the part is one word that lasts as long.
    """
    if log_probs is None or needed_frames(ids) > len(log_probs):
        whole = text.decode(ids).strip()
        return [Word(whole, part.start, part.end)] if whole else []
    spans = [tuple(seconds_per_token * place for place in span) for span in align(log_probs, ids)]
    return place_words(ids, spans, text, part)


def place_words(ids: Sequence[int], spans: Sequence[tuple[float, float]], text: Text, part: Part) -> list[Word]:
    """The words of ids, of each of which the times are known, in seconds after the part begins."""
    shown = ShownText(text.decode)
    told, since, end = [], None, 0.0
    for i, (start, end) in zip(ids, spans, strict=True):
        said, _ = shown.push(i)
        # A character of several tokens begins with the first of them.
        since = start if since is None else since
        if said:
            told.append((said, since, end))
            since = None
    if since is not None:
        told.append((shown.flush()[0], since, end))
    return join_words((said, *(min(part.start + time, part.end) for time in (start, end))) for said, start, end in told)


def sure_words(ids: Sequence[int], log_probs: Sequence[float], text: Text) -> list[tuple[str, float]]:
    """The words of a text with their confidence. log_probs: of the ids; what comes behind these is not looked at."""
    shown, pieces, held = ShownText(text.decode), [], []
    for i, log_prob in zip(ids, log_probs, strict=False):
        said, _ = shown.push(i)
        held.append(log_prob)
        if said:
            pieces.append((said, held))
            held = []
    return word_confidences([*pieces, (shown.flush()[0], held)])


def show_words(words: Sequence[Word], form: str) -> str:
    """Words with their times: a line each, or in one of the formats of subtitles."""
    if form == "txt":
        return "\n".join(f"{word.start:8.2f} {word.end:8.2f}  {word.text}" for word in words)
    return FORMATS[form](break_lines(words)).rstrip("\n")
