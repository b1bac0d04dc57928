"""The folder of a run: its path, a task of a mixture in it, the runs of several folds or seeds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anyformer.data.files import find_beside
from anyformer.errors import InputError
from anyformer.local_files import read_json


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
    """Where weights are, as `find_beside` finds them: a file; or a run's folder, and `:digits` where a task is named.

    Raises InputError if they are nowhere.
    """
    path, member = split_run(source)
    return Path(find_beside(path)), f":{member}" if member else ""


Metrics = Mapping[str, float]


def holds_trials(run: Path) -> bool:
    """Whether a folder is one of several runs."""
    return _read(run) is not None


def first_trial(run: Path) -> Path:
    """The folder of one of the runs in a folder of several."""
    return run / next(iter([*read_trials(run), *begun_trials(run)]), "seed_0")


def begun_trials(run: Path) -> list[str]:
    """The names of the runs in a folder of several, whether or not they have come to their end."""
    name = re.compile(r"(fold_\d+_(setting_\d+_)?(inner_\d+_)?)?seed_\d+")
    return sorted(path.name for path in run.iterdir() if name.fullmatch(path.name))


def read_trials(run: Path) -> dict[str, Metrics]:
    """The metrics of the runs in a folder that have come to their end, by name."""
    return dict((_read(run) or {}).get("runs", {}))


def metrics_of(run: Path) -> dict[str, Any]:
    """What a folder's metrics.json holds; nothing where there is none. Raises InputError for one that is damaged."""
    path = run / "metrics.json"
    try:
        return read_json(path) if path.exists() else {}
    except InputError as error:
        raise InputError(f"{error}, or remove it: it is written anew") from None


def _read(run: Path) -> dict | None:
    content = metrics_of(run)
    return content if isinstance(content.get("runs"), dict) else None
