"""What the machine cannot give: room, memory, a folder that may be written to, a data worker; each said in one line."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anyformer.errors import InputError


class MachineError(InputError):
    """The machine cannot give what is needed: room on a disk, memory, a folder that may be written to, a data worker.

    Nothing that the user gave need change: the same command may do once there is room.
    """

    exit_code = 4


class WriteError(MachineError, OSError):
    """A file cannot be written; an OSError too, for whoever can do without the file."""

    def __init__(
        self, path: str | Path, error: OSError, n_bytes: int | None = None, variable: str | None = None
    ) -> None:
        """error: what the system said. n_bytes: how many the file needs, where that is known. variable: that of the
        environment which names the folder."""
        # h5py has the number in its text alone.
        number = error.errno or int((re.findall(r"errno = (\d+)", str(error)) or [0])[0])
        reason = error.strerror or (os.strerror(number) if number else str(error))
        if number in NO_ROOM:
            needed = "" if n_bytes is None else f"; it needs {n_bytes:,} bytes"
            free = _free(path) if number == errno.ENOSPC else ""
            reason += f"{needed}{free}; make room, raise the limit or give another folder"
        elif number in (errno.EROFS, errno.EACCES, errno.EPERM):
            reason += "; give a folder that may be written to"
        elif number in NO_SUCH_PLACE:
            reason += f"; the folder {os.path.dirname(path) or '.'} must be there for as long as the command runs"
        if variable is not None:
            reason += f"; {variable} names the folder"
        super().__init__(f"{path} cannot be written: {reason}")
        self.errno, self.strerror, self.filename = number, reason, str(path)

    def __str__(self) -> str:
        return str(self.args[0])


FEWER_WORKERS = (
    "a system does that where memory runs out: give fewer workers (data.n_workers, 0 for none) or smaller batches "
    "(data.batch_size)"
)
"""What to do where a data worker was killed."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_SUCH_PLACE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EEXIST)


def _free(path: str | Path) -> str:
    try:
        return f"; {shutil.disk_usage(os.path.dirname(path) or '.').free:,} are free on its disk"
    except OSError:
        return ""


@contextmanager
def writing(path: str | Path, variable: str | None = None) -> Iterator[None]:
    """Turn what the system says while a file is written into a WriteError that names it.

    variable: that of the environment which names the folder of the file.
    """
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(path, error, getattr(error, "n_bytes", None), variable) from error


@contextmanager
def machine_faults() -> Iterator[None]:
    """Turn what Python and torch raise for want of memory, room or a data worker into an InputError of one line."""
    try:
        yield
    except (InputError, BrokenPipeError):
        raise
    except (OSError, MemoryError, RuntimeError) as error:
        if (fault := _fault(error)) is None:
            raise
        raise fault from error


def _fault(error: Exception) -> InputError | None:
    """The one line for what a machine cannot give; None where that is not what is wrong."""
    said = " ".join(str(error).split())
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        line = f"{where}{error.strerror or said}"
        if not where and error.errno in NO_ROOM:
            line = f"what is printed, or a file, cannot be written: {line}; make room, or raise the limit"
        return InputError(line) if error.errno in NO_SUCH_PLACE else MachineError(line)
    if isinstance(error, MemoryError) or "out of memory" in said or "can't allocate memory" in said:
        return MachineError(
            f"there is not enough memory{said and f' ({said[:200]})'}; lower data.batch_size or data.max_tokens, give "
            "a smaller model, or end what else is running"
        )
    if said.startswith("DataLoader worker") and ("killed by signal" in said or "exited unexpectedly" in said):
        return MachineError(
            f"a data worker was killed ({said.removeprefix('DataLoader worker ').rstrip('. ')}); {FEWER_WORKERS}"
        )
    if "Too many open files" in said or "received 0 items of ancdata" in said:
        return MachineError("too many files are open at once; raise the limit (ulimit -n), or lower data.n_workers")
    if "shared memory" in said or "No space left on device" in said:
        return MachineError(
            f"batches cannot be handed over from the data workers ({said[-200:]}); make room in /dev/shm, or lower "
            "data.n_workers or data.batch_size"
        )
    return None
