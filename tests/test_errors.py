"""The program's name in the commands that it shows, and lines that are said once."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from anyformer.errors import InputError, MachineError, WriteError, machine_faults, program, say_once, suggest, writing


@pytest.mark.parametrize(
    ("uv", "on_path", "started", "shown"),
    [
        ("/usr/bin/uv", True, "/clone/.venv/bin/anyformer", "uv run anyformer"),
        (None, True, "/clone/.venv/bin/anyformer", "anyformer"),
        (None, False, ".venv/bin/anyformer", ".venv/bin/anyformer"),
        (None, False, "/clone/anyformer/__main__.py", "python -m anyformer"),
    ],
)
def test_commands_are_shown_as_the_user_can_type_them(
    uv: str | None, on_path: bool, started: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if uv is not None:
        monkeypatch.setenv("UV", uv)
    monkeypatch.setattr("shutil.which", lambda name: started if on_path else None)
    monkeypatch.setattr(sys, "argv", [started])
    assert program() == shown


def test_the_nearest_name_is_suggested() -> None:
    assert suggest("D_Modle", ["d_model", "depth"]) == "; did you mean 'd_model'?"
    assert suggest("xyz", ["b", "a"]) == "; there are a, b"
    assert suggest("xyz", []) == ""
    assert suggest("xyz", ["b", "a"], "see --help") == "; see --help"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (MemoryError(), 4, "there is not enough memory; lower data.batch_size"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes"),
            4,
            "there is not enough memory .*8 bytes",
        ),
        (RuntimeError("CUDA out of memory. Tried to\nallocate 2 GiB"), 4, "there is not enough memory .*2 GiB"),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
            4,
            "a data worker was killed .*pid 7",
        ),
        (OSError(errno.EIO, "Input/output error", "here"), 4, "here: Input/output error"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "here"), 2, "here: No such file"),
    ],
)
def test_what_a_machine_cannot_give_is_one_line_with_its_code(error: Exception, code: int, line: str) -> None:
    with pytest.raises(InputError, match=f"^{line}") as caught, machine_faults():
        raise error
    assert caught.value.exit_code == code
    assert "\n" not in str(caught.value)


def test_a_mistake_of_the_code_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="shapes") as caught, machine_faults():
        raise RuntimeError("shapes cannot be multiplied")
    assert not isinstance(caught.value, InputError)


def test_what_cannot_be_written_is_named_with_the_way_out(tmp_path: Path) -> None:
    gone = tmp_path / "gone" / "a"
    with pytest.raises(WriteError, match=r"gone/a cannot be written: .*the folder .*gone must be there"), writing(gone):
        gone.write_text("")
    with (
        pytest.raises(MachineError, match=r"^/dev/full cannot be written: No space left .*make room"),
        writing("/dev/full"),
        open("/dev/full", "wb", buffering=0) as file,
    ):
        file.write(b"a")
    with pytest.raises(WriteError, match=r"File too large; it needs 1,234 bytes; make room"):
        raise WriteError("a", OSError(errno.EFBIG, os.strerror(errno.EFBIG)), 1234)


def test_a_line_is_said_once_and_by_one_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    say_once.cache_clear()
    for text in ("a", "b", "a"):
        say_once(text)
    assert capsys.readouterr().err == "a\nb\n"
    monkeypatch.setenv("LOCAL_RANK", "1")
    say_once("c")
    assert not capsys.readouterr().err
