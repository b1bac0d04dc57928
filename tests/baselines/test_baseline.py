"""Which simple models a task has."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from anyformer.baselines.baseline import baseline
from anyformer.tasks.base.records import Records
from anyformer.tasks.language.chat import ChatModel
from anyformer.tasks.predict.predict import Predict
from anyformer.tasks.sequence.sequence import SequenceToSequence
from anyformer.tasks.targets.category import Category
from anyformer.tasks.targets.masked import Masked
from anyformer.tokenizers.audio.audio import Audio
from anyformer.tokenizers.audio.mel import MelConfig
from anyformer.tokenizers.text.text import Text
from tests.helpers.given_rows import Rows
from tests.helpers.small_mixture import small_mixed, small_mixture

AUDIO = Audio(mel=MelConfig(rate=8000, window=256, hop=80, n_mels=20))


def tones(said: list[str]) -> Rows:
    """A second of a tone, whose pitch is the word."""
    random = np.random.default_rng(0)
    pitch = {"low": 300, "high": 2000}
    time = np.arange(2000) / 8000
    return Rows(
        [
            {"audio": np.sin(2 * np.pi * pitch.get(word, 900) * time) + random.normal(size=2000) / 10, "text": word}
            for word in said
        ]
    )


def test_few_texts_are_classes_with_the_error_rates_of_the_task() -> None:
    task = SequenceToSequence({"audio": AUDIO, "text": Text("characters")}, target="text")
    (section,) = baseline(task, Records(tones(["low", "high"] * 8), tones(["high", "low", "low"]))).sections
    named = {line.model: line.outcomes[0].metrics for line in section.lines}
    assert named["logistic regression"] == {"val/wer": 0, "val/cer": 0, "val/exact_match": 1}
    assert named["most frequent"]["val/wer"] > 0.3
    assert section.title == "SequenceToSequence, audio -> text; 16 train, 3 validation records"


def test_what_has_no_baseline_says_so() -> None:
    rows = Rows([{"text": f"{word} {i}", "kind": word} for i, word in enumerate(["a", "b"] * 9)])
    task = Predict({"text": Text()}, {"kind": Category(), "text": Masked()})
    (section,) = baseline(task, Records(rows, rows)).sections
    assert section.notes == ["the target 'text', Masked, has no baseline"]
    assert {line.target for line in section.lines} == {"kind"}
    chat = ChatModel({"text": Text()}, "kind")
    (section,) = baseline(chat, Records(rows, rows)).sections
    assert section.notes == ["ChatModel has no baseline"] and not section.lines


def test_many_texts_are_those_of_the_nearest_training_records() -> None:
    task = SequenceToSequence({"audio": AUDIO, "text": Text("characters")}, target="text")
    train, pitch = [f"word {i}" for i in range(6)], dict(zip([f"word {i}" for i in range(6)], range(6), strict=True))
    time = np.arange(2000) / 8000
    sound = {word: np.sin(2 * np.pi * (400 + 500 * number) * time) for word, number in pitch.items()}
    rows = Rows([{"audio": sound[word], "text": word} for word in train])
    other = Rows([{"audio": sound[word] / 2, "text": word} for word in train[::-1]])
    (section,) = baseline(task, Records(rows, other)).sections
    (line,) = section.lines
    assert (line.name, section.notes) == ("target of the nearest training source on audio", [])
    assert line.outcomes[0].metrics == {"val/wer": 0, "val/cer": 0, "val/exact_match": 1}
    # None is its own nearest, and each holds another number.
    assert line.outcomes[0].inner == 0.5


def test_a_mixture_has_those_of_each_of_its_tasks(tmp_path: Path) -> None:
    report = baseline(small_mixture(), small_mixed(tmp_path), limit=60)
    names = [section.task for section in report.sections]
    assert names == list(small_mixture().members) and all(section.lines for section in report.sections)
    assert any(note.startswith("a sample of 60 of") for section in report.sections for note in section.notes)
