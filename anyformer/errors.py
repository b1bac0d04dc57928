"""The one exception that a user is meant to read, and the lines that are for the person at the terminal."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path


class InputError(ValueError):
    """Something the user gave cannot be used: a file, a field of a record, a key of a config.

    The message is one line that names the file and field, what was needed, what arrived and what to do. The command
    line prints it without a traceback and exits with code 2.
    """


def say(text: str) -> None:
    """A line for the person at the terminal."""
    print(text, file=sys.stderr, flush=True)


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
