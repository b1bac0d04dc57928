"""Files that a reader finds whole or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from anyformer.faults import WriteError, writing

PART = ".part"
"""What the name of a file or folder ends in while it is being written."""


class Unwritten(OSError):
    """What a disk refused, and how many bytes were to be written."""

    def __init__(self, error: OSError, n_bytes: int) -> None:
        super().__init__(error.errno, error.strerror)
        self.n_bytes = n_bytes


class Counted:
    """A file that goes on counting where the disk takes no more, so that it can be said how much was needed.

    Whoever writes never meets the error, which torch could not hand on: it is raised by `check`, at the end.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.n_bytes = 0
        self._error: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self.n_bytes += len(view)
        try:
            while self._error is None and len(view):
                view = view[self.file.write(view) :]
        except OSError as error:
            self._error = error
        return self.n_bytes

    def flush(self) -> None:
        """Nothing is held back."""

    def check(self) -> None:
        """Raises Unwritten, if a write was refused."""
        if self._error is not None:
            raise Unwritten(self._error, self.n_bytes)


def write_counted(path: Path, write: Callable[[Counted], Any]) -> None:
    """Write a file. Raises Unwritten, once it is known how many bytes there would have been."""
    with open(path, "wb", buffering=0) as file:
        counted = Counted(file)
        write(counted)
        counted.check()


def write_whole(
    path: Path, write: Callable[[Path], Any] | str, before: Callable[[Path], Any] = lambda part: None
) -> None:
    """Write a file so that a reader, whenever it comes, finds the old one or the new one, whole.

    write: the text, or a function that writes the file whose path it is given.
    before: is given the same path once all is on the disk, before the file gets its name.
    Raises WriteError where the system does not let it, and leaves nothing but the old file.
    """
    part, is_whole = path.with_name(path.name + PART), False
    try:
        with writing(path):
            if isinstance(write, str):
                write_counted(part, lambda file: file.write(write.encode()))
            else:
                write(part)
            sync_file(part)
            is_whole = True
            before(part)
            os.replace(part, path)
            sync_folder(path.parent)
    except BaseException as error:
        # Where there is no room, what is half written would keep it. What is whole may have been entered by `before`.
        if not is_whole or isinstance(error, WriteError):
            with suppress(OSError):
                part.unlink(missing_ok=True)
        raise


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file. Raises Unwritten where the system does not let it."""
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        refused = OSError(int(number[1]), os.strerror(int(number[1])))
        raise Unwritten(refused, sum(tensor.nbytes for tensor in tensors.values())) from error


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
