"""The folder of a model stands alone, and is refused where it is damaged or of another model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anyformer.errors import InputError
from anyformer.saving.manifest import write_manifest
from anyformer.saving.model_folder import load, save
from anyformer.tokenizers.image.sources import Digits
from tests.helpers.damage import flip
from tests.helpers.small_run import small_task


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


def test_a_damaged_model_is_not_loaded(run: Path) -> None:
    flip(run / "model/weights.safetensors")
    with pytest.raises(InputError, match=r"weights.safetensors is damaged \(its SHA-256"):
        load(run)


def test_weights_of_another_model_are_not_loaded(run: Path) -> None:
    config = json.loads((run / "model/config.json").read_text())
    config["init_args"]["transformer"]["d_model"] = 32
    (run / "model/config.json").write_text(json.dumps(config))
    write_manifest(run / "model", [])
    with pytest.raises(InputError, match=r"weights.safetensors does not fit config.json: size mismatch"):
        load(run)


def test_a_folder_without_a_model_is_said_to_have_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no model.*train one with fit"):
        load(tmp_path)


def test_a_model_that_names_other_classes_is_not_loaded(run: Path) -> None:
    (run / "model/config.json").write_text(json.dumps({"class_path": "os.system", "init_args": {"command": "true"}}))
    write_manifest(run / "model", [])
    with pytest.raises(InputError, match=r"os.system is refused: a config may name classes of anyformer"):
        load(run)
