"""From records to texts in use: long recordings part by part, and like lengths together."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, islice, pairwise, product
from typing import Any, NamedTuple, Protocol

import torch

from anyformer.errors import InputError, say
from anyformer.model.losses.ctc import CTCHead
from anyformer.packing import group_by_length
from anyformer.tasks.sequence.batch import PairChopper, Pairs
from anyformer.tasks.sequence.decoding import DecodeConfig, Decoded, Decoder
from anyformer.tasks.sequence.subtitles import Word, confidence, settle
from anyformer.tasks.sequence.transcripts import (
    Part,
    TranscriptConfig,
    find_words,
    longest_piece,
    parts,
    place_words,
    show_words,
    sound_field,
    sure_words,
)
from anyformer.tokenizers.audio.audio import Audio
from anyformer.tokenizers.audio.reading import sound_seconds, windows
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
TRUSTED = 0.5
"""Temperature up to which a text is given to the next window as what was said before (Radford et al. 2022, 4.5)."""


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
    def decoder(self) -> Decoder: ...

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
    segments: tuple[Word, ...] = ()
    """Where it was written with times, what stands between these."""


@torch.inference_mode()
def transcribe(
    task: Writer, records: Sequence[Mapping[str, Any]], options: DecodeConfig, window: int = 64
) -> Iterator[tuple[int, Transcript]]:
    """The text of every part of the records, with the record's number, in their sequence.

    window: parts that are held in memory and transcribed together.
    """
    task.eval()
    task.decoder.times(options)  # What cannot be had is refused before anything is read.
    followed = _following(task, options)
    for follows, some in groupby(
        enumerate(records), lambda each: followed is not None and _is_long(task, each[1], options)
    ):
        if follows:
            yield from ((number, told) for number, record in some for told in follow(task, record, followed))
        else:
            numbers, own = zip(*some, strict=True)
            yield from ((numbers[i], told) for i, told in _transcribe_parts(task, own, options, window))


def _following(task: Writer, options: DecodeConfig) -> TranscriptConfig | None:
    """The options by which a long recording is gone through by times; None where it is cut at its pauses."""
    if not isinstance(options, TranscriptConfig) or options.windows == "pauses":
        return None
    if options.windows is None and (options.time_id is None or task.ctc_head is not None or options.n_scored):
        return None
    return replace(options, windows="times")


def _is_long(task: Writer, record: Mapping[str, Any], options: TranscriptConfig) -> bool:
    """Whether a recording is longer than what is heard at once; also one that cannot be read is not."""
    name = sound_field(record, task.tokenizers)
    if name is None:
        return False
    audio: Audio = task.tokenizers[name]  # type: ignore[assignment]
    try:
        return sound_seconds(record[name], audio.mel.rate) > longest_piece(audio, options.piece_seconds)
    except InputError:
        return False  # It is said where it is read.


def _transcribe_parts(
    task: Writer, records: Sequence[Mapping[str, Any]], options: DecodeConfig, window: int
) -> Iterator[tuple[int, Transcript]]:
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
    return _transcripts(task, batch, of, options, reading, task.find(batch, options, reading, starts))


def follow(task: Writer, record: Mapping[str, Any], options: DecodeConfig) -> Iterator[Transcript]:
    """The text of a recording window by window: each begins where the last segment before it ended, and is told the
    text before (Radford et al. 2022, 3.8)."""
    chopper, times = task.chopper(training=False), task.decoder.times(options)
    name = sound_field(record, chopper.tokenizers)
    audio: Audio = chopper.tokenizers[name]  # type: ignore[assignment]
    every = windows(record[name], audio.mel.rate, math.floor(longest_piece(audio, options.piece_seconds)))
    said, start, sent = [], None, None
    while True:
        try:
            piece = every.send(sent)
        except StopIteration:
            return
        except InputError as error:
            raise InputError(f"field {name!r}: {error}") from error
        part = Part({**record, name: piece.samples}, piece.start, piece.end)
        batch = chopper.collate([chopper(part.record, labelled=False)]).to(task.device)
        reading = task.read(batch)
        before = task.decoder.start.previous(said) if said else []
        (found,) = task.find(batch, options, reading, None if start is None else [[*before, *start]])
        if start is None:
            before, start = task.decoder.start.split(found.start)
            said = before[1:]
        kept, sent = times.whole(found.timed_ids)
        ids = times.text(kept)
        found = found._replace(ids=ids, timed_ids=tuple(kept), log_probs=found.log_probs[: len(ids)])
        yield from _transcripts(task, batch, [part], options, reading, [found])
        # What was found at random would lead astray what follows; silence says nothing.
        said = [*said, *kept] if found.temperature <= TRUSTED and found.doubt in ("", "silence") else []


def _transcripts(
    task: Writer, batch: Pairs, of: Sequence[Part], options: DecodeConfig, reading: Any, found: Sequence[Decoded]
) -> list[Transcript]:
    """What was found in parts of recordings, with times and confidence where they are asked for."""
    texts = [task.text.decode(own.ids).strip() for own in found]
    sure = [tuple(sure_words(own.ids, own.log_probs, task.text)) if options.confidence else () for own in found]
    best = [tuple(_best_texts(own, task.text, options.n_scored)) for own in found]
    if not is_timed(options):
        return [Transcript(text, (), *own) for text, *own in zip(texts, found, sure, best, strict=True)]
    if task.decoder.times(options) is not None:
        words, segments = _by_attention(task, batch, of, options, reading, found)
    else:
        words, segments = _by_ctc(task, batch, of, reading, found), [()] * len(found)
    return [Transcript(*each) for each in zip(texts, words, found, sure, best, segments, strict=True)]


def _by_ctc(
    task: Writer, batch: Pairs, of: Sequence[Part], reading: Any, found: Sequence[Decoded]
) -> list[tuple[Word, ...]]:
    """The words with their times; without ctc, each text as one."""
    log_probs, seconds = [None] * len(found), 0.0
    if task.ctc_head is not None:
        log_probs = task.ctc_head(reading.frames).split(batch.n_frames)
        seconds = task.tokenizers[task.ctc_field].seconds_per_token
    every = zip(found, of, log_probs, strict=True)
    return [tuple(find_words(own.ids, task.text, part, frames, seconds)) for own, part, frames in every]


def _by_attention(
    task: Writer, batch: Pairs, of: Sequence[Part], options: DecodeConfig, reading: Any, found: Sequence[Decoded]
) -> tuple[list[tuple[Word, ...]], list[tuple[Word, ...]]]:
    """The words with the times that cross-attention tells, and the segments with those that were written."""
    times, decoder = task.decoder.times(options), task.decoder
    name = sound_field(of[0].record, task.tokenizers)
    if name is None:
        raise InputError("timestamps are of recordings, and a record has none; leave them out")
    rows = batch.tokens if batch.inputs is None else batch.inputs
    each, tokens = task.tokenizers[name].seconds_per_token, rows.fields[name]
    n_heard = [math.ceil((part.end - part.start) / each) for part in of]
    # The silence behind a recording is not listened to.
    places = [(tokens.index[tokens.sample == i] - i * rows.shape[1])[:n] for i, n in enumerate(n_heard)]
    begins = decoder.places(
        config=options,
        found=found,
        prompts=batch.prompts or [{}] * len(of),
        conditions=rows,
        memory=reading.memory,
        of=places,
    )
    words, segments = [], []
    for part, own, begin in zip(of, found, begins, strict=True):
        spans = [(each * start, each * end) for start, end in pairwise(begin)]
        words.append(tuple(settle(place_words(own.ids, spans, task.text, part))))
        parted = times.segments(own.timed_ids, part.end - part.start)
        segments.append(
            tuple(
                Word(task.text.decode(ids).strip(), part.start + start, part.start + end) for start, end, ids in parted
            )
        )
    return words, segments


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
    if options.answers and len(found) > 1:
        raise InputError(f"score: the recording is heard in {len(found)} parts, and answers are of a whole one; cut it")
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
    if options.n_scored:
        result["n_best"] = [{"text": text, "score": score} for text, score in _join_best(found, options.n_scored)]
    if is_timed(options):
        result["words"] = [word._asdict() for piece in found for word in piece.words]
        if any(piece.segments for piece in found):
            result["segments"] = [each._asdict() for piece in found for each in piece.segments]
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
