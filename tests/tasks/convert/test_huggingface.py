"""Tasks from transformers' folders and back; what has no counterpart on the other side is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("transformers")

from anyformer.errors import InputError
from anyformer.saving.model_folder import load, save
from anyformer.tasks.base.task import Task
from anyformer.tasks.classify.classify import Classify
from anyformer.tasks.convert.huggingface import export, from_transformers, take_in, to_transformers
from anyformer.weights.timm_vit import to_timm
from tests.helpers.transformers_folders import bert, gpt2
from tests.weights.test_timm_vit import classifier, same


def settings(folder: Path, **changes: Any) -> None:
    """Change values of a config.json; None takes one out."""
    path = folder / "config.json"
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))


def test_shards_give_the_same_task(tmp_path: Path) -> None:
    theirs = gpt2(tmp_path / "whole")
    task = from_transformers(tmp_path / "whole")
    for path in (tmp_path / "whole").iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    theirs.save_pretrained(tmp_path, max_shard_size="6KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    other, report = take_in(tmp_path)
    assert report.source.endswith("model.safetensors.index.json")
    assert same(dict(task.state_dict()), dict(other.state_dict()))


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        (
            gpt2,
            {"architectures": ["LlamaForCausalLM"]},
            r"is LlamaForCausalLM; of it GPT2Model can be had",
        ),
        (gpt2, {"architectures": None}, r"architectures is missing; .* GPT2LMHeadModel, GPT2Model, BertForMaskedLM"),
        (
            gpt2,
            {"model_type": "gptj"},
            r"model_type: 'gptj' cannot be brought in; only models with model_type",
        ),
        (
            gpt2,
            {"scale_attn_by_inverse_layer_idx": True},
            r"config\.json: scale_attn_by_inverse_layer_idx: True",
        ),
        (gpt2, {"add_cross_attention": True}, r"add_cross_attention: True cannot"),
        (gpt2, {"quantization_config": {"bits": 8}}, r"quantization_config: .* cannot be brought in"),
        (gpt2, {"activation_function": "mish"}, r"activation_function: mish is none of the activations here"),
        (gpt2, {"n_embd": "many"}, r"n_embd is 'many', which is not a value for it"),
        (gpt2, {"n_head": 5}, r"config\.json: n_heads must divide d_model"),
        (gpt2, {"n_layer": 3}, r"config\.json is not of these weights: .* holds 2 blocks, and the model 3; take both"),
        (
            gpt2,
            {"n_positions": 20},
            r"not of these weights: .*rs: wpe\.weight is \(48, 12\), and .* \(20, 12\)",
        ),
        (
            gpt2,
            {"n_inner": 20},
            r"mlp\.c_fc\.bias is \(48\), and .*up\.bias is \(20\); take both",
        ),
        (gpt2, {"vocab_size": 9}, r"vocab_size is 9, and the tokenizer of the folder has \d+ tokens; take both"),
        (
            gpt2,
            {"tie_word_embeddings": False},
            r"model\.safetensors lacks lm_head\.weight; export the whole model",
        ),
        (bert, {"is_decoder": True}, r"is_decoder: True cannot"),
        (bert, {"position_embedding_type": "relative_key"}, r"position_embedding_type: 'relative_key' cannot"),
        (bert, {"tie_word_embeddings": False}, r"tie_word_embeddings: False cannot"),
        (
            bert,
            {"architectures": ["BertForSequenceClassification"]},
            r"lacks classifier\.weight, classifier\.bias, bert\.pooler\.dense\.weight, bert\.pooler\.dense\.bias",
        ),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_brought_in_is_named(
    tmp_path: Path, family: Callable[[Path], Any], changes: dict[str, Any], message: str
) -> None:
    family(tmp_path)
    settings(tmp_path, **changes)
    with pytest.raises(InputError, match=message) as raised:
        from_transformers(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_tensor_of_a_block_that_has_no_place_is_refused(tmp_path: Path) -> None:
    gpt2(tmp_path)
    path = tmp_path / "model.safetensors"
    save_file(load_file(path) | {"transformer.h.0.adapter.weight": torch.ones(2)}, path)
    with pytest.raises(InputError, match=r"h\.0\.adapter\.weight of shape \(2\) has no place in the model; take both"):
        from_transformers(tmp_path)


@pytest.mark.parametrize("kind", ["language", "masked", "classes"])
def test_a_task_is_saved_and_started_from_as_any_other(tmp_path: Path, kind: str) -> None:
    _ = gpt2(tmp_path / "hub") if kind == "language" else bert(tmp_path / "hub", kind)
    task = from_transformers(tmp_path / "hub")
    save(task, tmp_path / "run" / "model")
    loaded = load(tmp_path / "run")
    assert same(dict(task.state_dict()), dict(loaded.state_dict()))
    record = {"text": "to be ___" if kind == "masked" else "to be"}
    assert loaded.render(loaded.predict([record])[0]) == task.render(task.predict([record])[0])
    fresh = type(task)(dict(task.tokenizers), task.transformer, task.embedding, **options(task))
    report = fresh.start_from(tmp_path / "run")
    assert not report.fresh and not report.unused
    export(loaded, tmp_path / "out")
    assert same(load_file(tmp_path / "out" / "model.safetensors"), dict(load_file(_written(task, tmp_path / "other"))))


def test_a_classifier_starts_from_a_model_of_masked_tokens(tmp_path: Path) -> None:
    bert(tmp_path / "hub")
    masked = from_transformers(tmp_path / "hub")
    save(masked, tmp_path / "run" / "model")
    task = Classify(
        dict(masked.tokenizers), masked.transformer, masked.embedding, classes=["a", "b"], read="first", pool_dense=True
    )
    report = task.start_from(tmp_path / "run")
    assert report.fresh == (
        "heads.class_head.output.weight",
        "heads.class_head.output.bias",
        "pool.dense.weight",
        "pool.dense.bias",
    )
    assert same(dict(task.model.state_dict()), dict(masked.model.state_dict()))


def options(task: Task) -> dict[str, Any]:
    if isinstance(task, Classify):
        return {"classes": task.classes, "read": "first", "pool_dense": True}
    return {"output": task.output, "context": task.context, "masking": task.masking}


def _written(task: Task, folder: Path) -> Path:
    to_transformers(task, folder)
    return folder / "model.safetensors"


# Out


def test_a_model_of_pictures_goes_out_to_timm(tmp_path: Path) -> None:
    task = classifier()
    export(task, tmp_path / "new" / "vit.safetensors")
    assert same(load_file(tmp_path / "new" / "vit.safetensors"), to_timm(task))
    other = classifier()
    assert not other.start_from(tmp_path / "new" / "vit.safetensors").fresh


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    gpt2(tmp_path / "hub")
    language = from_transformers(tmp_path / "hub")
    (tmp_path / "out").mkdir()
    (tmp_path / "vit.safetensors").touch()
    with pytest.raises(InputError, match=r"out is there already; choose another folder"):
        export(language, tmp_path / "out")
    with pytest.raises(InputError, match=r"vit\.safetensors is there already; choose another file"):
        export(classifier(), tmp_path / "vit.safetensors")
    with pytest.raises(InputError, match=r"a model of pictures is written as a file for timm; give FILE\.safetensors"):
        export(classifier(), tmp_path / "new")
    with pytest.raises(InputError, match=r"a model of text is written as a folder; leave \.safetensors out"):
        export(language, tmp_path / "new.safetensors")
