"""The family of CONTRIBUTING.md is read and written, with one file and one name in the list."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from anyformer.errors import InputError
from anyformer.tasks.convert.huggingface import from_transformers, to_transformers
from anyformer.weights import families
from tests.helpers.pages import blocks, saved_as
from tests.helpers.transformers_folders import byte_level, padded
from tests.helpers.witnesses import redraw
from tests.weights.test_gpt2 import logits

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"
SIZES = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
SIZES |= {"head_dim": 6, "intermediate_size": 20, "max_position_embeddings": 48, "rms_norm_eps": 0.1}


@pytest.fixture(autouse=True)
def llama(monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = (block for block in blocks(PAGE.read_text()) if saved_as(block) == "llama.py")
    module = ModuleType("llama")
    exec(block.code, vars(module))
    monkeypatch.setattr(families, "FAMILIES", [*families.FAMILIES, module.LLAMA])


def written(folder: Path, **options: Any) -> Any:
    """A Llama of transformers, also in the folder."""
    tokenizer = byte_level()
    config = LlamaConfig(**SIZES, vocab_size=len(tokenizer), **options)
    model = LlamaForCausalLM(config).eval()
    redraw(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


@pytest.mark.parametrize("tied", [False, True])
@torch.no_grad()
def test_the_family_of_the_page_is_read_and_written(tmp_path: Path, tied: bool) -> None:
    theirs = written(
        tmp_path / "hub", tie_word_embeddings=tied, rope_parameters={"rope_type": "default", "rope_theta": 100.0}
    )
    task = from_transformers(tmp_path / "hub")
    ids = [task.text.encode_batch([text])[0].tolist() for text in ("to be or not", "the question")]
    batch = padded(ids)
    expected = theirs(**batch).logits[batch["attention_mask"].bool()]
    assert (logits(task, ["to be or not", "the question"]) - expected).abs().max() < 1e-4
    to_transformers(task, tmp_path / "out")
    back = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert all(torch.equal(tensor, back.state_dict()[name]) for name, tensor in theirs.state_dict().items())


def test_what_the_page_refuses_is_named(tmp_path: Path) -> None:
    written(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rope_parameters": {"rope_type": "yarn"}}))
    with pytest.raises(InputError, match=re.escape("config.json: rope_type: 'yarn' cannot be brought in")):
        from_transformers(tmp_path)
