"""The program's name in the commands that it shows, and lines that are said once."""

from __future__ import annotations

import sys

import pytest

from anyformer.errors import program, say_once, suggest


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
