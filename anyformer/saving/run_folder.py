"""The folder of a run: its path, a task of a mixture in it, the runs of several folds or seeds."""

from __future__ import annotations

import re
from pathlib import Path

from anyformer.data.files import find_file
from anyformer.errors import InputError


def run_folder(run_dir: str | Path) -> Path:
    """The path of a run folder. Raises InputError for an address on the network."""
    if "://" in str(run_dir):
        raise InputError(f"a run is a local folder, and nothing is loaded from the network, got {run_dir}")
    return Path(run_dir)


def split_run(run_dir: str | Path) -> tuple[Path, str]:
    """The folder of a run, and the task that is meant of a mixture's, as in `runs/all:digits`; "" where none is named.

    Raises InputError for an address on the network.
    """
    path = run_folder(run_dir)
    found = re.fullmatch(r"(.+):([\w-]+)", str(path))
    return (path, "") if found is None or path.exists() else (Path(found[1]), found[2])


def find_run(source: str | Path) -> tuple[Path, str]:
    """Where weights are, as `find_file` finds them: a file; or a run's folder, and `:digits` where a task is named.

    Raises InputError if they are nowhere.
    """
    path, member = split_run(source)
    return Path(find_file(path)), f":{member}" if member else ""
