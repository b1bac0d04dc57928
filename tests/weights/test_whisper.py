"""Whisper goes in from transformers' folder and from OpenAI's file, and out again: the same vectors, texts and bits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

pytest.importorskip("transformers")

from transformers import WhisperForConditionalGeneration

from anyformer.errors import InputError
from anyformer.model.positions import PositionConfig
from anyformer.tasks.convert.huggingface import export, from_transformers, take_in, to_transformers
from anyformer.tasks.sequence.sequence import SequenceToSequence
from anyformer.tokenizers.audio.audio import AudioStem
from anyformer.tokens import TokenSet
from anyformer.weights.huggingface import read_settings
from anyformer.weights.whisper import WHISPER
from tests.helpers.sequence_models import difference, logits, otherwise, source_batch
from tests.helpers.transformers_folders import disagreement, padded, whisper
from tests.helpers.witnesses import error, redraw

TARGETS = [[281, 9, 4, 200, 8], [281, 5], [281, 44, 3, 20, 6, 170, 9, 30, 12]]
VARIANTS: dict[str, dict[str, Any]] = {
    "small": {},
    "larger": {"d_model": 32, "encoder_layers": 3, "encoder_attention_heads": 4, "num_mel_bins": 40},
    "untied, relu": {"tie_word_embeddings": False, "activation_function": "relu"},
}


def frames(n: int = 100, n_mels: int = 16, b: int = 3) -> Tensor:
    """Spectrograms, (b, frames, mels)."""
    return torch.randn(b, n, n_mels)


def cut(spectrograms: Tensor) -> list[TokenSet]:
    return [TokenSet(each, torch.arange(-(-len(each) // 2))[:, None]) for each in spectrograms]


def their_logits(theirs: nn.Module, spectrograms: Tensor) -> Tensor:
    batch = padded(TARGETS)
    decoder = {f"decoder_{name}": value for name, value in batch.items()}
    return theirs(spectrograms.mT, **decoder).logits[batch["attention_mask"].bool()]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_folder_gives_the_same_logits_and_gradients(tmp_path: Path, variant: str) -> None:
    theirs = whisper(tmp_path / "hub", **VARIANTS[variant])
    task, report = take_in(tmp_path / "hub")
    assert not report.unused and not report.fresh
    spectrograms = frames(n_mels=theirs.config.num_mel_bins)
    found = logits(task, cut(spectrograms), TARGETS)
    # The table of sines has no gradient on either side.
    assert not task.model.embeddings.positions[0].table.requires_grad
    assert disagreement(WHISPER, tmp_path / "hub", theirs, their_logits(theirs, spectrograms), task, found) < 1e-4


def test_tiny_is_the_same_at_thirty_seconds(tmp_path: Path) -> None:
    """The sizes of Whisper tiny: the encoder, the decoder, and 32 tokens from the cache."""
    sizes = {"d_model": 384, "encoder_layers": 4, "decoder_layers": 4, "num_mel_bins": 80}
    sizes |= {"encoder_attention_heads": 6, "decoder_attention_heads": 6}
    sizes |= {"encoder_ffn_dim": 1536, "decoder_ffn_dim": 1536}
    places = {"max_source_positions": 1500, "max_target_positions": 448}
    theirs = whisper(tmp_path, **sizes, **places)
    task = from_transformers(tmp_path, language="en")
    spectrogram = frames(3000, 80, b=1)
    batch = source_batch(task, cut(spectrogram))
    with torch.inference_mode():
        memory = theirs.model.encoder(spectrogram.mT).last_hidden_state
        found = task.model.encode(batch)
        assert error(found, memory) < 1e-4
        ids = torch.tensor([TARGETS[2]])
        expected = theirs(encoder_outputs=(memory,), decoder_input_ids=ids).logits[0]
        assert error(logits(task, cut(spectrogram), TARGETS[2:]), expected) < 1e-4
        theirs.generation_config.eos_token_id = None
        chosen = {"language": "en", "task": "transcribe", "max_new_tokens": 32, "do_sample": False}
        written = theirs.generate(spectrogram.mT, **chosen)[0].tolist()
        options = replace(task.decoder.generation(task.decoding), max_new_tokens=32, stop_ids=())
        prompt = {"text": task.decoder.prompt}
        ((best,),) = task.decoder.generator.generate([prompt], options, batch, memory=found)
    assert best.ids == written[-32:]
    assert len(set(best.ids)) > 3, "a text that is always the same token shows little"


@pytest.mark.parametrize("language", [None, "haw"])
def test_greedy_texts_and_the_languages_heard_are_the_same(tmp_path: Path, language: str | None) -> None:
    theirs = whisper(tmp_path)
    task = from_transformers(tmp_path, language)
    spectrograms = frames(b=9) + 3 * torch.randn(9, 1, 16)
    chosen = {"language": language, "task": "transcribe", "max_new_tokens": 32, "do_sample": False}
    end, batch = task.text.eos_id, source_batch(task, cut(spectrograms))
    heard = theirs.detect_language(spectrograms.mT).tolist()
    prompts = [{"text": task.decoder.prompt} for _ in spectrograms]
    if language is None:
        assert len(set(heard)) > 1, "one language alone shows little"
        assert [start[1] for start in task.decoder.starts(prompts, batch)] == heard
    for i, spectrogram in enumerate(spectrograms):
        row = theirs.generate(spectrogram.mT[None], **chosen)[0].tolist()
        expected = row[: row.index(end)] if end in row else row
        config = replace(task.decoding, max_new_tokens=32, fallback=())
        (found,) = task.decoder.decode(config, prompts[:1], source_batch(task, cut(spectrograms[i : i + 1])))
        assert found == expected


def test_translations_and_what_was_said_before_are_as_theirs(tmp_path: Path) -> None:
    theirs = whisper(tmp_path)
    task = from_transformers(tmp_path, "haw")
    spectrograms = frames(b=2)
    said = task.text.encode_batch([" aloha"])[0].tolist()
    told = {"language": "haw", "max_new_tokens": 16, "do_sample": False}
    for options, wanted in (
        ({"translate": True}, {"task": "translate"}),
        ({"prompt": "aloha"}, {"task": "transcribe", "prompt_ids": torch.tensor(task.decoder.start.previous(said))}),
    ):
        config = replace(task.decoding, max_new_tokens=16, fallback=(), **options)
        for i in range(2):
            row = theirs.generate(spectrograms[i : i + 1].mT, **told, **wanted)[0].tolist()
            batch = source_batch(task, cut(spectrograms[i : i + 1]))
            (found,) = task.decoder.find(config, [{}], batch)
            plain = task.decoder.decode(replace(config, translate=False, prompt=None), [{}], batch)[0]
            assert found.ids == row and found.ids != plain


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> SequenceToSequence:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("whisper")
    whisper(folder)
    return from_transformers(folder)


def sines(**choices: Any) -> PositionConfig:
    return PositionConfig(("time",), "sinusoidal", **choices)


WORDS = PositionConfig(("word",), "learned", sizes=(40,))


@pytest.mark.parametrize(
    "wrong",
    [
        {"output": {"scaled": True}},
        {"output": {"tied": False}},
        {"embedding": {"scale": True}},
        {"embedding": {"types": True}},
        {"embedding": {"norm": True}},
        {"embedding": {"positions": [WORDS]}},
        {"embedding": {"positions": [sines(sines="whisper")]}},
        {"audio": {"stem": AudioStem(activation="relu")}},
        {"audio": {"stem": AudioStem(kernel=5)}},
        {"audio": {"stem": AudioStem(strides=(2, 1))}},
        *(
            {stack: {name: value}}
            for stack in ("encoder", "transformer")
            for name, value in {
                "activation": "relu",
                "norm_eps": 1.0,
                "norm_position": "post",
                "final_norm": False,
                "q_bias": False,
                "v_bias": False,
                "o_bias": False,
                "mlp_bias": False,
                "attention_scale": 1.0,
                "n_heads": 6,
            }.items()
        ),
    ],
    ids=str,
)
def test_an_option_set_wrong_is_seen(known: SequenceToSequence, wrong: dict[str, dict]) -> None:
    sources = cut(frames())
    assert difference(known, sources, TARGETS) == 0
    assert difference(known, sources, TARGETS, **wrong) > 1e-2


def test_keys_have_no_bias(tmp_path: Path) -> None:
    """One would change nothing but what it costs."""
    whisper(tmp_path)
    task = from_transformers(tmp_path)
    assert not [name for name, _ in task.named_parameters() if name.endswith(".k.bias")]
    other = otherwise(task, encoder={"k_bias": True})
    assert [name for name, _ in other.named_parameters() if name.endswith(".k.bias")]


# In and out


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_way_in_and_out_changes_no_bit(tmp_path: Path, variant: str) -> None:
    theirs = whisper(tmp_path / "hub", **VARIANTS[variant])
    task = from_transformers(tmp_path / "hub")
    to_transformers(task, tmp_path / "out")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("hub", "out"))
    assert before.keys() == after.keys()
    assert all(before[name].numpy().tobytes() == after[name].numpy().tobytes() for name in before)
    loaded, info = WhisperForConditionalGeneration.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())
    spectrograms = frames(n_mels=theirs.config.num_mel_bins)
    assert torch.equal(their_logits(loaded.eval(), spectrograms), their_logits(theirs, spectrograms))
    told, there = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("out", "hub"))
    same = told.keys() - {"forced_eos_token_id"}
    assert {name: told[name] for name in same} == {name: there[name] for name in same}
    told, there = (json.loads((tmp_path / name / "generation_config.json").read_text()) for name in ("out", "hub"))
    same = told.keys() & there.keys()
    assert len(same) > 10 and {name: told[name] for name in same} == {name: there[name] for name in same}
    again = from_transformers(tmp_path / "out")
    assert (again.start, again.decoding) == (task.start, task.decoding)


def test_type_vectors_go_into_the_tables_of_positions(tmp_path: Path) -> None:
    whisper(tmp_path / "hub")
    task = otherwise(from_transformers(tmp_path / "hub"), embedding={"types": True})
    to_transformers(task, tmp_path / "out")
    spectrograms = frames()
    theirs = WhisperForConditionalGeneration.from_pretrained(tmp_path / "out").eval()
    assert error(logits(task, cut(spectrograms), TARGETS), their_logits(theirs, spectrograms)) < 1e-4


# OpenAI


def openai(folder: Path, **sizes: int) -> nn.Module:
    """Their model, also written as their file, with the tokenizer of one of transformers beside it."""
    module = pytest.importorskip("whisper.model")
    whisper(folder, encoder_ffn_dim=48, decoder_ffn_dim=48)
    vocab_size = read_settings(folder).values["vocab_size"]
    for path in folder.iterdir():
        if path.name != "tokenizer.json":
            path.unlink()
    told = {"n_mels": 16, "n_audio_ctx": 50, "n_audio_state": 12, "n_audio_head": 3, "n_audio_layer": 2}
    told |= {"n_vocab": vocab_size, "n_text_ctx": 40, "n_text_state": 12, "n_text_head": 2, "n_text_layer": 2}
    dims = module.ModelDimensions(**(told | sizes))
    theirs = module.Whisper(dims)
    redraw(theirs)
    # Their matrices are classes of their own, which a witness's redrawing takes for tables.
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if parameter.ndim > 1 and "embedding" not in name:
                parameter.mul_(1.5 / parameter[0].numel() ** 0.5)
        theirs.decoder.positional_embedding.mul_(3)
    # Rounded to 16 bits, as in the published files.
    theirs.encoder.positional_embedding.copy_(theirs.encoder.positional_embedding.half())
    torch.save({"dims": vars(dims), "model_state_dict": theirs.state_dict()}, folder / "small.pt")
    return theirs.eval()


def test_a_file_of_openai_gives_the_same_logits_and_gradients(tmp_path: Path) -> None:
    theirs = openai(tmp_path)
    task, report = take_in(tmp_path / "small.pt", "en")
    assert not report.unused and not report.fresh
    spectrogram, ids = frames(b=1), torch.tensor(TARGETS[2:])
    expected = theirs(spectrogram.mT, ids)[0]
    found = logits(task, cut(spectrogram), TARGETS[2:])
    assert error(found, expected) < 1e-4
    noise = torch.randn_like(expected)
    (expected * noise).sum().backward()
    (found * noise).sum().backward()
    wanted = {"encoder.conv1.weight": task.model.embeddings.lifts["audio"].convolutions[0].weight}
    wanted |= {"decoder.positional_embedding": task.model.embeddings.positions[1].tables[0]}
    wanted |= {"encoder.blocks.0.attn.key.weight": task.model.encoder.blocks[0].attention.k.weight}
    wanted |= {"decoder.blocks.1.cross_attn.query.bias": task.model.transformer.blocks[1].cross.q.bias}
    wanted |= {"decoder.token_embedding.weight": task.model.embeddings.lifts["text"].table}
    for name, own in wanted.items():
        assert error(own.grad, theirs.get_parameter(name).grad) < 1e-4, name


def test_greedy_tokens_are_those_of_openai(tmp_path: Path) -> None:
    theirs = openai(tmp_path)
    task = from_transformers(tmp_path / "small.pt", "en")
    spectrogram = frames(b=1)
    ids = torch.tensor([task.start_ids])
    with torch.inference_mode():
        memory = theirs.embed_audio(spectrogram.mT)
        for _ in range(32):
            ids = torch.cat([ids, theirs.logits(ids, memory)[:, -1:].argmax(-1)], 1)
    options = replace(task.decoder.generation(task.decoding), max_new_tokens=32, stop_ids=())
    options = replace(options, suppressed=(), suppressed_first=())
    prompt = {"text": task.decoder.prompt}
    ((best,),) = task.decoder.generator.generate([prompt], options, source_batch(task, cut(spectrogram)))
    assert best.ids == ids[0, len(task.start_ids) :].tolist()
    assert len(set(best.ids)) > 3, "a text that is always the same token shows little"


def test_openais_file_goes_out_as_it_came(tmp_path: Path) -> None:
    theirs = openai(tmp_path)
    task = from_transformers(tmp_path / "small.pt", "en")
    export(task, tmp_path / "out.pt")
    loaded = torch.load(tmp_path / "out.pt", weights_only=True)
    assert loaded["dims"] == vars(theirs.dims)
    before, after = theirs.state_dict(), loaded["model_state_dict"]
    assert before.keys() == after.keys()
    assert all(before[name].numpy().tobytes() == after[name].numpy().tobytes() for name in before)
    with pytest.raises(InputError, match=r"out\.pt is there already; choose another file"):
        export(task, tmp_path / "out.pt")
    # And between the two libraries.
    to_transformers(task, tmp_path / "folder")
    assert own(task) == own(from_transformers(tmp_path / "folder"))


def own(task: SequenceToSequence) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in task.state_dict().items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.write_bytes(b"PK\3\4 no weights"), r"small\.pt is damaged, or holds more than tensors"),
        (lambda path: torch.save({"model_state_dict": {}}, path), r"must hold dims and model_state_dict"),
        (lambda path: torch.save({"dims": {}, "model_state_dict": {}}, path), r"small\.pt: dims lacks n_audio_ctx, "),
        (lambda path: torch.save({"dims": Path("x"), "model_state_dict": {}}, path), r"holds more than tensors"),
        (lambda path: (path.parent / "tokenizer.json").unlink(), r"holds no tokenizer"),
    ],
    ids=["damaged", "no dims", "dims lack", "code", "no tokenizer"],
)
def test_a_file_that_is_no_whisper_is_told_so(tmp_path: Path, change: Any, message: str) -> None:
    openai(tmp_path)
    change(tmp_path / "small.pt")
    with pytest.raises(InputError, match=message) as raised:
        from_transformers(tmp_path / "small.pt")
    assert "\n" not in str(raised.value)
