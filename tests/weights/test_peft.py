"""Adapters go from peft into a run and back: the same outputs with the same A and B, for each family.

The witness is peft itself where it is installed; what needs none is held to the formula.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

pytest.importorskip("transformers")

from transformers import AutoTokenizer

from anyformer.errors import InputError
from anyformer.model.lora import LoraConfig, adapt, adapters
from anyformer.saving.model_folder import load, save
from anyformer.tasks.base.task import Task
from anyformer.tasks.convert.huggingface import family_of, from_transformers, take_in
from anyformer.tasks.convert.peft import from_peft, to_peft
from anyformer.weights.peft import matrices
from tests.helpers import transformers_folders as folders
from tests.weights import test_bert, test_gpt2, test_t5, test_whisper

# peft asks transformers what this calls by another name now.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

TEXTS = ["to be or not", "the question"]


def ids(folder: Path) -> dict[str, Tensor]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return folders.padded([tokenizer(text)["input_ids"] for text in TEXTS])


def of_gpt2(theirs: nn.Module, task: Task, folder: Path) -> tuple[Tensor, Tensor]:
    batch = ids(folder)
    return theirs(**batch).logits[batch["attention_mask"].bool()], test_gpt2.logits(task, TEXTS)


def of_bert(theirs: nn.Module, task: Task, folder: Path) -> tuple[Tensor, Tensor]:
    return theirs(**ids(folder)).logits, test_bert.logits(task, TEXTS)


def of_t5(theirs: nn.Module, task: Task, folder: Path) -> tuple[Tensor, Tensor]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected = test_t5.their_logits(theirs, [tokenizer(text)["input_ids"] for text in TEXTS], test_t5.TARGETS[:2])
    return expected, test_t5.logits(task, [task.tokenizers["text"].encode(text) for text in TEXTS], test_t5.TARGETS[:2])


def of_whisper(theirs: nn.Module, task: Task, folder: Path) -> tuple[Tensor, Tensor]:
    spectrograms = test_whisper.frames().double()
    # What no sample has is of the type of all numbers.
    torch.set_default_dtype(torch.float64)
    try:
        expected = test_whisper.their_logits(theirs, spectrograms)
        return expected, test_whisper.logits(task, test_whisper.cut(spectrograms), test_whisper.TARGETS)
    finally:
        torch.set_default_dtype(torch.float32)


CASES: dict[str, tuple[Callable[[Path], nn.Module], Callable, list[str], list[str]]] = {
    "gpt2": (folders.gpt2, of_gpt2, ["c_attn", "c_fc", "mlp.c_proj"], ["*.q", "*.v", "*.mlp.down"]),
    "bert": (
        lambda folder: folders.bert(folder, "classes"),
        of_bert,
        ["query", "value", "output.dense"],
        ["*.q", "*.o", "heads.*"],
    ),
    "t5 1.1": (lambda folder: folders.t5(folder, **folders.V1_1), of_t5, ["v", "wi_0", "wi_1"], ["*.up", "*.gate"]),
    "whisper": (folders.whisper, of_whisper, ["q_proj", "v_proj", "fc1"], ["model.encoder.*.k", "*.cross.q"]),
}
"""A model, its outputs and ours, what peft adapts in it and what we do."""


def imported(folder: Path, run: Path) -> None:
    save(take_in(folder)[0], run / "model")


@pytest.mark.parametrize(
    ("name", "stabilized"),
    [("gpt2", True), ("bert", False), ("t5 1.1", False), ("whisper", True)],
)
def test_an_adapter_of_peft_gives_its_outputs(tmp_path: Path, name: str, stabilized: bool) -> None:
    peft = pytest.importorskip("peft")
    make, outputs, on, _ = CASES[name]
    torch.manual_seed(0)
    theirs = make(tmp_path / "hub")
    imported(tmp_path / "hub", tmp_path / "base")
    options: dict[str, Any] = {"rank_pattern": {on[0]: 2}, "alpha_pattern": {on[1]: 5}} if stabilized else {}
    if name == "bert":
        options = {"modules_to_save": ["classifier"]}
    # GPT-2's matrices are turned, and peft warns of it where that is not said.
    turned = {"fan_in_fan_out": True} if name == "gpt2" else {}
    config = peft.LoraConfig(
        r=3, lora_alpha=4, target_modules=on, use_rslora=stabilized, init_lora_weights=False, **turned, **options
    )
    adapted = peft.get_peft_model(theirs, config)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.5)
    adapted.save_pretrained(tmp_path / "adapter")
    task, _ = from_peft(tmp_path / "adapter", tmp_path / "base")
    save(task, tmp_path / "run" / "model")
    task = load(tmp_path / "run").double()
    expected, found = outputs(adapted.eval().double(), task, tmp_path / "hub")
    assert_near(found, expected)
    with adapted.disable_adapter():
        assert (found - outputs(adapted, task, tmp_path / "hub")[0]).abs().max() > 0.05


def assert_near(found: Tensor, expected: Tensor) -> None:
    # In float64, but for the variances of transformers' T5, which are of float32 whatever the weights are.
    assert (found - expected).abs().max() < 5e-6 * max(1.0, expected.abs().max().item())


def run_with_adapters(tmp_path: Path, on: list[str]) -> Task:
    """A run with adapters far from nothing, on one that was imported."""
    imported(tmp_path / "hub", tmp_path / "base")
    task = from_transformers(tmp_path / "hub")
    task.lora = LoraConfig(rank=3, on=on, alpha=2.0)
    adapt(task, task.lora)
    task.take_base(tmp_path / "base")
    for layer in adapters(task).values():
        nn.init.normal_(layer.lora_b, std=0.5)
    return task


@pytest.mark.parametrize("name", CASES)
def test_adapters_of_ours_give_their_outputs_in_peft(tmp_path: Path, name: str) -> None:
    peft = pytest.importorskip("peft")
    make, outputs, _, on = CASES[name]
    torch.manual_seed(0)
    theirs = make(tmp_path / "hub")
    task = run_with_adapters(tmp_path, on)
    to_peft(task, tmp_path / "out")
    adapted = peft.PeftModel.from_pretrained(theirs, tmp_path / "out").eval().double()
    expected, found = outputs(adapted, task.double(), tmp_path / "hub")
    assert_near(found, expected)


@pytest.mark.parametrize("name", ["gpt2", "whisper"])
def test_a_folder_goes_out_and_in_again(tmp_path: Path, name: str) -> None:
    make, outputs, _, on = CASES[name]
    torch.manual_seed(0)
    theirs = make(tmp_path / "hub")
    task = run_with_adapters(tmp_path, on)
    to_peft(task, tmp_path / "out")
    again, said = from_peft(tmp_path / "out", tmp_path / "base")
    assert said.endswith(f"{len(adapters(task))} linear maps, of rank {again.lora.rank}")
    torch.manual_seed(1)
    before = outputs(theirs.double(), task.double(), tmp_path / "hub")
    torch.manual_seed(1)
    after = outputs(theirs, again.double(), tmp_path / "hub")
    torch.testing.assert_close(after[1], before[1], rtol=0, atol=1e-6)
    assert (before[0] - before[1]).abs().max() > 0.01


def test_q_k_and_v_in_one_are_found_by_their_rows(tmp_path: Path) -> None:
    folders.gpt2(tmp_path)
    task = from_transformers(tmp_path)
    family, field, _, _ = family_of(task)
    found = matrices(family, task, field)
    fused = found["transformer.h.1.attn.c_attn"]
    assert fused.n_out == 36 and fused.is_turned
    assert [(piece.ours.rpartition(".")[2], piece.rows.start, piece.rows.stop) for piece in fused.pieces] == [
        ("q", 0, 12),
        ("k", 12, 24),
        ("v", 24, 36),
    ]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a GPT-2, the run of it, and an adapter of ours as peft has it."""
    home = tmp_path_factory.mktemp("peft")
    folders.gpt2(home / "hub")
    to_peft(run_with_adapters(home, ["*.q", "*.mlp.up"]), home / "out")
    return home


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"peft_type": "IA3"}, r"peft_type: 'IA3' cannot be brought in"),
        ({"use_dora": True}, r"use_dora: True cannot be brought in"),
        ({"bias": "all"}, r"bias: 'all' cannot be brought in"),
        ({"init_lora_weights": "pissa"}, r"init_lora_weights: 'pissa' has changed the base too"),
    ],
)
def test_what_is_more_than_a_and_b_is_refused(
    adapter: Path, tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    config = json.loads((adapter / "out/adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | values))
    (tmp_path / "adapter_model.safetensors").write_bytes((adapter / "out/adapter_model.safetensors").read_bytes())
    with pytest.raises(InputError, match=message):
        from_peft(tmp_path, adapter / "base")


def test_an_adapter_for_another_architecture_is_refused(adapter: Path, tmp_path: Path) -> None:
    folders.bert(tmp_path / "hub")
    imported(tmp_path / "hub", tmp_path / "bert")
    message = r"adapts transformer\.h\.0\.attn\.c_attn, which the base has not: the adapter is of another architecture"
    with pytest.raises(InputError, match=message):
        from_peft(adapter / "out", tmp_path / "bert")
    folders.gpt2(tmp_path / "wide", n_embd=18)
    imported(tmp_path / "wide", tmp_path / "gpt")
    message = r"c_attn are \(3, 12\) and \(36, 3\), and the matrix of the base is \(54, 18\)"
    with pytest.raises(InputError, match=message):
        from_peft(adapter / "out", tmp_path / "gpt")
    with pytest.raises(InputError, match=r"is an adapter of peft; import its base first, and name that run: base RUN"):
        from_peft(adapter / "out", None)


def test_tensors_that_are_no_adapter_of_a_map_are_refused(adapter: Path, tmp_path: Path) -> None:
    tensors = load_file(adapter / "out/adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text((adapter / "out/adapter_config.json").read_text())
    path = tmp_path / "adapter_model.safetensors"
    save_file(tensors | {"base_model.model.transformer.wte.lora_embedding_A": torch.ones(2, 3)}, path)
    with pytest.raises(InputError, match=r"wte\.lora_embedding_A is no A or B of a linear map"):
        from_peft(tmp_path, adapter / "base")
    save_file({name: tensor for name, tensor in tensors.items() if "lora_A" in name}, path)
    with pytest.raises(InputError, match=r"lacks A or B; copy the folder anew"):
        from_peft(tmp_path, adapter / "base")
    path.unlink()
    with pytest.raises(InputError, match=r"holds no adapter_model\.safetensors"):
        from_peft(tmp_path, adapter / "base")
