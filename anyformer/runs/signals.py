"""SIGTERM and SIGINT: the batch is finished, the run saved, and the exit code is the shell's."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class Stopped(SystemExit):
    """A run that a signal stopped, its checkpoint saved. Its code is 128 + the signal's number, as a shell has it."""


STOPS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Afterwards the signals that stop a run have the handlers from before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held = {number: signal.getsignal(number) for number in STOPS}
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def stopping_at_once() -> Iterator[None]:
    """While it lasts, a signal ends what is being done, with its code; Lightning would let it pass."""

    def stop(number: int, frame: Any) -> None:
        raise Stopped(128 + number)

    with handlers_kept():
        if threading.current_thread() is threading.main_thread():
            for number in STOPS:
                signal.signal(number, stop)
        yield


@contextmanager
def passed_on(processes: Callable[[], Iterable[Any]], received: list[int]) -> Iterator[None]:
    """While it lasts, a signal that stops a run goes to the processes that train it, which save it; this one waits.

    processes: those there are. received: gets the number of every signal.
    """

    def send(number: int, frame: Any) -> None:
        received.append(number)
        for process in processes():
            if process.pid is not None and process.is_alive():
                os.kill(process.pid, number)

    with handlers_kept():
        if threading.current_thread() is threading.main_thread():
            for number in STOPS:
                signal.signal(number, send)
        yield


class Signals:
    """Notes the first SIGTERM or SIGINT, so that the step can end; the second has its usual effect."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._owner = os.getpid()

    def listen(self) -> None:
        if self.received is None and threading.current_thread() is threading.main_thread():
            for number in STOPS:
                signal.signal(number, self._note)

    def _note(self, number: int, frame: Any) -> None:
        again = self.received is not None
        self.received = number
        if os.getpid() != self._owner:
            # A data worker, which a signal to the whole group reaches too: it serves until the trainer lets it go.
            if again and number == signal.SIGTERM:
                os._exit(128 + number)
            return
        if again:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        else:
            # Not through sys.stderr, in the middle of whose work a signal may come.
            os.write(
                2, f"\n{signal.Signals(number).name}: stopping after this step; once more stops at once\n".encode()
            )
