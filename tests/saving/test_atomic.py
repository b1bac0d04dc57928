"""Files are found whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from anyformer.saving.atomic import sync_file, write_whole


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_whole(path, "old")

    def fail(part: Path) -> None:
        part.write_text("ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match=r"disk full"):
        write_whole(path, fail)
    assert path.read_text() == "old"


def test_a_file_that_is_kept_may_be_read_by_whom_the_umask_lets(tmp_path: Path) -> None:
    umask = os.umask(0o027)
    try:
        (tmp_path / "private").touch(0o600)
        sync_file(tmp_path / "private")
        assert (tmp_path / "private").stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(umask)
