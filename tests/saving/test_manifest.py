"""Checkpoints are what they were saved as, or passed over; folders are whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from anyformer.errors import InputError
from anyformer.runs.checkpoint_io import Checkpoints
from anyformer.saving.manifest import (
    begin_checkpoints,
    damage,
    describe_file,
    find_folder,
    keep_newest,
    listed,
    newest,
    read_manifest,
    replace_folder,
    write_manifest,
)
from tests.helpers.damage import cut, flip


def name(number: int) -> str:
    return f"batch-{number:08d}-epoch.ckpt"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three checkpoints that hold their number."""
    begin_checkpoints(tmp_path)
    for number in range(3):
        Checkpoints().save_checkpoint({"number": torch.tensor(number)}, tmp_path / name(number))
    return tmp_path


def test_the_newest_checkpoint_is_the_last_that_was_saved(folder: Path) -> None:
    said: list[str] = []
    assert newest(folder, said.append) == folder / name(2)
    assert Checkpoints().load_checkpoint(folder / name(2)) == {"number": 2}
    assert not said
    begin_checkpoints(folder / "begun")
    assert newest(folder / "begun", said.append) is None


@pytest.mark.parametrize(("harm", "reason"), [(cut, "has .* of .* bytes"), (flip, "SHA-256"), (os.unlink, "missing")])
def test_a_damaged_checkpoint_is_found_and_set_aside_and_the_one_before_is_used(
    folder: Path, harm, reason: str
) -> None:
    harm(folder / name(2))
    with pytest.raises(InputError, match=f"{name(2)} is damaged .*{reason}"):
        Checkpoints().load_checkpoint(folder / name(2))
    said: list[str] = []
    assert newest(folder, said.append) == folder / name(1)
    (line,) = said
    assert f"{name(2)} is damaged" in line
    assert f"going on from {name(1)}" in line
    keep_newest(folder, 1)
    aside = [] if harm is os.unlink else [f"{name(2)}.damaged"]
    assert sorted(os.listdir(folder)) == [name(1), *aside, "manifest.jsonl"]


def test_where_all_checkpoints_are_damaged_none_is_used(folder: Path) -> None:
    for number in range(3):
        flip(folder / name(number))
    with pytest.raises(InputError, match=rf"no checkpoint can be used: .*{name(2)} .*{name(0)} .*another run_dir"):
        newest(folder, print)
    assert len(os.listdir(folder)) == 4


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (cut, "is damaged: line 2 must"),
        (lambda path: path.write_bytes(b"\xff\n"), "is damaged: line 1 must"),
        (lambda path: path.write_text("3\n"), "is damaged: line 1 must"),
        (lambda path: path.write_text(path.read_text() * 2), "is damaged: line 4 must"),
        (lambda path: path.write_text(""), "is damaged: it has no line of batch-00000000-epoch.ckpt, batch-00000001"),
        (
            lambda path: path.write_text("".join(path.read_text().splitlines(True)[:2])),
            f"is damaged: it has no line of {name(2)}",
        ),
        (os.unlink, "is missing: the run's checkpoints are lost"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "is damaged: it is no file"),
    ],
)
def test_a_manifest_that_is_damaged_or_lost_is_said_to_be_so_and_nothing_is_removed(
    folder: Path, harm, message: str
) -> None:
    harm(folder / "manifest.jsonl")
    with pytest.raises(InputError, match=rf"manifest.jsonl {message}"):
        newest(folder, print)
    assert all((folder / name(number)).is_file() for number in range(3))


@pytest.mark.parametrize("named", ["../secret", "/etc/passwd", "a/b", "..", "manifest.jsonl", "", "a\0b", 3, None])
def test_a_line_names_a_file_beside_the_manifest_and_nothing_else(tmp_path: Path, named: object) -> None:
    (tmp_path / "secret").write_text("x")
    folder = tmp_path / "run"
    folder.mkdir()
    write_manifest(folder, [describe_file(tmp_path / "secret") | {"file": named}])
    with pytest.raises(InputError, match=r"manifest.jsonl is damaged: line 1 must hold the name of a file beside it"):
        read_manifest(folder)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "weights").symlink_to("../secret")
    line = describe_file(folder / "weights")
    assert damage(folder, line) == "it is a link that leads out of its folder"
    (folder / "real").write_text("x")
    (folder / "inside").symlink_to("real")
    assert damage(folder, describe_file(folder / "inside")) is None
    write_manifest(tmp_path, [line])
    (folder / "manifest.jsonl").symlink_to("../manifest.jsonl")
    with pytest.raises(InputError, match=r"manifest.jsonl is damaged: it is a link that leads out"):
        read_manifest(folder)


def test_what_no_line_lists_is_not_read(folder: Path) -> None:
    torch.save({"number": 7}, folder / "other.ckpt")
    for find in (lambda: listed(folder, "other.ckpt"), lambda: Checkpoints().load_checkpoint(folder / "other.ckpt")):
        with pytest.raises(InputError, match=r"manifest.jsonl is damaged: it has no line of other.ckpt"):
            find()


def test_only_the_newest_are_kept_and_what_is_not_the_runs_own_stays(folder: Path) -> None:
    (folder / f"{name(3)}.part").write_text("what a killed save leaves")
    for mine in ("notes.txt", "best.ckpt", "draft.part"):
        (folder / mine).write_text("a user's")
    Checkpoints().save_checkpoint({}, folder / "mine.ckpt")
    keep_newest(folder, 2)
    kept = ["best.ckpt", "draft.part", "manifest.jsonl", "mine.ckpt", "notes.txt"]
    assert sorted(os.listdir(folder)) == [name(1), name(2), *kept]
    assert newest(folder, print) == folder / name(2)
    Checkpoints().remove_checkpoint(folder / name(1))
    assert [line["file"] for line in read_manifest(folder)] == [name(2), "mine.ckpt"]


def test_a_save_that_is_killed_anywhere_leaves_one_to_go_on_from(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = os.replace

    def newest_after_a_kill(before: str) -> Path | None:
        def die(source: Path, target: Path) -> None:
            if Path(target).name == before:
                raise KeyboardInterrupt
            replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", die)
            with pytest.raises(KeyboardInterrupt):
                Checkpoints().save_checkpoint({"number": torch.tensor(3)}, folder / name(3))
        return newest(folder, pytest.fail)

    assert newest_after_a_kill("manifest.jsonl") == folder / name(2)
    # It has its line and lacks its name, which it is given.
    assert newest_after_a_kill(name(3)) == folder / name(3)
    assert Checkpoints().load_checkpoint(folder / name(3)) == {"number": 3}


def test_one_that_is_killed_as_it_removes_the_old_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            keep_newest(folder, 1)
    assert newest(folder, pytest.fail) == folder / name(2)


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
    (folder / "manifest.jsonl").unlink()
    assert find_folder(folder) is None
    (tmp_path / "model.old").mkdir()
    (tmp_path / "model.old" / "manifest.jsonl").touch()
    # The older one does not take the place of one that is damaged.
    assert find_folder(folder) is None
