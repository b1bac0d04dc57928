"""Checkpoints are listed as they are saved, and loading one runs nothing."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from anyformer.errors import InputError
from anyformer.runs.checkpoint_io import Checkpoints
from anyformer.saving.manifest import (
    describe_file,
    read_manifest,
    write_manifest,
)
from tests.helpers.damage import flip


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))])
def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, save) -> None:
    path, mark = tmp_path / "bomb.ckpt", tmp_path / "exploded"
    save({"state_dict": Bomb(mark)}, path)
    write_manifest(tmp_path, [describe_file(path)])
    with pytest.raises(InputError, match=r"bomb.ckpt is refused: .* would run code \(posix.system\)"):
        Checkpoints().load_checkpoint(path)
    assert not mark.exists()


def test_weights_of_before_are_given_by_their_names_of_today(tmp_path: Path) -> None:
    """A field that is a word of Python had it as the name of its module."""
    before = {"model.embeddings.lifts.class.table": torch.ones(1), "model.transformer.scale": torch.zeros(1)}
    Checkpoints().save_checkpoint({"state_dict": before, "average": dict(before), "epoch": 3}, tmp_path / "1.ckpt")
    found = Checkpoints().load_checkpoint(tmp_path / "1.ckpt")
    names = ["model.embeddings.lifts.class/.table", "model.transformer.scale"]
    assert [*found["state_dict"]] == [*found["average"]] == names and found["epoch"] == 3


def test_saving_again_under_a_name_lists_it_last(tmp_path: Path) -> None:
    for number in range(3):
        Checkpoints().save_checkpoint({"number": torch.tensor(number)}, tmp_path / f"{number}.ckpt")
    Checkpoints().save_checkpoint({"number": torch.tensor(7)}, tmp_path / "0.ckpt")
    assert [line["file"] for line in read_manifest(tmp_path)] == ["1.ckpt", "2.ckpt", "0.ckpt"]
    assert Checkpoints().load_checkpoint(tmp_path / "0.ckpt") == {"number": 7}


def test_a_checkpoint_that_is_removed_loses_its_line(tmp_path: Path) -> None:
    path = tmp_path / "1.ckpt"
    Checkpoints().save_checkpoint({}, path)
    for _ in range(2):
        Checkpoints().remove_checkpoint(path)
    assert read_manifest(tmp_path) == [] and not path.exists()


def test_a_checkpoint_that_is_damaged_is_not_loaded(tmp_path: Path) -> None:
    Checkpoints().save_checkpoint({"number": 1}, tmp_path / "1.ckpt")
    flip(tmp_path / "1.ckpt")
    with pytest.raises(InputError, match=r"1.ckpt is damaged \(its SHA-256"):
        Checkpoints().load_checkpoint(tmp_path / "1.ckpt")


@pytest.mark.parametrize("content", [b"", b"no checkpoint", pickle.dumps(3, protocol=2), b"PK\x03\x04" + b"\0" * 60])
def test_what_is_no_checkpoint_is_refused_in_a_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "1.ckpt"
    path.write_bytes(content)
    write_manifest(tmp_path, [describe_file(path)])
    with pytest.raises(InputError, match=r"1.ckpt is (no checkpoint that anyformer saved|refused)"):
        Checkpoints().load_checkpoint(path)
