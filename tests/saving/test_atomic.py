"""Files are found whole or not at all."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest
import torch

from anyformer.faults import WriteError
from anyformer.saving.atomic import sync_file, write_counted, write_tensors, write_whole
from anyformer.saving.manifest import add_file, replace_folder
from tests.helpers.small_run import in_a_fork
from tests.helpers.synced_files import Disk


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_whole(path, "old")

    def fail(part: Path) -> None:
        part.write_text("ne")
        raise OSError("disk full")

    with pytest.raises(WriteError, match=r"file cannot be written: disk full"):
        write_whole(path, fail)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_content_is_on_the_disk_before_it_has_its_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    for content in ("old", "new"):
        write_whole(tmp_path / "text", content)
        write_whole(tmp_path / "bytes", lambda part: part.write_bytes(b"abc"))
        add_file(tmp_path / "listed", lambda part: part.write_bytes(b"abc"))
        replace_folder(tmp_path / "model", lambda part: (part / "a").write_text("a"))
        disk.check()


def test_a_file_that_is_kept_may_be_read_by_whom_the_umask_lets(tmp_path: Path) -> None:
    umask = os.umask(0o027)
    try:
        (tmp_path / "private").touch(0o600)
        sync_file(tmp_path / "private")
        assert (tmp_path / "private").stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(umask)


def test_a_full_disk_is_said_with_the_bytes_needed_and_leaves_the_old_file(tmp_path: Path) -> None:
    """In a process of its own, that cannot write files of more than 4,000 bytes."""
    write_whole(tmp_path / "a", "old")

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
        state = {f"{i}": torch.zeros(1000) for i in range(3)}
        for write in (
            "x" * 12_345,
            lambda part: write_counted(part, lambda file: torch.save(state, file)),
            lambda part: write_tensors(part, state),
        ):
            with pytest.raises(WriteError, match=r"a cannot be written: File too large; it needs 1[2-5],\d{3} bytes"):
                write_whole(tmp_path / "a", write)
            assert os.listdir(tmp_path) == ["a"]

    assert in_a_fork(fill) == 0
    assert (tmp_path / "a").read_text() == "old"
