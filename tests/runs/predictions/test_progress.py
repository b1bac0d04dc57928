"""Lines without a terminal."""

from __future__ import annotations

import re

import pytest

from anyformer.runs.predictions import progress as module
from anyformer.runs.predictions.progress import Progress


def test_without_a_terminal_there_is_a_line_every_so_often(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.0)
    shown = Progress(2000, done=1000)
    shown.add()
    shown.close()
    line = r"1,001 of 2,000 records, [\d,.]+ a second, 1.0 s left\n"
    assert re.fullmatch(line, capsys.readouterr().err)
    silent = Progress(2000, shown=False)
    silent.add()
    assert capsys.readouterr().err == "" and silent.done == 1


def test_what_is_quick_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Progress(2).add()
    assert capsys.readouterr().err == ""
