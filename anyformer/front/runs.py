"""Whether the files and folders of a command line are there, and what the model of a run takes."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anyformer.errors import InputError, nearest, suggest
from anyformer.local_files import no_such_file, places
from anyformer.reference.examples import config_files
from anyformer.saving.usage import read_usage


def usage_of(run: str) -> dict[str, Any] | None:
    """What `predict` takes of the model of RUN or RUN:TASK; None where it is not said."""
    return read_usage(*_split(run))


def _split(run: str) -> tuple[Path, str]:
    found = re.fullmatch(r"(.+):([\w-]+)", run)
    return (Path(run), "") if found is None or os.path.exists(run) else (Path(found[1]), found[2])


def check_run(run: str) -> None:
    """Raise InputError where there is no such folder, naming the nearest beside it."""
    if "://" in run or _split(run)[0].is_dir():
        return
    raise InputError(
        f"there is no run folder {run}; a run is a local folder that fit has written{_near(run, Path.is_dir)}"
    )


def check_config(path: str) -> None:
    """Raise InputError where there is no such file, naming the nearest beside it or of those that ship."""
    if os.path.exists(path):
        return
    near = _near(path, lambda each: each.suffix in (".yaml", ".yml"))
    shipped = {each.name: str(each) for each in config_files()}
    if not near and Path(path).name in shipped:
        near = f"; did you mean {shipped[Path(path).name]!r}?"
    raise InputError(f"there is no config {path}{near}")


def check_config_or_run(path: str) -> None:
    if not _split(path)[0].is_dir():
        check_config(path)


def _near(path: str, is_one: Any) -> str:
    folder, name = os.path.split(path)
    try:
        beside = [each.name for each in Path(folder or ".").iterdir() if is_one(each)]
    except OSError:
        return ""
    # As it was written, with the folder.
    return nearest(name, beside, 1).replace("'", f"'{folder}/" if folder else "'", 1)


def check_fields(given: Sequence[str], run: str, inputs: dict[str, dict[str, Any]]) -> None:
    """Raise InputError for a field that the model has not, and for the path of a file that is nowhere.

    given: as FIELD=VALUE. inputs: by field, what its files end in, if it reads any.
    """
    for each in given:
        names, equals, value = each.partition("=")
        for name in names.split(",") if equals else ():
            if not inputs:
                raise InputError(
                    f"the model of {run} is given no fields, got {each!r}; records of it are given by --data"
                )
            if name not in inputs:
                raise InputError(f"the model of {run} has no field {name!r}{suggest(name, inputs)}")
            if _names_file(value, inputs[name]["endings"]) and not _is_somewhere(value):
                raise InputError(f"field {name!r}: {no_such_file(value)}{_near(value, Path.is_file)}")


def _names_file(value: str, endings: Sequence[str]) -> bool:
    return value.lower().endswith(tuple(endings)) and not re.search(r"[*?\[]|://", value)


def _is_somewhere(path: str) -> bool:
    # Inside a zip it is for the reader to say.
    return any(
        os.path.lexists(place) or any(above.is_file() for above in Path(place).parents) for place in places(path)
    )
