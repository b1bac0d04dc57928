"""Attacks as trials that can be repeated: each is a row's name and a number, in a process of its own.

A row has one attack; what it draws comes from (row, number) alone. A trial holds where the program does what is right,
or says in one line what is wrong and exits with 2 or 4: no traceback, no crash, nothing damaged used in silence,
nothing imported that was not allowed, in bounded time and memory.
"""

from __future__ import annotations

import json
import os
import random
import re
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

CANARY = "canary_of_the_faults"
"""The name of a module that no attack may get imported."""
MEMORY = 4 * 2**30
"""Bytes that a trial may ask for beyond what the process that it comes from has."""


IDLE = 60.0
"""Seconds that a command may wait without doing anything."""


class NotHeldError(AssertionError):
    """What an attack got through with."""


@dataclass(frozen=True)
class Row:
    """One kind of attack."""

    name: str
    attack: Callable[[random.Random, Path], None]
    """Draws, and works in an empty folder of its own. Raises NotHeldError if it got through."""
    trials: int
    """Of the whole."""
    gate: int = 1
    """Of the gate."""
    seconds: float = 1800.0
    """That a trial may take by the clock, which is more than any does: see `_Watch` for what a command may."""


class Trial(NamedTuple):
    row: str
    number: int
    wrong: str | None
    """What did not hold."""


def run_row(row: Row, numbers: Iterable[int]) -> Iterator[Trial]:
    """Trials of a row one after another, in a process that is started anew after each that it did not outlive."""
    left = list(numbers)
    while left:
        for trial in _serve(row, left):
            yield trial
            left = left[1:]


def _serve(row: Row, numbers: Sequence[int]) -> Iterator[Trial]:
    """The trials up to the first that kills or hangs the process, that one included."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os.close(reader)
        try:
            for number in numbers:
                os.write(writer, json.dumps([number, _attack(row, number)]).encode() + b"\n")
        finally:
            os._exit(0)
    os.close(writer)
    waiting, ended = list(numbers), None
    buffer = b""
    try:
        while waiting and ended is None:
            deadline = time.monotonic() + row.seconds
            while b"\n" not in buffer and ended is None:
                if not select.select([reader], [], [], max(deadline - time.monotonic(), 0))[0]:
                    ended = f"took more than {row.seconds:g} s"
                elif not (read := os.read(reader, 65_536)):
                    ended = "crashed"
                else:
                    buffer += read
            while b"\n" in buffer:
                line, _, buffer = buffer.partition(b"\n")
                number, wrong = json.loads(line)
                waiting.remove(number)
                yield Trial(row.name, number, wrong)
    finally:
        os.close(reader)
        if waiting:
            _end(child)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if waiting and ended is not None:
        yield Trial(row.name, waiting[0], f"{ended} (exit {status})")


def _end(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        os.kill(group, signal.SIGKILL)


def _attack(row: Row, number: int) -> str | None:
    """What got through in a trial; None if nothing did."""
    place = Path(tempfile.mkdtemp(prefix="fault."))
    here = Path.cwd()
    try:
        (place / f"{CANARY}.py").write_text(f"open({str(place / 'imported')!r}, 'w')\n")
        sys.path.append(str(place))
        os.chdir(place)
        row.attack(random.Random(f"{row.name} {number}"), place)
        if (place / "imported").exists():
            return "a module was imported that was not allowed"
    except NotHeldError as error:
        return str(error)
    except BaseException as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        said = " ".join(str(error).split())[:200]
        return f"{type(error).__name__}: {said} ({Path(frame.filename).name}:{frame.lineno})"
    finally:
        sys.path.remove(str(place))
        os.chdir(here)
        shutil.rmtree(place, ignore_errors=True)
    return None


# What an attack is made with.


class Outcome(NamedTuple):
    """What came of a command."""

    code: int
    """Negative for a signal."""
    out: str
    err: str


def command(*argv: str, seconds: float = 40.0, before: Callable[[], None] | None = None) -> Outcome:
    """Run a command of anyformer in a fork, in the current folder. before: is done first, in the fork.

    Raises NotHeldError where it does not end.
    """
    from anyformer.__main__ import main

    def work() -> int:
        if before is not None:
            before()
        return main(argv)

    return in_a_fork(work, seconds)


def in_a_fork(work: Callable[[], Any], seconds: float = 40.0) -> Outcome:
    """What comes of some work in a fork; through pipes, for a file may have a limit."""
    (out, out_end), (err, err_end) = os.pipe(), os.pipe()
    child = start(work, out_end, err_end)
    os.close(out_end)
    os.close(err_end)
    said = {out: b"", err: b""}
    watch = _Watch(child, seconds)
    code = None
    while code is None or select.select(list(said), [], [], 0)[0]:
        if code is None:
            watch.look()
        ready = select.select(list(said), [], [], 0.01)[0]
        pieces = {end: os.read(end, 65_536) for end in ready}
        for end, piece in pieces.items():
            said[end] += piece
        if code is None and not any(pieces.values()):
            done, status = os.waitpid(child, os.WNOHANG)
            code = os.waitstatus_to_exitcode(status) if done else None
            if ready and not done:
                time.sleep(0.005)
        elif code is not None and not any(pieces.values()):
            break
    os.close(out)
    os.close(err)
    return Outcome(code, said[out].decode(errors="replace"), said[err].decode(errors="replace"))


def start(work: Callable[[], Any], out: int, err: int) -> int:
    """Do some work in a fork, whose exit code it returns; gives the fork's id."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout, sys.stderr = (os.fdopen(os.dup(n), "w", buffering=size) for n, size in ((1, -1), (2, 1)))
        bound_memory()
        code = int(work() or 0)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 99
    except BaseException as error:
        code = getattr(error, "exit_code", 99)
        if code == 99:
            traceback.print_exc()
        else:
            print(f"anyformer: {error}", file=sys.stderr)
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def wait(child: int, seconds: float = 40.0) -> int:
    """The exit code of a fork, negative for a signal. Raises NotHeldError where it does not end: see `_Watch`."""
    watch = _Watch(child, seconds)
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        watch.look()
        time.sleep(0.01)


