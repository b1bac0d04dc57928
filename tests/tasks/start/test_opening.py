"""What `init_from` names is opened, of whatever library; a folder that is not whole is refused in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from anyformer.errors import InputError
from anyformer.saving.model_folder import save
from anyformer.tasks.classify.classify import Classify
from anyformer.tasks.start.opening import bring_in, describe_model, hand_over, open_model
from tests.helpers.small_run import small_task

pytest.importorskip("transformers")
from tests.helpers.transformers_folders import bert


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "bert"
    bert(folder, "classes")
    return folder


def test_a_folder_of_transformers_is_described_and_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described, opened = describe_model(folder), open_model(folder)
    assert described.model is None and described.config() == opened.config()
    assert opened.classes == ["dull", "fair", "fine"] and opened.text is None
    # Beside the folder of the data sets.
    monkeypatch.setenv("ANYFORMER_DATA", str(folder.parent / "data"))
    assert describe_model("bert").config() == described.config()
    task = Classify(described.tokenizers, described.transformer, described.embedding, init_from="bert")
    hand_over(task)
    assert torch.equal(task.origin[0].model.embeddings.lifts["text"].table, opened.model.embeddings.lifts["text"].table)
    assert not any(name.startswith("origin") for name, _ in task.named_modules())


def test_a_run_is_opened_and_needs_no_handing_over(tmp_path: Path) -> None:
    run = small_task()
    run.classes = ["a", "b"]
    run.build()
    save(run, tmp_path / "run" / "model")
    assert describe_model(tmp_path / "run").model is None
    opened = open_model(tmp_path / "run")
    assert torch.equal(opened.heads["class_head"].output.weight, run.heads["class_head"].output.weight)
    task = Classify(run.tokenizers, run.transformer, init_from=str(tmp_path / "run"))
    hand_over(task)
    assert task.origin is None


def edit(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def without_tokenizer(folder: Path) -> None:
    for path in [*folder.glob("*token*"), *folder.glob("vocab*")]:
        path.unlink()


def other_vocabulary(folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"] |= {f"more{i}": len(content["model"]["vocab"]) + i for i in range(30)}
    path.write_text(json.dumps(content))


def missing_shard(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    half = [{name: tensors[name] for name in part} for part in (names[::2], names[1::2])]
    for i, part in enumerate(half):
        save_file(part, folder / f"model-{i}.safetensors")
    where = {name: f"model-{i}.safetensors" for i, part in enumerate(half) for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    (folder / "model.safetensors").unlink()
    assert open_model(folder) is not None
    (folder / "model-1.safetensors").unlink()


def wrong_dtype(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = "bert.encoder.layer.0.output.dense.weight"
    save_file(tensors | {name: tensors[name].to(torch.int8)}, folder / "model.safetensors")


def lacking_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("classifier.bias")
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (without_tokenizer, r"bert holds no tokenizer: neither tokenizer.json, nor vocab.json with merges.txt"),
        (
            other_vocabulary,
            r"config.json: vocab_size is \d+, and the tokenizer of the folder has \d+ tokens",
        ),
        (missing_shard, r"model-1.safetensors"),
        (wrong_dtype, r"layer.0.output.dense.weight is of int8, as of quantised weights"),
        (
            lambda folder: edit(folder, hidden_size=24),
            r"config.json is not of these weights: .* is \(.*\), .*",
        ),
        (
            lambda folder: edit(folder, num_hidden_layers=1),
            r"not of these weights: .* holds 2 blocks, and the model 1",
        ),
        (lacking_a_tensor, r"model.safetensors lacks classifier.bias; export the whole model anew"),
        (lambda folder: (folder / "config.json").unlink(), r"bert holds no model"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(
    folder: Path, tmp_path: Path, harm: Callable[[Path], None], message: str
) -> None:
    shutil.copytree(folder, tmp_path / "bert")
    harm(tmp_path / "bert")
    with pytest.raises(InputError, match=message):
        open_model(tmp_path / "bert")


def test_a_lone_file_says_what_it_lacks(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "vit.safetensors")
    assert describe_model(tmp_path / "vit.safetensors") is None
    with pytest.raises(InputError, match=r"does not say of which model it is; put timm's config.json beside it"):
        bring_in(tmp_path / "vit.safetensors")
    with pytest.raises(InputError, match=r"nothing is loaded from the network, got https://host/bert"):
        open_model("https://host/bert")
