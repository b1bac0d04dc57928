"""OpenAI's own Whisper writes down what is said, as openai-whisper does, and nothing where nothing is."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from anyformer.cli.main import main
from anyformer.errors import InputError
from anyformer.metrics.text import count_errors
from anyformer.saving.model_folder import load
from anyformer.tasks.sequence.decoding import DecodeConfig
from anyformer.tasks.sequence.sequence import SequenceToSequence
from anyformer.tasks.sequence.transcripts import TranscriptConfig
from anyformer.tokenizers.audio.reading import read_sound

DATA = Path(os.environ.get("ANYFORMER_DATA", "data"))
WHISPER = next(DATA.absolute().parent.glob("*/whisper_tiny_en/tiny.en.pt"), None)
SPEECH = DATA / "speech_samples"

pytestmark = pytest.mark.skipif(
    WHISPER is None or not SPEECH.exists(),
    reason="needs speech_samples in ANYFORMER_DATA and Whisper tiny.en beside it",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whisper"
    assert main(["import", str(WHISPER), str(folder)]) == 0
    return folder


def words(text: str) -> str:
    return re.sub(r"[^\w\s]", " ", text.lower())


def error_rate(found: Sequence[str]) -> float:
    with open(SPEECH / "samples.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    true = [words(row["transcript"]) for row in rows]
    true = true if len(found) == len(true) else [" ".join(true)]
    wrong, n = count_errors(true, [words(each) for each in found]).tolist()[:2]
    return wrong / n


def samples() -> list[dict[str, str]]:
    with open(SPEECH / "samples.csv", encoding="utf-8", newline="") as file:
        return [{"audio": str(SPEECH / row["file"])} for row in csv.DictReader(file)]


def test_its_word_error_rate_is_that_of_openai_whisper(run: Path) -> None:
    assert (run / "model/vocabulary.json").exists() and (run / "model/config.json").stat().st_size < 20_000
    found = load(run).predict(samples())
    assert len(found) == 9 and error_rate([each["text"] for each in found]) == pytest.approx(0.066, abs=5e-4)
    assert {(each["ended"], each["doubt"], each["temperature"]) for each in found} == {("stop", "", 0.0)}


@pytest.mark.parametrize(("seconds", "loudness"), [(4.0, 0.0), (0.3, 0.0), (2.0, 0.001), (3.0, 0.1)])
def test_silence_and_noise_give_no_text_and_that_is_said(
    run: Path, tmp_path: Path, seconds: float, loudness: float, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = loudness * np.random.default_rng(0).standard_normal(round(16000 * seconds))
    soundfile.write(tmp_path / "quiet.wav", noise, 16000)
    assert main(["predict", str(run), f"audio={tmp_path / 'quiet.wav'}"]) == 0
    shown = capsys.readouterr()
    assert shown.out.strip() == "" and "no speech was heard" in shown.err


def test_what_is_longer_than_thirty_seconds_is_written_to_its_end(run: Path, tmp_path: Path) -> None:
    samples = [soundfile.read(SPEECH / f"LJ001-000{i}.flac") for i in (1, 3, 4, 5, 7, 8)]
    soundfile.write(tmp_path / "long.wav", np.concatenate([sound for sound, _ in samples]), samples[0][1])
    (result,) = load(run).predict([{"audio": str(tmp_path / "long.wav")}])
    assert len(result["text"].split()) > 80 and "surpassed" in result["text"] and result["doubt"] == ""


TIMES = """
0.0 0.68 0.82 0.96 1.28 1.6 2.34 2.42 2.58 2.7 3.0 3.16 3.38 4.6 4.7 4.88 5.4 5.5
5.92 6.1 6.32 6.44 6.7 6.92 7.14 8.44 8.6 8.84 9.08 9.26 9.46 9.78 9.94 10.22 10.38 10.6
"""
"""When the words of the recording below begin, as openai-whisper 20250625 tells it."""


def test_words_are_heard_when_openai_whisper_hears_them(run: Path) -> None:
    task = load(run)
    record = {"audio": str(SPEECH / "2412-153948-0000.flac")}
    (told,) = task.predict([record], TranscriptConfig(**options_of(task) | {"timestamps": True}))
    assert " ".join(word["text"] for word in told["words"]) == told["text"]
    apart = [abs(word["start"] - start) for word, start in zip(told["words"], map(float, TIMES.split()), strict=True)]
    assert sorted(apart)[len(apart) // 2] <= 0.02
    assert " ".join(segment["text"] for segment in told["segments"]) == told["text"] and len(told["segments"]) == 3
    assert "-->" in "".join(task.stream(record, TranscriptConfig(**options_of(task) | {"format": "vtt"})))


def test_windows_that_follow_each_other_by_times_write_what_openai_whisper_does(run: Path) -> None:
    task = load(run)
    long = torch.cat([read_sound(sample["audio"]) for sample in samples()])
    (told,) = task.predict([{"audio": (long.numpy(), 16_000)}])
    # Cut at its pauses 0.126.
    assert error_rate([told["text"]]) == pytest.approx(0.060, abs=5e-4) and told["doubt"] == ""


def test_five_seconds_of_silence_behind_are_enough(tmp_path: Path) -> None:
    assert main(["import", str(WHISPER), str(tmp_path / "run"), "--pad", "auto"]) == 0
    found = load(tmp_path / "run").predict(samples())
    assert error_rate([each["text"] for each in found]) == pytest.approx(0.054, abs=5e-4)


def test_a_prompt_spells_names_and_english_alone_is_not_translated(run: Path) -> None:
    task = load(run)
    record = samples()[6]
    said = [task.predict([record], TranscriptConfig(**options_of(task) | each))[0]["text"] for each in ({}, PROMPT)]
    assert "Gutenberg" not in said[0] and "Gutenberg" in said[1]
    with pytest.raises(InputError, match="translate needs a Whisper that knows several languages"):
        task.predict([record], TranscriptConfig(**options_of(task) | {"translate": True}))


PROMPT = {"prompt": "Gutenberg and Caxton printed books."}


def options_of(task: SequenceToSequence) -> dict[str, Any]:
    return {each.name: getattr(task.options, each.name) for each in fields(DecodeConfig)}