class _Watch:
    """Ends a fork that takes too much processor time, or hangs: by the clock a busy machine would end the innocent."""

    def __init__(self, child: int, seconds: float) -> None:
        self.child, self.seconds = child, seconds
        self.used, self.since = 0.0, time.monotonic()

    def look(self) -> None:
        """Raises NotHeldError where it had to be ended."""
        fields = Path(f"/proc/{self.child}/stat").read_text().rpartition(")")[2].split()
        used = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        if used > self.used:
            self.used, self.since = used, time.monotonic()
        idle = time.monotonic() - self.since
        if used > self.seconds or idle > IDLE:
            os.kill(self.child, signal.SIGKILL)
            os.waitpid(self.child, 0)
            what = f"waited {idle:.0f} s" if idle > IDLE else f"took {used:.0f} s of processor time"
            raise NotHeldError(f"did not end: {what}")


def bound_memory() -> None:
    """From here on this process may ask for so much more memory, and then meets a MemoryError."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))


def is_refused(outcome: Outcome, *codes: int) -> bool:
    """Whether a command was refused, as it must be where it does not end well.

    Raises NotHeldError for another exit code than 0 and these (2 and 4), a traceback, or more or less than one line.
    """
    code, _, err = outcome
    last = " / ".join(err.strip().splitlines()[-2:])[-300:]
    if "Traceback" in err:
        raise NotHeldError(f"a traceback (exit {code}): {last}")
    if code == 0:
        return False
    if code not in (codes or (2, 4)):
        raise NotHeldError(f"exit {code}: {last}")
    # torch ends what it says of a worker that crashed with no line end.
    lines = [line for line in err.splitlines() if re.search(r"^(.*\0)?anyformer: ", line)]
    if len(lines) != 1 or len(lines[0]) > 2000:
        raise NotHeldError(f"{len(lines)} lines say what is wrong (exit {code}): {last}")
    return True


def require(held: bool, what: str) -> None:
    if not held:
        raise NotHeldError(what)


# Damage.


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Bytes cut off, turned, written over, moved, put in or taken out."""
    if not content:
        return bytes(draw.randrange(256) for _ in range(draw.randrange(1, 64)))
    result = bytearray(content)
    n = len(result)
    kind = draw.randrange(8)
    at = draw.randrange(n)
    size = min(draw.choice((1, 2, 4, 8, 64, 1000)), n - at)
    if kind == 0:
        return content[:at]
    if kind == 1:
        for _ in range(draw.choice((1, 1, 2, 8))):
            result[draw.randrange(n)] ^= 1 << draw.randrange(8)
    elif kind == 2:
        result[at : at + size] = bytes(draw.randrange(256) for _ in range(size))
    elif kind == 3:
        result[at : at + size] = bytes([draw.choice((0, 0xFF, 0x7F, 0x80, 0x0A))]) * size
    elif kind == 4:
        result[at:at] = bytes(draw.randrange(256) for _ in range(size))
    elif kind == 5:
        del result[at : at + size]
    elif kind == 6:
        other = draw.randrange(n)
        result[at : at + size] = content[other : other + size]
    else:
        # Headers stand in front, and their numbers are what readers believe.
        at = draw.randrange(min(n, 200))
        result[at : at + 4] = draw.choice((b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\0\0\0\x80"))
    return bytes(result)
