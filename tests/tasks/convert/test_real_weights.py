"""OpenAI's own Whisper writes down what is said, as openai-whisper does, and nothing where nothing is."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from anyformer.cli.main import main
from anyformer.metrics.text import count_errors
from anyformer.saving.model_folder import load

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


def test_its_word_error_rate_is_that_of_openai_whisper(run: Path) -> None:
    assert (run / "model/vocabulary.json").exists() and (run / "model/config.json").stat().st_size < 20_000
    with open(SPEECH / "samples.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = load(run).predict([{"audio": str(SPEECH / row["file"])} for row in rows])
    wrong, n = count_errors(
        [words(row["transcript"]) for row in rows], [words(each["text"]) for each in found]
    ).tolist()[:2]
    assert len(rows) == 9 and wrong / n == pytest.approx(0.066, abs=5e-4)
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
