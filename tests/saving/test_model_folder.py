"""The folder of a model stands alone, and is refused where it is damaged or of another model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer as Package
from tokenizers import models

from anyformer.errors import InputError
from anyformer.model.config import TransformerConfig
from anyformer.saving.manifest import describe_file, read_manifest, write_manifest
from anyformer.saving.model_folder import load, save
from anyformer.tasks.classify.classify import Classify
from anyformer.tokenizers.image.sources import Digits
from anyformer.tokenizers.text.text import Text
from tests.helpers.damage import flip
from tests.helpers.small_run import small_task


def relist(folder: Path) -> None:
    write_manifest(folder, [describe_file(folder / name) for name in ("config.json", "weights.safetensors")])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with a model that is not trained."""
    task = small_task()
    task.fit_tokenizers(Digits())
    task.configure_model()
    save(task, tmp_path / "run" / "model")
    return tmp_path / "run"


def test_a_task_can_be_saved_alone(run: Path, tmp_path: Path) -> None:
    task, records = load(run), [Digits()[i] for i in range(5)]
    save(task, tmp_path / "mine")
    again = load(tmp_path / "mine")
    assert again.config() == task.config() and not again.training
    assert again.predict(records) == task.predict(records)


def test_a_model_of_before_whose_class_token_was_called_as_a_word_of_python_is_loaded(run: Path) -> None:
    expected = load(run).predict([Digits()[0]])
    path = run / "model/weights.safetensors"
    before = {name.replace("class/", "class"): value for name, value in load_file(path).items()}
    assert "model.embeddings.lifts.class.table" in before and "model.embeddings.types.class" in before
    save_file(before, path)
    relist(run / "model")
    assert load(run).predict([Digits()[0]]) == expected


def test_a_damaged_model_is_not_loaded(run: Path) -> None:
    flip(run / "model/weights.safetensors")
    with pytest.raises(InputError, match=r"weights.safetensors is damaged \(its SHA-256"):
        load(run)


@pytest.mark.parametrize("kept", [0, 1])
def test_what_the_manifest_has_lost_is_not_loaded(run: Path, kept: int) -> None:
    path = run / "model/manifest.jsonl"
    path.write_text("".join(path.read_text().splitlines(True)[:kept]))
    name = ("config.json", "weights.safetensors")[kept]
    with pytest.raises(InputError, match=rf"manifest.jsonl is damaged: it has no line of {name}"):
        load(run)
    path.unlink()
    with pytest.raises(InputError, match=r"model/manifest.jsonl is missing; train again, or copy the folder anew"):
        load(run)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "3", "null", '{"a": 1}', '{"class_path": 3}', "[" * 5000, "{" * 3 + "\0", '"canary.Evil"']
)
def test_a_config_that_is_none_is_refused_in_a_line(run: Path, text: str) -> None:
    (run / "model/config.json").write_text(text)
    relist(run / "model")
    with pytest.raises(InputError) as caught:
        load(run)
    assert "\n" not in str(caught.value) and "config.json" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\xff" * 8 + b"{}", b"\x08" + b"\0" * 7 + b"{}      ", b"3" * 100])
def test_weights_that_are_none_are_refused_in_a_line(run: Path, content: bytes) -> None:
    (run / "model/weights.safetensors").write_bytes(content)
    relist(run / "model")
    with pytest.raises(InputError, match=r"weights.safetensors "):
        load(run)


def with_a_large_vocabulary(folder: Path) -> Any:
    """A model of two fields that have one vocabulary of 50,000 words, saved."""
    words = {f"word {i}": i for i in range(49_998)} | {"<unk>": 49_998, "<eos>": 49_999}
    text = Text(vocabulary=Package(models.WordLevel(words, "<unk>")).to_str(), max_len=8)
    sizes = TransformerConfig(d_model=4, depth=1, n_heads=1)
    task = Classify({"title": text, "body": text}, sizes, classes=[f"class {i}" for i in range(3000)])
    task.configure_model()
    save(task, folder)
    return task


def test_a_large_vocabulary_is_a_file_of_the_folder(tmp_path: Path) -> None:
    task, folder = with_a_large_vocabulary(tmp_path / "run/model"), tmp_path / "run/model"
    names = {"classes.json", "config.json", "usage.json", "vocabulary.json", "weights.safetensors"}
    assert (
        {line["file"] for line in read_manifest(folder)}
        == names
        == {path.name for path in folder.iterdir()} - {"manifest.jsonl"}
    )
    assert (folder / "config.json").stat().st_size < 20_000
    again = load(tmp_path / "run")
    assert again.config() == task.config()
    assert all(torch.equal(value, task.state_dict()[name]) for name, value in again.state_dict().items())
    save(again, tmp_path / "again")
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }


def test_a_vocabulary_that_is_damaged_or_not_of_the_folder_is_not_read(tmp_path: Path) -> None:
    with_a_large_vocabulary(tmp_path / "model")
    flip(tmp_path / "model/vocabulary.json")
    with pytest.raises(InputError, match=r"vocabulary.json is damaged \(its SHA-256"):
        load(tmp_path)
    lines = [line for line in read_manifest(tmp_path / "model") if line["file"] != "vocabulary.json"]
    write_manifest(tmp_path / "model", lines)
    with pytest.raises(InputError, match=r"manifest.jsonl is damaged: it has no line of vocabulary.json"):
        load(tmp_path)
    path = tmp_path / "model/config.json"
    path.write_text(path.read_text().replace('"vocabulary.json"', '"../vocabulary.json"'))
    write_manifest(tmp_path / "model", [describe_file(path), describe_file(path.with_name("weights.safetensors"))])
    with pytest.raises(InputError, match=r"it has no line of \.\./vocabulary.json"):
        load(tmp_path)


def test_weights_of_another_model_are_not_loaded(run: Path) -> None:
    config = json.loads((run / "model/config.json").read_text())
    config["init_args"]["transformer"]["d_model"] = 32
    (run / "model/config.json").write_text(json.dumps(config))
    relist(run / "model")
    with pytest.raises(InputError, match=r"weights.safetensors does not fit config.json: size mismatch"):
        load(run)


def test_a_folder_without_a_model_is_said_to_have_none(tmp_path: Path) -> None:
    (tmp_path / "runs" / "digits").mkdir(parents=True)
    with pytest.raises(InputError, match=r"^there is no folder .*/runs/digit; did you mean 'digits'\?$"):
        load(tmp_path / "runs" / "digit")
    with pytest.raises(InputError, match=r"holds no model.*train one with fit"):
        load(tmp_path)


def test_a_model_that_names_other_classes_is_not_loaded(run: Path) -> None:
    (run / "model/config.json").write_text(json.dumps({"class_path": "os.system", "init_args": {"command": "true"}}))
    relist(run / "model")
    with pytest.raises(InputError, match=r"os.system is refused: a config may name classes of anyformer"):
        load(run)
