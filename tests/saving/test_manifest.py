"""Checkpoints are what they were saved as, or passed over; folders are whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from anyformer.errors import InputError
from anyformer.runs.checkpoint_io import Checkpoints
from anyformer.saving.manifest import (
    find_folder,
    keep_newest,
    newest,
    read_manifest,
    replace_folder,
)
from tests.helpers.damage import cut, flip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three checkpoints that hold their number."""
    for number in range(3):
        Checkpoints().save_checkpoint({"number": torch.tensor(number)}, tmp_path / f"{number}.ckpt")
    return tmp_path


def test_the_newest_checkpoint_is_the_last_that_was_saved(folder: Path) -> None:
    said: list[str] = []
    assert newest(folder, said.append) == folder / "2.ckpt"
    assert Checkpoints().load_checkpoint(folder / "2.ckpt") == {"number": 2}
    assert not said
    assert newest(folder / "empty", said.append) is None


@pytest.mark.parametrize(("harm", "reason"), [(cut, "has .* of .* bytes"), (flip, "SHA-256"), (os.unlink, "missing")])
def test_a_damaged_checkpoint_is_found_and_the_one_before_is_used_and_kept(folder: Path, harm, reason: str) -> None:
    harm(folder / "2.ckpt")
    with pytest.raises(InputError, match=f"2.ckpt is damaged .*{reason}"):
        Checkpoints().load_checkpoint(folder / "2.ckpt")
    said: list[str] = []
    assert newest(folder, said.append) == folder / "1.ckpt"
    (line,) = said
    assert "2.ckpt is damaged" in line
    assert "going on from 1.ckpt" in line
    keep_newest(folder, 1)
    assert sorted(os.listdir(folder)) == ["1.ckpt", "manifest.jsonl"]


def test_where_all_checkpoints_are_damaged_none_is_used(folder: Path) -> None:
    for number in range(3):
        flip(folder / f"{number}.ckpt")
    with pytest.raises(InputError, match=r"no checkpoint can be used: .*2.ckpt .*0.ckpt .*another --run_dir"):
        newest(folder, print)


def test_a_damaged_manifest_is_said_to_be_so(folder: Path) -> None:
    cut(folder / "manifest.jsonl")
    with pytest.raises(InputError, match=r"manifest.jsonl is damaged"):
        newest(folder, print)


def test_only_the_newest_are_kept(folder: Path) -> None:
    (folder / "3.ckpt.part").write_text("what a killed save leaves")
    keep_newest(folder, 2)
    assert sorted(os.listdir(folder)) == ["1.ckpt", "2.ckpt", "manifest.jsonl"]
    Checkpoints().remove_checkpoint(folder / "1.ckpt")
    assert [line["file"] for line in read_manifest(folder)] == ["2.ckpt"]


def test_a_folder_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    assert find_folder(folder) is None
    replace_folder(folder, lambda part: (part / "weights").write_text("old"))

    replace = os.replace

    def die(source: Path, target: Path) -> None:
        if Path(target) == folder:
            raise KeyboardInterrupt  # between the two renames
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            replace_folder(folder, lambda part: (part / "weights").write_text("new"))
    assert (find_folder(folder) / "weights").read_text() == "old"

    replace_folder(folder, lambda part: (part / "weights").write_text("newer"))
    assert (find_folder(folder) / "weights").read_text() == "newer"
    assert os.listdir(tmp_path) == ["model"]
