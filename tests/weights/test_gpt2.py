"""GPT-2 of transformers goes in from its folder and comes out again: the same ids, logits, gradients and bits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.witnesses import redraw

pytest.importorskip("transformers")

from transformers import AutoTokenizer, GPT2LMHeadModel

from anyformer.generation.config import GenerationConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.positions import PositionConfig
from anyformer.packing import collate
from anyformer.tasks.convert.huggingface import from_transformers, take_in, to_transformers
from anyformer.tasks.language.language import LanguageModel
from anyformer.weights.gpt2 import GPT2
from tests.helpers.transformers_folders import ODD, byte_level, disagreement, gpt2, padded

VARIANTS: dict[str, dict[str, Any]] = {
    "small": {},
    "larger, with an MLP of its own width": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_inner": 50},
    "untied, without a scale": {"tie_word_embeddings": False, "scale_attn_weights": False},
    "relu": {"activation_function": "relu"},
    "a table longer than the vocabulary": {"vocab_size": 512},
}


def logits(task: LanguageModel, texts: list[str]) -> torch.Tensor:
    """Of every token of the texts, (tokens, v)."""
    batch = collate([task._prompt({"text": text}) for text in texts], task.model.tokenizers)
    return task.head(task.model(batch)[batch.layout.segment > 0])


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_folder_gives_the_same_logits_and_gradients(tmp_path: Path, variant: str) -> None:
    theirs = gpt2(tmp_path / "hub", **VARIANTS[variant])
    task, report = take_in(tmp_path / "hub")
    assert not report.unused and not report.fresh
    texts = ["to be or not", "the question", "être"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hub")
    batch = padded([tokenizer(text)["input_ids"] for text in texts])
    expected = theirs(**batch).logits[batch["attention_mask"].bool()]
    assert disagreement(GPT2, tmp_path / "hub", theirs, expected, task, logits(task, texts)) < 1e-4


def test_text_becomes_the_same_ids(tmp_path: Path) -> None:
    gpt2(tmp_path / "hub")
    task = from_transformers(tmp_path / "hub")
    to_transformers(task, tmp_path / "out")
    for folder in ("hub", "out"):
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / folder)
        for text in ODD:
            ids = tokenizer(text, split_special_tokens=True)["input_ids"]
            assert task.text.encode_batch([text])[0].tolist() == ids
            assert task.text.eos_id not in ids
        assert tokenizer.eos_token_id == task.text.eos_id


def test_greedy_continuations_are_the_same(tmp_path: Path) -> None:
    theirs = gpt2(tmp_path / "hub")
    theirs.generation_config.eos_token_id = None
    task = from_transformers(tmp_path / "hub")
    for text in ("to be or not", "x"):
        ids = torch.tensor([task.text.encode_batch([text])[0].tolist()])
        mask = torch.ones_like(ids)
        expected = theirs.generate(ids, attention_mask=mask, max_new_tokens=32, do_sample=False, pad_token_id=0)
        ((found,),) = task.generator.generate(
            [task._prompt({"text": text})], GenerationConfig(max_new_tokens=32, temperature=0)
        )
        assert found.ids == expected[0, ids.shape[1] :].tolist()
        assert len(set(found.ids)) > 3, "a continuation that is always the same token shows little"


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_way_in_and_out_changes_no_bit(tmp_path: Path, variant: str) -> None:
    theirs = gpt2(tmp_path / "hub", **VARIANTS[variant])
    with torch.no_grad():
        # -0 + 0 is 0.
        theirs.transformer.wpe.weight[0] = -0.0
    theirs.save_pretrained(tmp_path / "hub")
    task = from_transformers(tmp_path / "hub")
    to_transformers(task, tmp_path / "out")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("hub", "out"))
    assert before.keys() == after.keys()
    assert all(before[name].numpy().tobytes() == after[name].numpy().tobytes() for name in before)
    loaded, info = GPT2LMHeadModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())
    ids = padded([[1, 2, 3]])
    assert torch.equal(loaded.eval()(**ids).logits, theirs(**ids).logits)
    settings = json.loads((tmp_path / "out" / "config.json").read_text())
    there = json.loads((tmp_path / "hub" / "config.json").read_text())
    told = {name: value for name, value in settings.items() if name != "n_inner"}
    assert told == {name: there[name] for name in told}


def test_the_first_models_files_go_in(tmp_path: Path) -> None:
    """No prefix, causal masks, and vocab.json with merges.txt."""
    tokenizer = byte_level()
    gpt2(tmp_path / "hub", tokenizer, n_positions=80)
    task = from_transformers(tmp_path / "hub")
    state = load_file(tmp_path / "hub" / "model.safetensors")
    old = {name.removeprefix("transformer."): tensor.clone() for name, tensor in state.items()}
    old |= {"h.0.attn.bias": torch.ones(1, 1, 80, 80), "h.1.attn.masked_bias": torch.tensor(-1e4)}
    save_file(old, tmp_path / "hub" / "model.safetensors")
    learnt = json.loads((tmp_path / "hub" / "tokenizer.json").read_text())["model"]
    (tmp_path / "hub" / "tokenizer.json").unlink()
    (tmp_path / "hub" / "vocab.json").write_text(json.dumps(learnt["vocab"]))
    (tmp_path / "hub" / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, learnt["merges"])))
    other, report = take_in(tmp_path / "hub")
    assert not report.unused
    assert torch.equal(logits(other, ODD), logits(task, ODD))


@pytest.mark.parametrize("scheme", ["joint", "learned"])
def test_a_model_trained_here_is_the_same_there(tmp_path: Path, scheme: str) -> None:
    gpt2(tmp_path / "hub")
    task = from_transformers(tmp_path / "hub")
    positions = [PositionConfig(("word",), scheme)]
    # What says the same otherwise.
    transformer = replace(task.transformer, final_norm=True, d_ff=None)
    trained = LanguageModel(dict(task.tokenizers), transformer, EmbeddingConfig(positions=positions), context=48)
    trained.build()
    redraw(trained)
    to_transformers(trained.eval(), tmp_path / "out")
    theirs = GPT2LMHeadModel.from_pretrained(tmp_path / "out").eval()
    batch = padded([trained.text.encode_batch(["to be or"])[0].tolist()])
    torch.testing.assert_close(logits(trained, ["to be or"]), theirs(**batch).logits[0], rtol=1e-4, atol=1e-4)
