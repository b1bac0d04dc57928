"""From records to texts in use: every part has its record's number, whatever it is read beside."""

from __future__ import annotations

import json

import pytest
import torch

from anyformer.errors import InputError
from anyformer.tasks.sequence import transcribe as module
from anyformer.tasks.sequence.decoding import Decoded
from anyformer.tasks.sequence.sequence import CTCConfig, SequenceToSequence
from anyformer.tasks.sequence.transcribe import Transcript, join_transcripts, transcribe
from anyformer.tasks.sequence.transcripts import TranscriptConfig
from tests.helpers.turned import Turned, recogniser
from tests.helpers.witnesses import redraw


@pytest.fixture(scope="module")
def task() -> SequenceToSequence:
    torch.manual_seed(0)
    made = recogniser(ctc=CTCConfig(weight=0.4))
    made.fit_tokenizers(Turned())
    made.build()
    redraw(made)
    return made.eval()


@pytest.mark.parametrize(("window", "at_once"), [(1, 2**14), (3, 2**14), (64, 2**14), (64, 1), (5, 60)])
def test_a_text_is_that_of_its_record_whatever_is_read_beside_it(
    task: SequenceToSequence, window: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", at_once)
    source = Turned(11, 4)
    records = [source[i] for i in range(11)]
    options = TranscriptConfig("ctc")
    found = list(transcribe(task, records, options, window))
    assert [number for number, _ in found] == list(range(11))
    alone = [told.text for record in records for _, told in transcribe(task, [record], options)]
    assert [told.text for _, told in found] == alone and len(set(alone)) > 3


def test_pieces_are_joined_with_the_worst_that_is_said_of_them() -> None:
    pieces = [
        Transcript("one", found=Decoded([1])),
        Transcript("", found=Decoded([], doubt="silence")),
        Transcript("two", found=Decoded([2], "length", doubt="repetition", temperature=0.8)),
        Transcript("three", found=Decoded([3], doubt="repetition", temperature=0.4)),
    ]
    judged = TranscriptConfig(fallback=(0.4, 0.8))
    for sequence in (pieces, pieces[::-1]):
        joined = join_transcripts("text", sequence, judged)
        assert (joined["ended"], joined["temperature"]) == ("length", 0.8)
        assert set(joined["doubt"].split(", ")) == {"silence", "repetition"}
    assert join_transcripts("text", pieces, TranscriptConfig()) == {"text": "one two three", "ended": "length"}
    assert join_transcripts("text", pieces[:2], judged) == {
        "text": "one",
        "ended": "stop",
        "doubt": "silence",
        "temperature": 0.0,
    }


def test_answers_are_of_a_whole_recording() -> None:
    pieces = [Transcript("yes", n_best=(("yes", -1.0), ("no", -2.0)))]
    scored = TranscriptConfig(score="yes|no")
    assert [each["text"] for each in join_transcripts("text", pieces, scored)["n_best"]] == ["yes", "no"]
    with pytest.raises(InputError, match="score: the recording is heard in 2 parts, and answers are of a whole one"):
        join_transcripts("text", 2 * pieces, scored)


def test_the_best_texts_of_a_record_are_those_of_its_pieces_put_together() -> None:
    pieces = [
        Transcript("one", n_best=(("one", -1.0), ("on", -1.5))),
        Transcript("", n_best=()),
        Transcript("two", n_best=(("two", -0.25), ("", -1.0), ("too", -2.0))),
    ]
    joined = join_transcripts("text", pieces, TranscriptConfig(n_beams=4, n_best=4))
    assert [tuple(each.values()) for each in joined["n_best"]] == [
        ("one two", -1.25),
        ("on two", -1.75),
        ("one", -2.0),
        ("on", -2.5),
    ]
    # What is put together in two ways is there once, as in its best.
    pieces = [
        Transcript("a", n_best=(("a", -1.0), ("a b", -2.0))),
        Transcript("b c", n_best=(("b c", -1.0), ("c", -3.0))),
    ]
    joined = join_transcripts("text", pieces, TranscriptConfig(n_beams=4, n_best=4))
    scored = [(each["text"], each["score"]) for each in joined["n_best"]]
    assert scored == [("a b c", -2.0), ("a b b c", -3.0), ("a c", -4.0)]
    assert join_transcripts("text", [Transcript("")], TranscriptConfig(n_best=1))["n_best"] == []


def test_the_best_texts_differ_and_are_shown(task: SequenceToSequence) -> None:
    record, options = Turned(3, 4)[1], TranscriptConfig("joint", n_beams=8, n_best=4, max_new_tokens=4)
    (result,) = task.predict([record], options)
    texts = [each["text"] for each in result["n_best"]]
    assert len(texts) == len({*texts}) == 4 and texts[0] == result["text"]
    assert json.loads(task.row(result)["n_best"]) == result["n_best"] == task.rows(result, whole=True)[0]["n_best"]
    shown = "".join(task.stream(record, options)).split("\n")
    assert shown == [texts[0], *(f"{each['score']:9.3f}  {each['text']}" for each in result["n_best"])]
    (greedy,) = task.predict([record], TranscriptConfig("joint", n_best=1, max_new_tokens=4))
    (plain,) = task.predict([record], TranscriptConfig("joint", max_new_tokens=4))
    assert [each["text"] for each in greedy["n_best"]] == [plain["text"]] == [greedy["text"]]
    with pytest.raises(InputError, match=r"^n_best: format: srt has the best text alone; leave one of them out$"):
        TranscriptConfig(n_best=1, format="srt")
    same = Decoded([1], n_best=(([1, 1], -1.0), ([1, 1], -2.0), ([2], -3.0)))
    assert [score for _, score in module._best_texts(same, task.text, 2)] == [-1.0, -3.0]


@pytest.mark.parametrize("timestamps", [False, True])
def test_what_is_streamed_is_what_is_predicted(task: SequenceToSequence, timestamps: bool) -> None:
    record, options = Turned(3, 4)[1], TranscriptConfig("joint", timestamps=timestamps, max_new_tokens=6)
    shown = "".join(task.stream(record, options))
    assert shown == task.render(task.predict([record], options)[0], options) != ""
