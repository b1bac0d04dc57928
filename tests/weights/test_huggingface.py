"""A folder of transformers: its config.json and its tensors are read, whole or in shards, and what is wrong is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from anyformer.errors import InputError
from anyformer.model.config import RelativeConfig, RotaryConfig, TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.heads import HeadConfig
from anyformer.model.positions import PositionConfig
from anyformer.weights.huggingface import INDEX, WEIGHTS, Design, Settings, find_model, read_folder, read_settings

TENSORS = {"a": torch.arange(3.0), "b": torch.ones(2, 2)}


def sharded(folder: Path, **changes: str) -> Path:
    for name, tensor in TENSORS.items():
        save_file({name: tensor}, folder / f"{name}.safetensors")
    weight_map = {name: f"{name}.safetensors" for name in TENSORS} | changes
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def test_a_folder_in_one_file_and_in_shards_holds_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "shards").mkdir()
    save_file(TENSORS, tmp_path / "whole" / WEIGHTS)
    sharded(tmp_path / "shards")
    monkeypatch.chdir(tmp_path)
    for folder, name in ((Path("whole"), WEIGHTS), (tmp_path / "shards", INDEX)):
        found, source = read_folder(folder)
        assert source == str(folder / name)
        assert found.keys() == TENSORS.keys()
        assert all(torch.equal(found[each], TENSORS[each]) for each in TENSORS)


class Evil:
    """Which runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return print, ("ran",)


def pickled(folder: Path, holds: Any) -> Path:
    torch.save(holds, folder / "pytorch_model.bin")
    return folder


