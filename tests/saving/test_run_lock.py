"""One process at a time has a run folder; what a process that is gone has left is taken over, by one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from anyformer.errors import InputError
from anyformer.saving import run_lock
from anyformer.saving.run_lock import LOCK, locked

HOLD = """
import sys, time
from pathlib import Path
from anyformer.saving.run_lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path: Path):
    """Another process that has the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def write(run: Path, **changes: object) -> run_lock.Holder:
    """A lock of this very process but for some changes."""
    holder = replace(run_lock._this_process(), **changes)
    (run / LOCK).write_text(json.dumps(asdict(holder)))
    return holder


def take(run: Path) -> None:
    with locked(run):
        assert json.loads((run / LOCK).read_text())["pid"] == os.getpid()
    assert not (run / LOCK).exists()


def test_a_second_process_is_refused_by_host_and_process(other: subprocess.Popen, tmp_path: Path) -> None:
    wanted = rf"^{tmp_path} is in use: process {other.pid} on {socket.gethostname()} has worked there since .*; wait"
    with pytest.raises(InputError, match=wanted) as refusal, locked(tmp_path):
        pass
    assert f"kill {other.pid}" in str(refusal.value)
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == other.pid


@pytest.mark.parametrize("is_waited_for", [True, False])
def test_what_a_killed_process_has_left_is_taken_over_at_once(
    other: subprocess.Popen, tmp_path: Path, is_waited_for: bool
) -> None:
    os.kill(other.pid, signal.SIGKILL)
    if is_waited_for:
        other.wait()
    else:
        # What is left of it until then bears its id.
        while Path(f"/proc/{other.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
    take(tmp_path)


def test_a_second_run_of_the_same_process_is_refused_too(tmp_path: Path) -> None:
    with (
        locked(tmp_path),
        pytest.raises(InputError, match=rf"process {os.getpid()} on"),
        locked(tmp_path),
    ):
        pass
    take(tmp_path)


def test_a_process_of_the_same_id_that_began_at_another_time_is_another(tmp_path: Path) -> None:
    write(tmp_path, began="1")
    take(tmp_path)


def test_a_host_that_was_started_anew_holds_nothing(tmp_path: Path) -> None:
    write(tmp_path, space="00000000-0000-0000-0000-000000000000 pid:[4026531836]")
    take(tmp_path)


@pytest.mark.parametrize("elsewhere", ["host", "container"])
def test_of_another_host_or_container_nothing_is_known(tmp_path: Path, elsewhere: str) -> None:
    changes = {"host": "node17"} if elsewhere == "host" else {"space": run_lock._space().split()[0] + " pid:[1]"}
    holder = write(tmp_path, pid=2**22 + 1, **changes)
    wanted = rf"process {holder.pid} on {holder.host} .*; if it no longer runs there, remove {tmp_path / LOCK}$"
    with pytest.raises(InputError, match=wanted), locked(tmp_path):
        pass


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"pid": 1}', b"\xff\x00", b"0" * 10000])
def test_a_damaged_lock_is_refused_with_the_way_out(tmp_path: Path, content: bytes, monkeypatch) -> None:
    monkeypatch.setattr(run_lock, "PATIENCE", 0.05)
    (tmp_path / LOCK).write_bytes(content)
    with pytest.raises(InputError, match=r"run.lock is damaged: .*; remove it if none does$"), locked(tmp_path):
        pass
    assert (tmp_path / LOCK).read_bytes() == content


def test_a_pipe_or_folder_of_that_name_is_no_lock(tmp_path: Path) -> None:
    for make in (os.mkfifo, os.mkdir):
        make(tmp_path / LOCK)
        with pytest.raises(InputError, match=r"run.lock is damaged"), locked(tmp_path):
            pass
        (os.remove if make is os.mkfifo else os.rmdir)(tmp_path / LOCK)


def test_of_many_that_find_a_lock_left_behind_one_takes_it(tmp_path: Path) -> None:
    for _ in range(5):
        write(tmp_path, began="1")
        gate, go = os.pipe()
        children = []
        for _ in range(8):
            child = os.fork()
            if child == 0:
                code = 99
                try:
                    os.read(gate, 1)
                    with locked(tmp_path):
                        time.sleep(0.3)
                    code = 0
                except InputError:
                    code = 2
                finally:
                    os._exit(code)
            children.append(child)
        os.write(go, b"x" * len(children))
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        os.close(gate)
        os.close(go)
        assert sorted(codes) == [0, *[2] * 7]


def test_a_folder_that_was_made_for_it_and_stays_empty_goes(tmp_path: Path) -> None:
    take(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    take(tmp_path)
    assert tmp_path.exists()


def test_a_fork_that_comes_through_leaves_the_lock_to_its_parent(tmp_path: Path) -> None:
    with locked(tmp_path):
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            assert (tmp_path / LOCK).exists()
    if child == 0:
        os._exit(0)


def test_without_proc_the_system_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("ps") is None:
        pytest.skip("needs ps")
    with subprocess.Popen(["sleep", "60"]) as process:
        assert run_lock._asked(process.pid) == run_lock._asked(process.pid) != ""
        process.kill()
    assert run_lock._asked(process.pid) == ""
