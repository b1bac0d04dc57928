"""Texts from texts without a model."""

from __future__ import annotations

from anyformer.baselines.baseline import baseline
from anyformer.tasks.base.records import Records
from anyformer.tasks.sequence.sequence import SequenceToSequence
from anyformer.tokenizers.text.text import Text
from tests.helpers.given_rows import Rows

WORDS = {
    "the": "der",
    "dog": "Hund",
    "cat": "Kater",
    "runs": "rennt",
    "sleeps": "schläft",
    "here": "hier",
    "now": "jetzt",
}


def pairs(*sentences: str) -> Rows:
    return Rows([{"en": s, "de": " ".join(WORDS.get(word, word) for word in s.split())} for s in sentences])


def test_the_source_is_copied_and_the_most_like_training_pair_is_found() -> None:
    train = pairs(
        *(f"the {animal} {verb} {where} {n}" for animal in ("dog", "cat") for verb in ("runs", "sleeps")
          for where in ("here", "now") for n in ("one", "two"))
    )  # fmt: skip
    task = SequenceToSequence({"en": Text("bytes"), "de": Text("bytes")}, target="de", choose="wer")
    validation = pairs("the dog runs here one one", "the cat sleeps now two")
    (section,) = baseline(task, Records(train, validation)).sections
    copy, nearest = section.lines
    assert (copy.fields, copy.model) == ("en", "copy of the source")
    # Of the eleven words "one", "one" and "two" are the same.
    assert copy.outcomes[0].metrics["val/wer"] == 8 / 11
    # The repeated word is the one that no training pair has.
    assert nearest.outcomes[0].metrics["val/wer"] == 1 / 11
    assert nearest.outcomes[0].metrics["val/exact_match"] == 0.5
    # In training none is its own nearest.
    assert nearest.outcomes[0].inner > 0
    assert section.best()[0].names == ["target of the nearest training source on en"]
