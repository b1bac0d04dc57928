"""What the machine cannot give is one line with its code."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from anyformer.errors import InputError
from anyformer.faults import MachineError, WriteError, machine_faults, writing


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
