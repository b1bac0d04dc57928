"""What was put onto the disk, and what was given its name, in the order in which it was done."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest


class Disk:
    """Watches `os.fsync` and the renames of a test; files and folders are told apart by their inodes."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.synced: list[tuple[int, int]] = []
        """When, and which."""
        self.named: list[tuple[int, set[int], int]] = []
        """When, the file or all files of the folder, and the folder in which it is."""
        self._now = 0
        fsync, renames = os.fsync, {name: getattr(os, name) for name in ("rename", "replace")}

        def watched_fsync(file: Any) -> None:
            fsync(file)
            number = file if isinstance(file, int) else file.fileno()
            self.synced.append((self._tick(), os.fstat(number).st_ino))

        def watched(name: str) -> Any:
            def rename(source: Any, target: Any) -> None:
                path = Path(source)
                held = {each.stat().st_ino for each in (path.iterdir() if path.is_dir() else [path])}
                renames[name](source, target)
                self.named.append((self._tick(), held, Path(target).parent.stat().st_ino))

            return rename

        patch.setattr(os, "fsync", watched_fsync)
        for name in renames:
            patch.setattr(os, name, watched(name))

    def _tick(self) -> int:
        self._now += 1
        return self._now

    def has(self, path: Path) -> bool:
        """Whether a file was put onto the disk."""
        return path.stat().st_ino in {inode for _, inode in self.synced}

    def check(self) -> None:
        """What has a name was on the disk before, and the name itself is after: so no crash leaves half a file."""
        assert self.named
        for when, held, folder in self.named:
            assert held <= {inode for then, inode in self.synced if then < when}, "content before its name"
            assert folder in {inode for then, inode in self.synced if then > when}, "and then the name"
