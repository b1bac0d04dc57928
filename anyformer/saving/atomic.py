"""Files that a reader finds whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

PART = ".part"
"""What the name of a file or folder ends in while it is being written."""


def write_whole(
    path: Path, write: Callable[[Path], Any] | str, before: Callable[[Path], Any] = lambda part: None
) -> None:
    """Write a file so that a reader, whenever it comes, finds the old one or the new one, whole.

    write: the text, or a function that writes the file whose path it is given.
    before: is given the same path once all is on the disk, before the file gets its name.
    """
    part = path.with_name(path.name + PART)
    if isinstance(write, str):
        part.write_text(write, encoding="utf-8")
    else:
        write(part)
    sync_file(part)
    before(part)
    os.replace(part, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the renames within a folder survive a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    """Put a file that was written onto the disk, to be read by all whom the umask lets: safetensors' are private."""
    umask = os.umask(0o077)
    os.umask(umask)
    os.chmod(path, 0o666 & ~umask)
    with open(path, "rb") as file:
        os.fsync(file.fileno())
