"""What an attack gets through with is seen: a traceback, a crash, a hang, too much memory, an import, two lines."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.harness import CANARY, MEMORY, NotHeldError, Outcome, Row, damaged, in_a_fork, is_refused, run_row


def crash(draw: random.Random, place: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang(draw: random.Random, place: Path) -> None:
    time.sleep(60)


def import_the_canary(draw: random.Random, place: Path) -> None:
    __import__(CANARY)


def fail(draw: random.Random, place: Path) -> None:
    raise KeyError("a mistake")


@pytest.mark.parametrize(
    ("attack", "wrong"),
    [
        (crash, "crashed (exit -9)"),
        (hang, "took more than 0.5 s (exit -9)"),
        (import_the_canary, "a module was imported that was not allowed"),
        (fail, "KeyError: 'a mistake'"),
        (lambda draw, place: None, None),
    ],
)
def test_what_an_attack_gets_through_with_is_seen(attack: Callable, wrong: str | None) -> None:
    first, *_ = run_row(Row("test", attack, 1, seconds=0.5), [3])
    assert first.number == 3
    assert (first.wrong or "").startswith(wrong or "")
    assert (first.wrong is None) == (wrong is None)


def test_trials_go_on_after_a_crash() -> None:
    row = Row("test", lambda draw, place: crash(draw, place) if draw.random() < 0.5 else None, 1)
    trials = list(run_row(row, range(6)))
    assert [trial.number for trial in trials] == list(range(6))
    assert {trial.wrong is None for trial in trials} == {True, False}
    assert trials == list(run_row(row, range(6)))


@pytest.mark.parametrize(
    ("outcome", "wrong"),
    [
        (Outcome(1, "", "anyformer: no"), "exit 1"),
        (Outcome(2, "", "Traceback (most recent call last):"), "a traceback"),
        (Outcome(2, "", ""), "0 lines"),
        (Outcome(2, "", "anyformer: a\nanyformer: b\n"), "2 lines"),
        (Outcome(-11, "", ""), "exit -11"),
    ],
)
def test_what_is_no_refusal_is_said(outcome: Outcome, wrong: str) -> None:
    with pytest.raises(NotHeldError, match=wrong):
        is_refused(outcome)


def test_a_refusal_is_one_line_and_its_code() -> None:
    assert is_refused(Outcome(2, "", "something\nanyformer: no\n"))
    assert not is_refused(Outcome(0, "", ""))
    with pytest.raises(NotHeldError, match="exit 2"):
        is_refused(Outcome(2, "", "anyformer: no\n"), 4)


def test_a_fork_says_what_it_said_and_has_bounded_memory() -> None:
    def work() -> int:
        print("out")
        print("err", file=sys.stderr)
        return 3

    assert in_a_fork(work) == Outcome(3, "out\n", "err\n")
    assert "MemoryError" in in_a_fork(lambda: bytearray(2 * MEMORY)).err


def test_damage_can_be_repeated_and_changes_something() -> None:
    content = bytes(range(256))
    changed = [damaged(content, random.Random(i)) for i in range(50)]
    assert changed == [damaged(content, random.Random(i)) for i in range(50)]
    assert sum(one != content for one in changed) > 40
