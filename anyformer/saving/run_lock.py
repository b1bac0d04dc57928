"""The lock of a run folder: one process at a time writes there.

`run.lock` names host, process and when the process began. It is made with `O_EXCL`, which is atomic on local disks and
on NFS and needs no lock daemon. A lock that the system holds (flock) would often be seen on its own host alone there,
and the data workers of a killed trainer would go on holding it. A killed process leaves the file behind: who finds it
on the same host looks whether that very process is still there, and takes it over where it is not.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from anyformer.errors import InputError
from anyformer.faults import writing
from anyformer.saving.atomic import Unwritten

LOCK = "run.lock"
PATIENCE = 1.0
"""Seconds in which another process has written the lock that it has made."""
MOST = 2**12
"""Bytes of a lock at most."""


@dataclass(frozen=True)
class Holder:
    """The process that writes into a run folder."""

    host: str
    space: str
    """Within which process ids are told apart: the start of the system, and the container where there are some."""
    pid: int
    began: str
    """When the process began, as the system says it: ids are used again."""
    since: str
    """When it took the lock, for who reads it."""

    @property
    def is_gone(self) -> bool:
        """Whether the process has ended; of one on another host, or in another container, that cannot be known."""
        boot, own_boot = (space.partition(" ")[0] for space in (self.space, _space()))
        if self.host != socket.gethostname():
            return False
        if boot != own_boot:
            return True  # The host was started anew since.
        return self.space == _space() and _began(self.pid) != self.began


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """While it lasts, no other process writes into a run folder, which is made for it and goes if it stays empty.

    Raises InputError, which names host and process, where another one does.
    """
    path, own, is_new = run / LOCK, _this_process(), not run.exists()
    if not is_new and not run.is_dir():
        raise InputError(f"{run} is a file, and a run needs a folder; choose another --run_dir")
    with writing(run):
        run.mkdir(parents=True, exist_ok=True)
    with writing(path):
        _take(path, own)
    try:
        yield
    finally:
        # A fork that comes through here has another id, and a folder may have been removed.
        with suppress(OSError):
            if own.pid == os.getpid() and _read(path.read_text(encoding="utf-8")) == own:
                path.unlink()
                if is_new:
                    run.rmdir()


def _take(path: Path, own: Holder) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            pass
        else:
            try:
                text, written = _text(own), 0
                # A full disk may take a part of it, and say so at the next.
                while written < len(text):
                    written += os.write(handle, text[written:])
                os.fsync(handle)
            except OSError as error:
                path.unlink(missing_ok=True)
                raise Unwritten(error, len(text)) from error
            finally:
                os.close(handle)
            return
        if _take_over(path, own, time.monotonic() > deadline):
            return
        time.sleep(0.02)


def _take_over(path: Path, own: Holder, impatient: bool) -> bool:
    """Whether the lock of a process that is gone has been made one's own; no where it is to be looked at once more.

    Raises InputError where the process is still there, or where that cannot be known.
    """
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise _damaged(path)
        is_ours = os.access(path, os.W_OK)
        with open(path, "r+b" if is_ours else "rb") as file:
            # Of several that find it at once, which are all on this host, one takes it.
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink == 0:
                return False
            holder = _read(file.read(MOST).decode(errors="replace"))
            if holder is None:
                if not impatient:
                    return False
                raise _damaged(path)
            if not holder.is_gone:
                raise _in_use(path, holder)
            if not is_ours:
                raise InputError(f"{path} is of process {holder.pid}, which has ended, and not yours; remove it")
            file.seek(0)
            file.truncate()
            file.write(_text(own))
            file.flush()
            os.fsync(file.fileno())
            return True
    return False


def _damaged(path: Path) -> InputError:
    return InputError(
        f"{path} is damaged: it must name the process that trains in {path.parent}; remove it if none does"
    )


def _in_use(path: Path, holder: Holder) -> InputError:
    here = holder.host == socket.gethostname() and holder.space == _space()
    way_out = (
        f"wait for its end, or stop it with: kill {holder.pid}"
        if here
        else f"wait for its end; if it no longer runs there, remove {path}"
    )
    return InputError(
        f"{path.parent} is in use: process {holder.pid} on {holder.host} has worked there since {holder.since}; "
        f"{way_out}"
    )


def _this_process() -> Holder:
    now = datetime.now().astimezone().isoformat(" ", "seconds")
    return Holder(socket.gethostname(), _space(), os.getpid(), _began(os.getpid()), now)


def _text(holder: Holder) -> bytes:
    return (json.dumps(asdict(holder)) + "\n").encode()


def _read(text: str) -> Holder | None:
    """The holder that a lock names; None where it names none."""
    try:
        holder = Holder(**json.loads(text))
    except (TypeError, ValueError):
        return None
    kinds = {name: int if name == "pid" else str for name in asdict(holder)}
    is_whole = all(type(getattr(holder, name)) is kind for name, kind in kinds.items()) and holder.pid > 0
    return holder if is_whole else None


def _space() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _began(pid: int) -> str:
    """When a process began; "" where there is none, or only what is left of one that its parent has not asked for."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass  # Another user's.
    try:
        line = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return _asked(pid)
    # Behind the name, which may hold anything: the state first, and the start as the 20th.
    state, *fields = line.rpartition(")")[2].split()
    return "" if state in "ZX" else fields[18]


def _asked(pid: int) -> str:
    """As `_began`, where there is no /proc."""
    found = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, began = found.stdout.strip().partition(" ")
    return "" if state.startswith("Z") else began.strip()
