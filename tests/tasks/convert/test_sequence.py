"""Encoder-decoders become tasks that are used as any other, and go out again; what has no counterpart is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from torch import nn

pytest.importorskip("transformers")

from transformers import AutoProcessor

from anyformer.cli.main import main
from anyformer.errors import InputError
from anyformer.saving.model_folder import load, save
from anyformer.tasks.convert.huggingface import export, from_transformers, to_transformers
from anyformer.tasks.sequence.sequence import CTCConfig, SequenceToSequence
from anyformer.tasks.sequence.transcribe import transcribe
from anyformer.tasks.sequence.transcripts import parts
from anyformer.tokenizers.audio.audio import Audio, AudioStem
from anyformer.tokenizers.text.text import Text
from tests.helpers.sequence_models import logits
from tests.helpers.transformers_folders import marian, t5, whisper
from tests.helpers.witnesses import error
from tests.weights.test_marian import SIZES, translator
from tests.weights.test_whisper import TARGETS, openai


def sound(path: Path, seconds: float) -> Path:
    random = np.random.default_rng(0)
    n = round(seconds * 16000)
    tone = np.sin(np.cumsum(random.uniform(0.05, 0.5, n // 800 + 1).repeat(800)[:n]))
    soundfile.write(path, 0.3 * tone + 0.01 * random.standard_normal(n), 16000)
    return path


def test_what_is_said_is_written_as_transformers_writes_it(tmp_path: Path) -> None:
    """From a file, by the processor that lies in the folder, there and as it comes out."""
    theirs = whisper(tmp_path / "hub")
    task = from_transformers(tmp_path / "hub", language="de", pad="full")
    to_transformers(task, tmp_path / "out")
    path = sound(tmp_path / "hello.wav", 0.7)
    (result,) = task.predict([{"audio": str(path)}], replace(task.options, fallback=()))
    for folder in ("hub", "out"):
        processor = AutoProcessor.from_pretrained(tmp_path / folder)
        inputs = processor(soundfile.read(path)[0], sampling_rate=16000, return_tensors="pt")
        chosen = {"language": "de", "task": "transcribe", "max_new_tokens": 20, "do_sample": False}
        ids = theirs.generate(inputs["input_features"], **chosen)
        (expected,) = processor.batch_decode(ids, skip_special_tokens=True)
        assert result["text"] == expected.strip() != ""


def test_a_sound_is_padded_unless_it_is_said_not_to_be(tmp_path: Path) -> None:
    """A shorter sound is what a model with as many places makes of it."""
    theirs = whisper(tmp_path / "hub")
    task, padding = (from_transformers(tmp_path / "hub", "en", pad) for pad in ("none", None))
    path = str(sound(tmp_path / "hello.wav", 0.5))
    short, whole = (each.tokenizers["audio"].encode(path) for each in (task, padding))
    assert (len(short), len(whole)) == (25, 50)
    theirs.config.max_source_positions = 25
    theirs.model.encoder.embed_positions = nn.Embedding.from_pretrained(
        theirs.model.encoder.embed_positions.weight[:25].detach()
    )
    decoder = {"decoder_input_ids": torch.tensor(TARGETS[:1])}
    expected = theirs(short.content.T[None], **decoder).logits[0]
    assert error(logits(task, [short], TARGETS[:1]), expected) < 1e-4


def test_the_command_line_brings_one_in_and_writes_what_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whisper(tmp_path / "hub", max_source_positions=150)
    assert main(["import", str(tmp_path / "hub"), str(tmp_path / "run"), "--language", "en"]) == 0
    assert "audio=..." in capsys.readouterr().out
    # Longer than the 3 seconds that it hears at once: in pieces.
    path = str(sound(tmp_path / "hello.wav", 5.0))
    assert main(["predict", str(tmp_path / "run"), f"audio={path}"]) == 0
    said = capsys.readouterr().out.strip()
    (expected,) = from_transformers(tmp_path / "hub", "en").predict([{"audio": path}])
    assert said == expected["text"] != ""
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    assert from_transformers(tmp_path / "out").model.encoder is not None


@pytest.mark.parametrize("window", [64, 2])
def test_the_language_is_chosen_once_for_a_recording(tmp_path: Path, window: int) -> None:
    whisper(tmp_path / "hub", max_source_positions=150)
    task = from_transformers(tmp_path / "hub")
    # It must hear what it is given, and that must differ.
    torch.manual_seed(1)
    for parameter in task.model.embeddings.lifts["audio"].parameters():
        nn.init.normal_(parameter)
    random, n = np.random.default_rng(0), 2 * 16000
    tones = [0.5 * np.sin(pitch * np.arange(n)) for pitch in (0.05, 2.0)]
    noises = [0.3 * random.standard_normal(n), (random.standard_normal(n).cumsum() / 150).clip(-1, 1)]
    quiet, records = np.zeros(8000), []
    for number, row in enumerate(([*tones, *noises], tones[:1], [*noises, *tones])):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, np.concatenate([part for each in row for part in (each, quiet)]), 16000)
        records.append({"audio": str(path)})
    found: dict[int, list[tuple[int, ...]]] = {}
    for number, told in transcribe(task, records, task.options, window):
        found.setdefault(number, []).append(told.found.start)
    changes = 0
    for number, record in enumerate(records):
        pieces = [part.record for part in parts(record, task.tokenizers, None)]
        alone = [told.found.start for piece in pieces for _, told in transcribe(task, [piece], task.options)]
        assert found[number] == alone[:1] * len(pieces)
        changes += alone[:1] * len(pieces) != alone
    assert changes, "every piece alone is in the same language, which shows little"


@pytest.mark.parametrize(
    ("language", "pad", "changes", "message"),
    [
        ("fr", False, {}, r"language fr: this Whisper knows en, de, haw$"),
        ("de", False, {"is_multilingual": False}, r"language de: this Whisper knows English alone"),
        (
            None,
            False,
            {"eos_token_id": 5},
            r"generation_config\.json: eos_token_id is 5, and the tokenizer ends a text",
        ),
        (None, False, {"suppress_tokens": "all"}, r"suppress_tokens is 'all', which is not a value for it"),
        (None, False, {"suppress_tokens": [5, "a"]}, r"begin_suppress_tokens must be ids, got 'a'"),
    ],
)
def test_what_cannot_be_brought_in_is_named(
    tmp_path: Path, language: str | None, pad: bool, changes: dict[str, Any], message: str
) -> None:
    whisper(tmp_path)
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(InputError, match=message) as raised:
        from_transformers(tmp_path, language, pad)
    assert "\n" not in str(raised.value)


def test_spectrograms_of_another_make_are_refused(tmp_path: Path) -> None:
    whisper(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hop_length": 200}))
    with pytest.raises(InputError, match=r"preprocessor_config\.json: hop_length: 200 cannot be brought in"):
        from_transformers(tmp_path)


def test_one_of_english_alone_is_told_no_language(tmp_path: Path) -> None:
    whisper(tmp_path)
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"is_multilingual": False}))
    task = from_transformers(tmp_path)
    assert task.start == ["<|startoftranscript|>", "<|notimestamps|>"]
    to_transformers(task, tmp_path / "out")
    assert from_transformers(tmp_path / "out").start == task.start


def test_what_stands_for_other_sounds_is_not_written(tmp_path: Path) -> None:
    """Their file does not say which tokens these are, so the tokenizer is asked."""
    openai(tmp_path)
    task = from_transformers(tmp_path / "small.pt", "en")
    names = {task.text.decode([i]) for i in task.decoding.suppressed}
    assert {"(", "[", "*", '"'} <= names and not {"a", ".", ",", "'"} & names
    assert task.text.eos_id in task.decoding.suppressed_first
    assert task.text.ids_of(["<|startofprev|>"])[0] in task.decoding.suppressed


@pytest.mark.parametrize("make", [marian, t5], ids=["marian", "t5"])
def test_a_task_is_saved_and_used_as_any_other(
    tmp_path: Path, make: Callable[[Path], nn.Module], capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "hub")
    task = from_transformers(tmp_path / "hub")
    save(task, tmp_path / "run" / "model")
    loaded = load(tmp_path / "run")
    record = {"text": "to be or not"}
    assert loaded.predict([record]) == task.predict([record])
    assert loaded.config() == task.config()
    to_transformers(loaded, tmp_path / "out")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("hub", "out"))
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    fresh = SequenceToSequence(
        dict(task.tokenizers),
        task.transformer,
        task.embedding,
        target="target",
        encoder=task.encoder,
        output=task.output,
        shared_vocabulary=True,
        start=task.start,
    )
    report = fresh.start_from(tmp_path / "run")
    assert not report.fresh and not report.unused


@pytest.mark.parametrize("options", [{"language": "de"}, {"pad": True}], ids=str)
def test_what_is_for_whisper_is_not_for_others(tmp_path: Path, options: dict[str, Any]) -> None:
    t5(tmp_path)
    with pytest.raises(InputError, match=r"language and pad are for Whisper; leave them out"):
        from_transformers(tmp_path, **options)


def test_a_folder_without_a_tokenizer_is_told_so(tmp_path: Path) -> None:
    t5(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"holds no tokenizer: neither tokenizer\.json nor the model of SentencePiece"):
        from_transformers(tmp_path)


def recogniser(**choices: Any) -> SequenceToSequence:
    audio = choices.pop("audio", Audio(stem=AudioStem()))
    text = choices.pop("text", Text(vocab_size=260, max_len=9).fit(["to be"]))
    return SequenceToSequence({"audio": audio, "text": text}, SIZES, **choices)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: recogniser(audio=Audio()), r"has a word for an audio other than Whisper's; train a model without it"),
        (lambda: recogniser(audio=Audio(stem=AudioStem(strides=(2, 2)))), r"an audio other than Whisper's"),
        (lambda: recogniser(text=Text("bytes", max_len=9)), r"has a word for a text of another kind than bpe"),
        (lambda: recogniser(ctc=CTCConfig()), r"has a word for ctc"),
        (lambda: recogniser(), r"WhisperForConditionalGeneration .* does not support transformer\.norm_position: post"),
        (lambda: translator(architecture="decoder"), r"has a word for architecture: decoder"),
        (lambda: translator(shared_vocabulary=False), r"has a word for shared_vocabulary: false"),
    ],
)
def test_what_transformers_has_no_word_for_is_named(
    tmp_path: Path, make: Callable[[], SequenceToSequence], message: str
) -> None:
    task = make()
    if task.model is None:
        task.build()
    with pytest.raises(InputError, match=message) as raised:
        export(task, tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_a_file_of_openai_is_of_a_whisper(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"out\.pt: OpenAI's file is of a Whisper; leave \.pt out for a folder"):
        export(translator(), tmp_path / "out.pt")
    whisper(tmp_path)
    with pytest.raises(InputError, match=r"OpenAI's Whisper does not support a d_ff other than 48, four times d_model"):
        export(from_transformers(tmp_path), tmp_path / "out.pt")


def test_to_go_on_training_a_whisper_its_language_is_given(tmp_path: Path) -> None:
    whisper(tmp_path, max_source_positions=150)
    heard, told = from_transformers(tmp_path), from_transformers(tmp_path, "haw")
    with pytest.raises(InputError, match=r"start: only a model in use can choose; give one token in the place of sev"):
        heard.chopper(training=True)
    assert heard.start_ids == from_transformers(tmp_path, "en").start_ids != told.start_ids
    chopper = told.chopper(training=True)
    record = {"audio": str(sound(tmp_path / "hello.wav", 2.0)), "text": "to be"}
    batch = chopper.collate([chopper(record)])
    loss, n_targets = told.loss(batch)
    # The text and its end; what stands before it is given.
    assert n_targets == len(told.text.encode_batch(["to be"])[0]) + 1
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in told.parameters())
