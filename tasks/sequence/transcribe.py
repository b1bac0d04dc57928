"""From records to texts in use: long recordings part by part, and like lengths together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, product
from typing import Any, NamedTuple, Protocol

import torch

from anyformer.errors import InputError, say
from anyformer.model.losses.ctc import CTCHead
from anyformer.packing import group_by_length
from anyformer.tasks.sequence.batch import PairChopper, Pairs
from anyformer.tasks.sequence.decoding import DecodeConfig, Decoded
from anyformer.tasks.sequence.subtitles import Word, confidence
from anyformer.tasks.sequence.transcripts import Part, TranscriptConfig, find_words, parts, show_words, sure_words
from anyformer.tokenizers.text.text import Text
from anyformer.tokens import Tokenizer

AT_ONCE = 2**14
"""Tokens of inputs that are read at once in use, padding included."""
DOUBTS = {
    "silence": "no speech was heard, so no text is given",
    "repetition": "the text repeats itself at every temperature of the fallback; it is likely wrong",
    "improbable": "the model finds the text improbable at every temperature of the fallback; it is likely wrong",
}
"""What is said of a text, by its `doubt`."""


class Writer(Protocol):
    """What is needed of the task that writes."""

    tokenizers: Mapping[str, Tokenizer]
    ctc_head: CTCHead | None

    @property
    def text(self) -> Text: ...

    @property
    def ctc_field(self) -> str | None: ...

    @property
    def start_choices(self) -> Mapping[int, list[int]]: ...

    @property
    def device(self) -> torch.device: ...

    def eval(self) -> Any: ...

    def chopper(self, training: bool) -> PairChopper: ...

    def read(self, batch: Pairs) -> Any: ...

    def find(self, batch: Pairs, config: DecodeConfig, reading: Any, starts: Any) -> list[Decoded]: ...


class Transcript(NamedTuple):
    """The text of a part of a record."""

    text: str
    words: tuple[Word, ...] = ()
    """With their times, where these are asked for."""
    found: Decoded = Decoded([])
    """Its ids, and what is said of them."""
    sure_words: tuple[tuple[str, float], ...] = ()
    """The words with their confidence, where it is asked for."""
    n_best: tuple[tuple[str, float], ...] = ()
    """The best texts with their scores, where they are asked for; none of silence."""


@torch.inference_mode()
def transcribe(
    task: Writer, records: Sequence[Mapping[str, Any]], options: DecodeConfig, window: int = 64
) -> Iterator[tuple[int, Transcript]]:
    """The text of every part of the records, with the record's number, in their sequence.

    window: parts that are held in memory and transcribed together.
    """
    task.eval()
    if is_timed(options) and options.timestamps and task.ctc_head is None:
        raise InputError("timestamps come from ctc, and this model was trained without it; format: srt goes without")
    chopper = task.chopper(training=False)
    cut = getattr(options, "piece_seconds", None)
    every = (
        (number, part, chopper(part.record, labelled=False))
        for number, record in enumerate(records)
        for part in parts(record, chopper.tokenizers, cut)
    )
    # What the model chooses, such as a language, it chooses once for a record: at its first part.
    starts: dict[int, tuple[int, ...]] = {}
    while held := list(islice(every, window)):
        lengths = [sum(map(len, pair.sample.values())) for _, _, pair in held]
        # Nothing has no translation.
        told = {i: Transcript("") for i, length in enumerate(lengths) if not length}
        opens: dict[int, int] = {}
        for i, (number, _, _) in enumerate(held):
            if lengths[i] and number not in starts:
                opens.setdefault(number, i)
        first = set(opens.values()) if task.start_choices else set(range(len(held)))
        for some in (first, set(range(len(held))) - first):
            heard = sorted(i for i in some if lengths[i])
            for numbers in group_by_length([lengths[i] for i in heard], AT_ONCE):
                group = [heard[number] for number in numbers]
                batch = chopper.collate([held[i][2] for i in group]).to(task.device)
                known = None if some is first else [starts[held[i][0]] for i in group]
                told |= zip(
                    group, _transcribe_batch(task, batch, [held[i][1] for i in group], options, known), strict=True
                )
            starts |= {number: told[i].found.start for number, i in opens.items() if some is first}
        yield from ((held[i][0], told[i]) for i in range(len(held)))


def _transcribe_batch(
    task: Writer, batch: Pairs, of: Sequence[Part], options: DecodeConfig, starts: Sequence[Sequence[int]] | None
) -> list[Transcript]:
    reading = task.read(batch)
    found = task.find(batch, options, reading, starts)
    texts = [task.text.decode(own.ids).strip() for own in found]
    sure = [tuple(sure_words(own.ids, own.log_probs, task.text)) if options.confidence else () for own in found]
    best = [tuple(_best_texts(own, task.text, options.n_best or 0)) for own in found]
    if not is_timed(options):
        return [Transcript(text, (), *own) for text, *own in zip(texts, found, sure, best, strict=True)]
    log_probs, seconds = [None] * len(found), 0.0
    if task.ctc_head is not None:
        log_probs = task.ctc_head(reading.frames).split(batch.n_frames)
        seconds = task.tokenizers[task.ctc_field].seconds_per_token
    return [
        Transcript(text, tuple(find_words(own.ids, task.text, part, frames, seconds)), own, words, n_best)
        for text, own, part, frames, words, n_best in zip(texts, found, of, log_probs, sure, best, strict=True)
    ]


def _best_texts(found: Decoded, text: Text, n: int) -> list[tuple[str, float]]:
    """The n best texts that differ, each with the score of the best ids that spell it."""
    return _first_of_each((text.decode(ids).strip(), score) for ids, score in found.n_best)[:n]


def _first_of_each(scored: Iterable[tuple[str, float]]) -> list[tuple[str, float]]:
    first: dict[str, float] = {}
    for text, score in scored:
        first.setdefault(text, score)
    return list(first.items())


def _join_best(found: Sequence[Transcript], n: int) -> list[tuple[str, float]]:
    """The n best texts of a record out of those of its parts: of a choice of each the scores are added up."""
    joined: list[tuple[str, float]] = []
    for best in (piece.n_best for piece in found if piece.n_best):
        every = product(joined or [("", 0.0)], best)
        whole = [(" ".join(filter(None, (before, text))), so_far + own) for (before, so_far), (text, own) in every]
        joined = _first_of_each(sorted(whole, key=lambda each: -each[1]))[:n]
    return joined


def join_transcripts(target: str, found: Sequence[Transcript], options: DecodeConfig) -> dict[str, Any]:
    """The result of a record out of its parts, as `SequenceToSequence.predict` gives it."""
    result: dict[str, Any] = {target: " ".join(piece.text for piece in found if piece.text)}
    result["ended"] = "length" if any(piece.found.ended == "length" for piece in found) else "stop"
    if options.fallback:
        result["doubt"] = ", ".join(dict.fromkeys(piece.found.doubt for piece in found if piece.found.doubt))
        result["temperature"] = max((piece.found.temperature for piece in found), default=0.0)
    if options.confidence:
        result["confidence"] = confidence([each for piece in found for each in piece.found.log_probs])
        result["word_confidence"] = [
            {"text": word, "confidence": sure} for piece in found for word, sure in piece.sure_words
        ]
    if options.n_best:
        result["n_best"] = [{"text": text, "score": score} for text, score in _join_best(found, options.n_best)]
    if is_timed(options):
        result["words"] = [word._asdict() for piece in found for word in piece.words]
    return result


def stream_transcript(task: Writer, record: Mapping[str, Any], options: DecodeConfig) -> Iterator[str]:
    """The text of a record part by part, in the form that is asked for; what is wrong with it is said at the end."""
    form, words, is_first, is_cut = getattr(options, "format", "txt"), [], True, False
    doubts: Counter[str] = Counter()
    every: list[Transcript] = []
    for _, told in transcribe(task, [record], options, window=8):
        words += told.words
        every.append(told)
        is_cut |= told.found.ended == "length"
        doubts[told.found.doubt] += 1
        shown = show_words(told.words, "txt") if is_timed(options) else told.text
        if form == "txt" and shown:
            yield shown if is_first else ("\n" if is_timed(options) else " ") + shown
            is_first = False
    if form != "txt":
        yield show_words(words, form)
    elif options.confidence:
        yield "\n" + show_confidence(join_transcripts("", every, options))
    if options.n_best:
        best = join_transcripts("", every, options)["n_best"]
        yield "".join(f"\n{each['score']:9.3f}  {each['text']}" for each in best)
    for doubt, what in DOUBTS.items():
        if n := doubts[doubt]:
            say(what if doubts.total() == 1 else f"{n} of {doubts.total()} pieces: {what}")
    if is_cut:
        say("the text was cut off, as it reached the limit of --max_new_tokens; give more for all of it")


def show_confidence(result: Mapping[str, Any]) -> str:
    """How sure the model is of a text and of its words, in a line."""
    words = " ".join(f"{word['text']} {word['confidence']:.2f}" for word in result["word_confidence"])
    return f"confidence {result['confidence']:.3f}{words and ': '}{words}"


def is_timed(options: DecodeConfig) -> bool:
    """Whether times are asked for."""
    return isinstance(options, TranscriptConfig) and options.timed
