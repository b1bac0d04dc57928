"""What SIGTERM and SIGINT do to a run, and to the handlers from before."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest

from anyformer.runs.signals import Signals, Stopped, handlers_kept, stopping_at_once
from tests.helpers.small_run import in_a_fork, small_fit
from tests.helpers.stopped_runs import Signal


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    twice = [Signal(signal.SIGTERM, 2), Signal(signal.SIGTERM, 2)]
    assert in_a_fork(lambda: small_fit(tmp_path, callbacks=twice)) == -signal.SIGTERM


def test_the_signals_have_their_old_handlers_after_a_run(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    small_fit(tmp_path, max_epochs=1, limit_train_batches=1)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    with pytest.raises(SystemExit, match="143"):
        small_fit(tmp_path / "stopped", callbacks=[Signal(signal.SIGTERM, 1)])
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_is_stopped_at_once_ends_with_the_code_of_a_shell(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as stopped, stopping_at_once():
        signal.raise_signal(number)
    assert stopped.value.code == 128 + number
    assert signal.getsignal(number) is before


def test_the_first_signal_is_noted(capfd: pytest.CaptureFixture[str]) -> None:
    signals = Signals()
    with handlers_kept():
        signals.listen()
        signal.raise_signal(signal.SIGTERM)
    assert signals.received == signal.SIGTERM
    assert capfd.readouterr().err == "\nSIGTERM: stopping after this step; once more stops at once\n"


def test_another_thread_leaves_the_handlers_alone() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with stopping_at_once():
            Signals().listen()
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