@pytest.mark.parametrize("new", [True, False])
def test_weights_of_torch_hold_the_same_whole_and_in_shards(tmp_path: Path, new: bool) -> None:
    for folder in ("whole", "shards"):
        (tmp_path / folder).mkdir()
    torch.save(TENSORS, tmp_path / "whole" / "pytorch_model.bin", _use_new_zipfile_serialization=new)
    shards = {name: f"pytorch_model-{i}.bin" for i, name in enumerate(TENSORS)}
    for name, file in shards.items():
        torch.save({name: TENSORS[name]}, tmp_path / "shards" / file, _use_new_zipfile_serialization=new)
    index = tmp_path / "shards" / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": shards}))
    for folder in ("whole", "shards"):
        found, _ = read_folder(tmp_path / folder)
        assert found.keys() == TENSORS.keys()
        assert all(torch.equal(found[each], TENSORS[each]) for each in TENSORS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    save_file({name: tensor.to(dtype) for name, tensor in TENSORS.items()}, tmp_path / WEIGHTS)
    assert {tensor.dtype for tensor in read_folder(tmp_path)[0].values()} == {dtype}


def quantised(folder: Path) -> Path:
    save_file({"a": torch.zeros(2, dtype=torch.int8)}, folder / WEIGHTS)
    return folder


def damaged(folder: Path) -> Path:
    (folder / WEIGHTS).write_bytes(b"no tensors")
    return folder


def cut_index(folder: Path) -> Path:
    (sharded(folder) / INDEX).write_text('{"weight_map": {"a"')
    return folder


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder, r"holds no weights: there is no model\.safetensors, nor pytorch_model\.bin$"),
        (lambda folder: pickled(folder, Evil()), r"pytorch_model\.bin is damaged, or holds more than tensors"),
        (lambda folder: pickled(folder, {"a": 1}), r"pytorch_model\.bin holds more than tensors by name; save the"),
        (quantised, r"model\.safetensors: a is of int8, as of quantised weights, which cannot be brought in; save"),
        (damaged, r"model\.safetensors is damaged or no safetensors file"),
        (cut_index, r"index\.json is damaged or no JSON \(.*\); copy it anew$"),
        (
            lambda folder: sharded(folder, a="../a.safetensors"),
            r"index\.json is damaged: its weight_map must name",
        ),
        (
            lambda folder: sharded(folder, a="c.safetensors"),
            r"index\.json names c\.safetensors, which is not there; copy the folder anew",
        ),
        (
            lambda folder: sharded(folder, c="a.safetensors"),
            r"index\.json names c, which a\.safetensors does not hold; copy the folder anew",
        ),
    ],
    ids=[
        "none",
        "code",
        "no tensors",
        "quantised",
        "damaged",
        "index cut",
        "outside",
        "shard missing",
        "tensor missing",
    ],
)
def test_a_folder_that_lacks_something_is_told_so(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        read_folder(make(tmp_path))
    assert "\n" not in str(raised.value)


def test_a_config_json_is_there_and_an_object(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no config\.json; give a folder as save_pretrained"):
        read_settings(tmp_path)
    for text, message in (("{", "damaged or no JSON"), ("[1]", "must hold a JSON object, got list")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(InputError, match=rf"config\.json.* {message}"):
            read_settings(tmp_path)


def test_a_folder_is_found_here_or_among_the_data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gpt2").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.setenv("ANYFORMER_DATA", str(tmp_path))
    assert find_model("gpt2") == find_model(tmp_path / "gpt2") == tmp_path / "gpt2"
    for folder, message in (
        ("https://host/gpt2", "nothing is loaded from the network, got https://host/gpt2"),
        ("bert", "bert: no such file; looked for bert and "),
        ("file", "file is no folder; give the one that holds config.json"),
    ):
        with pytest.raises(InputError, match=message):
            find_model(folder)


@pytest.mark.parametrize("value", ["12", None, 1.5, True, [1]])
def test_a_setting_of_another_kind_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match=r"^c\.json: n_embd is .*, which is not a value for it$"):
        Settings({"n_embd": value}, "c.json").get("n_embd", 768)


def test_settings_have_defaults_and_numbers_may_be_whole() -> None:
    settings = Settings({"eps": 1, "act": "gelu_new", "on": True}, "c.json")
    assert (settings.get("n_embd", 768), settings.get("eps", 0.1), settings.get("on", False)) == (768, 1, True)
    assert (settings.activation("act", "gelu"), settings.activation("other", "gelu")) == ("gelu_tanh", "gelu")
    settings.require(on=True, off=False)
    with pytest.raises(InputError, match=r"c\.json: on: True cannot be brought in; only models with on: false can"):
        settings.require(on=False)
    with pytest.raises(InputError, match=r"c\.json: act: mish is none of the activations here: gelu, gelu_new, "):
        Settings({"act": "mish"}, "c.json").activation("act", "gelu")


STACK = TransformerConfig(d_model=12, n_heads=3)
PLAIN = Design(STACK, EmbeddingConfig(), 9, 7, HeadConfig(), encoder=STACK)


def test_sines_differ_by_their_formula_but_as_a_table() -> None:
    kinds = [{}, {"sines": "halves"}, {"base": 9.0}, {"sizes": (5,)}, {"sizes": (5,), "sines": "whisper"}]
    positions = [[PositionConfig(("word",), "sinusoidal", **kind)] for kind in kinds]
    designs = [replace(PLAIN, embedding=EmbeddingConfig(positions=each)).plain for each in positions]
    assert [designs.index(each) for each in designs] == [0, 1, 2, 3, 3]


@pytest.mark.parametrize(
    "same",
    [
        {"transformer": TransformerConfig(d_model=12, n_heads=3, d_head=4, n_kv_heads=3, d_ff=48, final_norm=True)},
        {"transformer": TransformerConfig(d_model=12, n_heads=3, attention_scale=0.5, dropout=0.5, init_std=1.0)},
        {"embedding": EmbeddingConfig(positions=[PositionConfig(("word",), "learned")], dropout=0.1)},
        {"embedding": EmbeddingConfig(positions=[PositionConfig(("word",), "joint")])},
        {"encoder": TransformerConfig(d_model=12, n_heads=3, d_head=4, d_ff=48, dropout=0.5)},
    ],
    ids=str,
)
def test_designs_that_make_the_same_model_are_alike(same: dict[str, Any]) -> None:
    assert Design(**(vars(PLAIN) | same)).plain == PLAIN.plain


@pytest.mark.parametrize(
    ("other", "name"),
    [
        ({"transformer": TransformerConfig(d_model=12, n_heads=3, final_norm=False)}, "transformer.final_norm"),
        (
            {"transformer": TransformerConfig(d_model=12, n_heads=3, rotary=RotaryConfig(("word",)))},
            "transformer.rotary",
        ),
        ({"embedding": EmbeddingConfig(scale=True)}, "embedding.scale"),
        ({"embedding": EmbeddingConfig(positions=[PositionConfig(("word",), "sinusoidal")])}, "embedding.positions"),
        ({"encoder": replace(STACK, relative=RelativeConfig("t5", "word", n_buckets=8))}, "encoder.relative"),
        ({"encoder": replace(STACK, attention_scale=1.0)}, "encoder.attention_scale"),
        ({"output": HeadConfig(scaled=True)}, "output.scaled"),
    ],
    ids=str,
)
def test_designs_that_make_another_model_differ(other: dict[str, Any], name: str) -> None:
    plain = Design(**(vars(PLAIN) | other)).plain
    assert {each for each in plain if plain[each] != PLAIN.plain[each]} == {name}
