"""The exception that a user is meant to read, the nearest names it offers, and lines for the person at the terminal."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache
from pathlib import Path

IN_PYTHON = (
    (re.compile(r"go on with: .*?fit --resume (\S+)"), r"go on with: fit(..., run_dir='\1', resume=True)"),
    (re.compile(r"fit --resume(?! (?:goes|with)\b) [^\s,;]+|fit --resume\b"), "resume=True"),
    (re.compile(r"fit --config \.\.\. --run_dir [^\s,;]+"), "fit without resume"),
    (re.compile(r"--unsafe_imports (\w+)"), r"unsafe_imports=['\1']"),
    (re.compile(r"(?<![\w'\"-])--([a-z]\w*)"), r"\1"),
)
"""What messages say of the command line's options, and what Python calls it."""


class Caller:
    """Who is told: a person at the command line, or a program in Python, which gives the same options as arguments."""

    is_command_line = False

    @classmethod
    @contextmanager
    def on_command_line(cls) -> Iterator[None]:
        held, cls.is_command_line = cls.is_command_line, True
        try:
            yield
        finally:
            cls.is_command_line = held


def worded(text: str) -> str:
    """A message with its options as whoever is told gives them.

    >>> worded("runs/a already holds a run; go on with fit --resume runs/a, or choose another --run_dir")
    'runs/a already holds a run; go on with resume=True, or choose another run_dir'
    """
    if Caller.is_command_line:
        return text
    for pattern, instead in IN_PYTHON:
        text = pattern.sub(instead, text)
    return text


class InputError(ValueError):
    """Something the user gave cannot be used: a file, a field of a record, a key of a config.

    The message is one line that names the file and field, what was needed, what arrived and what to do. The command
    line prints it without a traceback and exits with its code.
    """

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(worded(str(message)))


def say(text: str) -> None:
    """A line for the person at the terminal."""
    print(worded(text), file=sys.stderr, flush=True)


@cache
def say_once(text: str) -> None:
    """The same, where one line is met several times in a run, or by each of its processes."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        say(text)


def program() -> str:
    """How this program is called where the user is, for the commands that it shows.

    `uv run anyformer` in a clone, `anyformer` where that is on the path, else the way it was started.
    """
    # `uv run` says so to what it starts, whose path it also prepares.
    if "UV" in os.environ:
        return "uv run anyformer"
    started = Path(sys.argv[0])
    if shutil.which("anyformer") is None:
        if started.name == "anyformer":
            return str(started)
        if started.name == "__main__.py":
            return "python -m anyformer"
    return "anyformer"


def nearest(name: str, names: Collection[str], n: int = 3) -> str:
    close = get_close_matches(name, names, n=n, cutoff=0.6)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def suggest(key: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """The nearest of the names that exist; where none is near all of them, or what is said otherwise."""
    known = [str(name) for name in known]
    near = get_close_matches(key.lower(), [name.lower() for name in known], 1, 0.6)
    if near:
        return f"; did you mean {next(name for name in known if name.lower() == near[0])!r}?"
    if otherwise is not None:
        return f"; {otherwise}"
    return f"; there are {', '.join(sorted(known))}" if known else ""
