"""T5 of transformers goes in from its folder and comes out again: the same ids, logits, gradients, texts and bits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("transformers")

from transformers import AutoTokenizer, T5ForConditionalGeneration

from anyformer.model.config import RelativeConfig
from anyformer.tasks.convert.huggingface import from_transformers, take_in, to_transformers
from anyformer.tasks.sequence.sequence import SequenceToSequence
from anyformer.weights.t5 import T5
from tests.helpers.sequence_models import difference, logits, source_batch, their_logits
from tests.helpers.transformers_folders import V1_1, disagreement, padded, t5

TEXTS = ["to be or not to be", "the mind", "whether tis nobler, in the question!"]
TARGETS = [[0, 9, 4, 21, 8], [0, 5], [0, 24, 3, 20, 6, 17, 9, 22, 12]]
VARIANTS: dict[str, dict[str, Any]] = {
    "1.0": {},
    "1.1": V1_1,
    "gated by another function": {"feed_forward_proj": "gated-silu"},
    "wide": {
        "d_model": 32,
        "num_heads": 4,
        "d_kv": 8,
        "d_ff": 50,
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 20,
    },
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_folder_gives_the_same_logits_and_gradients(tmp_path: Path, variant: str) -> None:
    theirs = t5(tmp_path / "hub", **VARIANTS[variant])
    task, report = take_in(tmp_path / "hub")
    assert not report.unused and not report.fresh
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hub")
    expected = their_logits(theirs, [tokenizer(text)["input_ids"] for text in TEXTS], TARGETS)
    found = logits(task, [task.tokenizers["text"].encode(text) for text in TEXTS], TARGETS)
    assert disagreement(T5, tmp_path / "hub", theirs, expected, task, found) < 1e-4


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> SequenceToSequence:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("t5")
    t5(folder)
    return from_transformers(folder)


BUCKETS = RelativeConfig("t5", "word", n_buckets=8, max_distance=6)
ONE_SIDED = replace(BUCKETS, bidirectional=False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"output": {"scaled": False}},
        {"output": {"tied": False}},
        {"output": {"bias": True, "tied": False}},
        {"encoder": {"relative": ONE_SIDED}},
        {"encoder": {"relative": replace(BUCKETS, max_distance=3)}},
        {"encoder": {"attention_scale": None}},
        {"encoder": {"norm": "layernorm"}},
        {"encoder": {"norm_eps": 1e-6}},
        {"encoder": {"activation": "gelu"}},
        {"encoder": {"final_norm": False}},
        {"transformer": {"relative": BUCKETS}},
        {"transformer": {"relative": replace(ONE_SIDED, n_buckets=4, max_distance=3)}},
        {"transformer": {"attention_scale": None}},
        {"transformer": {"activation": "silu"}},
        {"transformer": {"gated": True}},
        {"embedding": {"scale": True}},
        {"embedding": {"positions": None}, "transformer": {"relative": None}, "target": {"max_len": 40}},
        {"embedding": {"types": True}},
    ],
    ids=str,
)
def test_an_option_set_wrong_is_seen(known: SequenceToSequence, wrong: dict[str, dict]) -> None:
    sources = [known.tokenizers["text"].encode(text) for text in TEXTS]
    assert difference(known, sources, TARGETS) == 0
    assert difference(known, sources, TARGETS, **wrong) > 1e-2


def test_v1_1_has_its_own_head_and_the_approximation_of_gelu(tmp_path: Path) -> None:
    t5(tmp_path, **V1_1)
    task = from_transformers(tmp_path)
    assert (task.output.tied, task.output.scaled) == (False, False)
    assert (task.transformer.activation, task.transformer.gated) == ("gelu_tanh", True)
    sources = [task.tokenizers["text"].encode(text) for text in TEXTS]
    for wrong in ({"output": {"tied": True}}, {"output": {"scaled": True}}, {"transformer": {"gated": False}}):
        assert difference(task, sources, TARGETS, **wrong) > 1e-2, wrong
    # The two forms of GELU differ by several times what the parity above allows.
    exact = {"transformer": {"activation": "gelu"}, "encoder": {"activation": "gelu"}}
    assert difference(task, sources, TARGETS, **exact) > 2e-4


@pytest.mark.parametrize("variant", ["1.0", "1.1"])
def test_greedy_texts_are_the_same(tmp_path: Path, variant: str) -> None:
    theirs = t5(tmp_path / "hub", **VARIANTS[variant])
    theirs.generation_config.eos_token_id = None
    task = from_transformers(tmp_path / "hub")
    task.decoding = replace(task.decoding, max_new_tokens=32)
    batch = padded([task.tokenizers["text"].encode(text).content.tolist() for text in TEXTS])
    expected = theirs.generate(**batch, max_new_tokens=32, do_sample=False, use_cache=False)[:, 1:].tolist()
    sources = [task.tokenizers["text"].encode(text) for text in TEXTS]
    options = replace(task.decoder.generation(task.decoding), stop_ids=())
    prompts = [{task.target: task.decoder.prompt} for _ in TEXTS]
    found = task.decoder.generator.generate(prompts, options, source_batch(task, sources))
    assert [best.ids for (best,) in found] == expected
    assert len({i for ids in expected for i in ids}) > 1, "a text that is always the same token shows little"


def test_text_becomes_the_same_ids(tmp_path: Path) -> None:
    t5(tmp_path / "hub")
    task = from_transformers(tmp_path / "hub")
    to_transformers(task, tmp_path / "out")
    for folder in ("hub", "out"):
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / folder)
        for text in (*TEXTS, "  two  spaces ", "\u6771\u4eac"):
            ids = tokenizer(text)["input_ids"]
            assert task.tokenizers["text"].encode(text).content.tolist() == ids
            assert ids[-1] == task.text.eos_id
            assert task.text.encode(text).content.tolist() == ids[:-1]
    assert not {task.text.eos_id, task.text.pad_id} & set(task.text.encode("a </s> in <pad>").content.tolist())


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_way_in_and_out_changes_no_bit(tmp_path: Path, variant: str) -> None:
    theirs = t5(tmp_path / "hub", **VARIANTS[variant])
    task = from_transformers(tmp_path / "hub")
    to_transformers(task, tmp_path / "out")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("hub", "out"))
    assert before.keys() == after.keys()
    assert all(before[name].numpy().tobytes() == after[name].numpy().tobytes() for name in before)
    loaded, info = T5ForConditionalGeneration.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())
    rows = [[4, 9, 1], [7, 1]]
    assert torch.equal(their_logits(loaded.eval(), rows, rows), their_logits(theirs, rows, rows))
    told, there = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("out", "hub"))
    same = {name for name in told if name not in ("tie_word_embeddings", "bos_token_id", "forced_eos_token_id")}
    assert {name: told[name] for name in same} == {name: there[name] for name in same}


def test_the_first_models_files_go_in(tmp_path: Path) -> None:
    """Copies of the table, biases that nobody reads, and no word on the head but whether it is tied."""
    t5(tmp_path, **V1_1)
    task = from_transformers(tmp_path)
    path = tmp_path / "model.safetensors"
    state = load_file(path)
    copies = {f"{stack}.embed_tokens.weight": state["shared.weight"].clone() for stack in ("encoder", "decoder")}
    unread = {"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": torch.ones(8, 3)}
    save_file(state | copies | unread, path)
    told = json.loads((tmp_path / "config.json").read_text())
    del told["scale_decoder_outputs"]
    (tmp_path / "config.json").write_text(json.dumps(told | {"tie_word_embeddings": False}))
    other, report = take_in(tmp_path)
    assert not report.unused and other.output == task.output
    assert all(torch.equal(tensor, task.state_dict()[name]) for name, tensor in other.state_dict().items())
