"""Marian of transformers goes in from its folder and comes out again: the same ids, logits, gradients, texts, bits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

pytest.importorskip("transformers")

from transformers import AutoTokenizer, MarianMTModel

from anyformer.errors import InputError
from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.heads import HeadConfig
from anyformer.model.positions import PositionConfig
from anyformer.tasks.convert.huggingface import export, from_transformers, take_in, to_transformers
from anyformer.tasks.sequence.sequence import SequenceToSequence
from anyformer.tokenizers.text.text import Text
from anyformer.weights.marian import MARIAN
from tests.helpers.sequence_models import difference, logits, source_batch, their_logits
from tests.helpers.transformers_folders import disagreement, marian, padded
from tests.helpers.witnesses import redraw

TEXTS = ["to be or not to be", "the mind", "whether tis nobler, in the question!"]
TARGETS = [[0, 9, 4, 21, 8], [0, 5], [0, 24, 3, 20, 6, 17, 9, 22, 12]]
VARIANTS: dict[str, dict[str, Any]] = {
    "small": {},
    "the original": {"activation_function": "relu", "d_model": 32, "encoder_attention_heads": 4},
    "not scaled": {"scale_embedding": False},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_folder_gives_the_same_logits_and_gradients(tmp_path: Path, variant: str) -> None:
    theirs = marian(tmp_path / "hub", **VARIANTS[variant])
    task, report = take_in(tmp_path / "hub")
    assert not report.unused and not report.fresh
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hub")
    # So small a model behind so many norms is at the limit of 32 bits.
    theirs, task = theirs.double(), task.double()
    # The decoder starts from padding, whose vector is not trained there.
    for module in theirs.modules():
        if isinstance(module, torch.nn.Embedding):
            module.padding_idx = None
    # It is no parameter, and ours is one.
    theirs.final_logits_bias.requires_grad_()
    expected = their_logits(theirs, [tokenizer(text)["input_ids"] for text in TEXTS], TARGETS)
    found = logits(task, [task.tokenizers["text"].encode(text) for text in TEXTS], TARGETS)
    assert disagreement(MARIAN, tmp_path / "hub", theirs, expected, task, found) < 1e-4


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> SequenceToSequence:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("marian")
    marian(folder)
    return from_transformers(folder)


def sines(**choices: Any) -> dict[str, Any]:
    return {"positions": [PositionConfig(("word",), "sinusoidal", **choices)]}


@pytest.mark.parametrize(
    "wrong",
    [
        {"output": {"bias": False}},
        {"output": {"tied": False}},
        {"output": {"scaled": True}},
        {"embedding": {"scale": False}},
        {"embedding": {"types": True}},
        {"embedding": {"norm": True}},
        {"embedding": {"positions": []}},
        {"embedding": sines()},
        {"embedding": sines(sines="whisper")},
        {"embedding": sines(sines="halves", base=1000.0)},
        {"encoder": {"norm_position": "pre", "final_norm": False}},
        {"encoder": {"activation": "relu"}},
        {"encoder": {"final_norm": True}},
        {"encoder": {"n_heads": 2}},
        {"transformer": {"activation": "relu"}},
        {"transformer": {"norm_eps": 0.1}},
        {"transformer": {"n_heads": 3}},
        {"transformer": {"o_bias": False}},
    ],
    ids=str,
)
def test_an_option_set_wrong_is_seen(known: SequenceToSequence, wrong: dict[str, dict]) -> None:
    sources = [known.tokenizers["text"].encode(text) for text in TEXTS]
    assert difference(known, sources, TARGETS) == 0
    assert difference(known, sources, TARGETS, **wrong) > 1e-2


def test_greedy_texts_are_the_same(tmp_path: Path) -> None:
    theirs = marian(tmp_path / "hub")
    task = from_transformers(tmp_path / "hub")
    ids = [task.tokenizers["text"].encode(text) for text in TEXTS]
    batch, end = padded([each.content.tolist() for each in ids]), task.text.eos_id
    # Without the penalty so small a model repeats itself; their cache forgets that the decoder is deeper.
    choices = {"max_new_tokens": 32, "do_sample": False, "use_cache": False, "repetition_penalty": 5.0}
    expected = theirs.generate(**batch, **choices)[:, 1:].tolist()
    expected = [row[: row.index(end)] if end in row else row for row in expected]
    options = task.decoder.generation(replace(task.decoding, max_new_tokens=32))
    options = replace(options, repetition_penalty=5.0)
    prompts = [{task.target: task.decoder.prompt} for _ in TEXTS]
    found = task.decoder.generator.generate(prompts, options, source_batch(task, ids))
    assert [best.ids for (best,) in found] == expected
    assert len({i for row in expected for i in row}) > 1, "a text that is always the same token shows little"
    assert task.text.pad_id not in {i for row in expected for i in row}, "as their generation_config says"


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_way_in_and_out_changes_no_bit(tmp_path: Path, variant: str) -> None:
    theirs = marian(tmp_path / "hub", **VARIANTS[variant])
    task = from_transformers(tmp_path / "hub")
    to_transformers(task, tmp_path / "out")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("hub", "out"))
    assert before.keys() == after.keys()
    assert all(before[name].numpy().tobytes() == after[name].numpy().tobytes() for name in before)
    loaded, info = MarianMTModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())
    rows = [[4, 9, 1], [7, 1]]
    assert torch.equal(their_logits(loaded.eval(), rows, rows), their_logits(theirs, rows, rows))
    told, there = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("out", "hub"))
    # Of the names of an activation one goes out.
    same = told.keys() - {"bos_token_id", "forced_eos_token_id", "activation_function"}
    assert {name: told[name] for name in same} == {name: there[name] for name in same}
    # And what it writes is written there.
    one, other = (json.loads((tmp_path / name / "generation_config.json").read_text()) for name in ("out", "hub"))
    assert one["bad_words_ids"] == other["bad_words_ids"]
    again = from_transformers(tmp_path / "out")
    assert (again.start, again.decoding) == (task.start, task.decoding)


def rewritten(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)


def test_the_first_models_files_go_in(tmp_path: Path) -> None:
    """Copies of the table, tables of sines, no bias, and a config that says what all of them are."""
    theirs = marian(tmp_path)
    task = from_transformers(tmp_path)
    places = theirs.model.encoder.embed_positions.weight.detach()

    def old(state: dict[str, Tensor]) -> dict[str, Tensor]:
        stacks = ("model.encoder", "model.decoder")
        state |= {f"{stack}.embed_tokens.weight": state["model.shared.weight"].clone() for stack in stacks}
        del state["final_logits_bias"]
        return state | {f"{stack}.embed_positions.weight": places.half().float() for stack in stacks}

    rewritten(tmp_path, old)
    path = tmp_path / "config.json"
    told = json.loads(path.read_text()) | {"normalize_before": False, "add_final_layer_norm": False}
    path.write_text(json.dumps(told))
    other, report = take_in(tmp_path)
    assert not report.unused and not other.head.bias.any()
    own = task.state_dict()
    assert all(torch.equal(own[name], part) for name, part in other.state_dict().items() if name != "head.bias")


def test_other_positions_than_sines_are_refused(tmp_path: Path) -> None:
    marian(tmp_path)
    rewritten(tmp_path, lambda state: state | {"model.decoder.embed_positions.weight": torch.ones(40, 12)})
    with pytest.raises(
        InputError, match=r"config\.json: model\.decoder\.embed_positions\.weight holds other positions"
    ):
        from_transformers(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"share_encoder_decoder_embeddings": False}, r"share_encoder_decoder_embeddings: False cannot be brought in"),
        ({"decoder_vocab_size": 7}, r"decoder_vocab_size: 7 cannot be brought in"),
        ({"normalize_before": True}, r"normalize_before: True cannot be brought in"),
        ({"tie_word_embeddings": False}, r"tie_word_embeddings: False cannot be brought in"),
        (
            {"encoder_layers": 3},
            r"config\.json is not of these weights: .* lacks the model's model\.encoder\.blocks\.2\.",
        ),
        (
            {"vocab_size": 9, "decoder_vocab_size": 9},
            r"vocab_size is 9, and the tokenizer of the folder has \d+ tokens",
        ),
        ({"decoder_start_token_id": 999}, r"decoder_start_token_id is 999, which the tokenizer does not have"),
    ],
    ids=str,
)
def test_what_cannot_be_brought_in_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    marian(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(InputError, match=message) as raised:
        from_transformers(tmp_path)
    assert "\n" not in str(raised.value)


# Out

TEXT = Text(vocab_size=260).fit(["to be or not to be"])
SIZES = TransformerConfig(d_model=12, n_heads=3, depth=1, norm_position="post", activation="relu")
ORIGINAL = EmbeddingConfig(types=False, scale=True, **sines(sines="halves"))


def translator(transformer: TransformerConfig = SIZES, text: Text = TEXT, **choices: Any) -> SequenceToSequence:
    options = {"embedding": ORIGINAL, "output": HeadConfig(bias=True), "shared_vocabulary": True, "target": "en"}
    task = SequenceToSequence({"de": text, "en": text}, transformer, **(options | choices))
    task.build()
    redraw(task)
    return task.eval()


def test_a_model_trained_here_is_the_same_there(tmp_path: Path) -> None:
    task = translator()
    to_transformers(task, tmp_path / "out")
    theirs = MarianMTModel.from_pretrained(tmp_path / "out").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    texts = ["to be", "or not to be"]
    rows = [tokenizer(text)["input_ids"] for text in texts]
    targets = [[*task.start_ids, 3, 4], [*task.start_ids, 9]]
    assert theirs.config.decoder_start_token_id == task.start_ids[0]
    found = logits(task, [task.tokenizers["de"].encode(text) for text in texts], targets)
    torch.testing.assert_close(found, their_logits(theirs, rows, targets), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (
            {"embedding": replace(ORIGINAL, norm=True)},
            r"MarianMTModel of transformers does not support embedding\.norm",
        ),
        ({"embedding": replace(ORIGINAL, **sines())}, r"MarianMTModel .* not support embedding\.positions"),
        ({"output": HeadConfig()}, r"not support output\.bias: False"),
        ({"transformer": replace(SIZES, norm_position="pre")}, r"not support transformer\.norm_position: pre"),
        ({"encoder": replace(SIZES, norm_eps=0.1)}, r"not support encoder\.norm_eps: 0\.1"),
        ({"embedding": replace(ORIGINAL, types=True)}, r"marian does not support the type vectors of fields"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_transformers_has_no_word_for_is_named(tmp_path: Path, choices: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        export(translator(**choices), tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())
