"""Files that are whole or absent, and the checkpoints of a run made of them.

A file is written beside its destination, flushed, synced and renamed; a line of `manifest.jsonl` in its folder gives
its size and SHA-256. Nothing is read that no line lists or that is not what its line says, and reading runs no code.
What is missing is damage: it is said, and nothing takes its place.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from anyformer.errors import InputError
from anyformer.faults import WriteError, writing
from anyformer.local_files import MAX_JSON, read_bytes
from anyformer.saving.atomic import PART, sync_file, sync_folder, write_whole

MANIFEST = "manifest.jsonl"
CHECKPOINT = re.compile(r"batch-\d{8,}-\w+\.ckpt")
"""The names of a run's own checkpoints: no others are gone on from, and no others are removed."""
SET_ASIDE = ".damaged"
"""What is added to the name of a checkpoint that is not what its line says."""


def describe_file(path: Path) -> dict[str, Any]:
    """The line of the manifest for a file."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"file": path.name, "size": path.stat().st_size, "sha256": digest}


def read_manifest(folder: Path) -> list[dict[str, Any]]:
    """The lines of a folder's manifest, oldest first; none where there is no manifest.

    Raises InputError for a line that is damaged, or names anything but a file beside the manifest.
    """
    path = folder / MANIFEST
    if not path.exists():
        return []
    if wrong := _no_file(path):
        raise InputError(f"{path} is damaged: {wrong}")
    lines: list[dict[str, Any]] = []
    for number, text in enumerate(read_bytes(path, MAX_JSON).splitlines(), 1):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            line = None
        if not _is_line(line) or any(line["file"] == other["file"] for other in lines):
            raise InputError(
                f"{path} is damaged: line {number} must hold the name of a file beside it, its size and its SHA-256, "
                "and each file once; copy the folder anew"
            )
        lines.append(line)
    return lines


def _is_line(line: Any) -> bool:
    if not isinstance(line, dict) or line.keys() != {"file", "size", "sha256"}:
        return False
    name, size, digest = line["file"], line["size"], line["sha256"]
    is_bare = isinstance(name, str) and re.fullmatch(r"[^/\\\0]+", name) and name not in (".", "..", MANIFEST)
    is_digest = isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest)
    return bool(is_bare and is_digest and type(size) is int and size >= 0)


def write_manifest(folder: Path, lines: list[dict[str, Any]]) -> None:
    write_whole(folder / MANIFEST, "".join(json.dumps(line) + "\n" for line in lines))


def add_file(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file whole and list it last.

    Its line goes before its name: a file that bears its name is always listed, and where a kill comes between the two,
    `newest` gives it its name.
    """

    def enter(part: Path) -> None:
        others = [line for line in read_manifest(path.parent) if line["file"] != path.name]
        write_manifest(path.parent, [*others, describe_file(part) | {"file": path.name}])

    write_whole(path, write, enter)


def remove_file(path: Path) -> None:
    """Remove a file, and its line after it, where it has one."""
    path.unlink(missing_ok=True)
    lines = read_manifest(path.parent)
    if len(others := [line for line in lines if line["file"] != path.name]) < len(lines):
        write_manifest(path.parent, others)


def listed(folder: Path, name: str) -> Path:
    """The path of a file of a folder, once it is known to be what its line says.

    Raises InputError where it is not listed or is damaged.
    """
    for line in read_manifest(folder):
        if line["file"] == name:
            if wrong := damage(folder, line):
                raise InputError(f"{folder / name} is damaged ({wrong}); train again, or copy the folder anew")
            return folder / name
    raise InputError(
        f"{folder / MANIFEST} is damaged: it has no line of {name}, which nothing else vouches for; train again, or "
        "copy the folder anew"
    )


def damage(folder: Path, line: dict[str, Any]) -> str | None:
    """What is wrong with the file of a line of the manifest; None if nothing is."""
    path = folder / line["file"]
    if wrong := _no_file(path):
        return wrong
    size = path.stat().st_size
    if size != line["size"]:
        return f"it has {size} of {line['size']} bytes"
    if describe_file(path)["sha256"] != line["sha256"]:
        return "its SHA-256 is not the one it was saved with"
    return None


def _no_file(path: Path) -> str | None:
    """Why a path is no file of its folder, without a look into it; None if it is one."""
    if path.is_symlink() and path.resolve().parent != path.parent.resolve():
        return "it is a link that leads out of its folder"
    if path.is_file():
        return None
    return "it is no file" if path.exists() else "it is missing"


def has_checkpoints(folder: Path) -> bool:
    """Whether a run has saved any, whatever has become of them."""
    manifest = folder / MANIFEST
    return bool(_own(folder)) or (manifest.is_file() and manifest.stat().st_size > 0)


def begin_checkpoints(folder: Path) -> None:
    """Make the folder of a run's checkpoints, with a manifest that lists none yet: so that a lost one is seen."""
    folder.mkdir(exist_ok=True)
    write_manifest(folder, [])


def newest(folder: Path, say: Callable[[str], None], mends: bool = True) -> Path | None:
    """The newest checkpoint that is as it was saved; None if none has been saved yet.

    Newer ones that are damaged are set aside, and lose their lines in the manifest, so that they count no more among
    the newest to keep.
    say: is told of each of them. mends: whether the folder is changed; of several processes one does.
    Raises InputError if the manifest or a line of it is lost, or if there are checkpoints and all are damaged.
    """
    if not (folder / MANIFEST).exists():
        raise InputError(f"{folder / MANIFEST} is missing: the run's checkpoints are lost; {_WAY_OUT}")
    lines = read_manifest(folder)
    own = [line for line in lines if CHECKPOINT.fullmatch(line["file"])]
    if lost := sorted(_own(folder) - {line["file"] for line in own}):
        raise InputError(
            f"{folder / MANIFEST} is damaged: it has no line of {', '.join(lost)}, which nothing else vouches for; "
            f"{_WAY_OUT}, or remove the file to go on without it"
        )
    found: list[tuple[dict[str, Any], str]] = []
    for line in reversed(own):
        wrong = damage(folder, line)
        if wrong is not None and _finish(folder, line):
            wrong = None
        if wrong is None:
            for other, reason in found:
                say(f"{folder / other['file']} is damaged ({reason}); going on from {line['file']}, the one before")
            if mends:
                _set_aside(folder, lines, [other for other, _ in found])
            return folder / line["file"]
        found.append((line, wrong))
    if found:
        damaged = "; ".join(f"{folder / line['file']} is damaged ({wrong})" for line, wrong in found)
        raise InputError(f"no checkpoint can be used: {damaged}; {_WAY_OUT}")
    return None


_WAY_OUT = "copy the run anew, or train again with another --run_dir"


def _own(folder: Path) -> set[str]:
    """The names of a run's own checkpoints that are in a folder."""
    return {name for name in os.listdir(folder) if CHECKPOINT.fullmatch(name)} if folder.is_dir() else set()


def _finish(folder: Path, line: dict[str, Any]) -> bool:
    """Give a file its name whose save was killed when all but that was done; whether it was so."""
    part = line["file"] + PART
    if damage(folder, line | {"file": part}) is None:
        # Another process of the run may have done it just now.
        with suppress(FileNotFoundError):
            os.replace(folder / part, folder / line["file"])
    return damage(folder, line) is None


def _set_aside(folder: Path, lines: Sequence[dict[str, Any]], damaged: Sequence[dict[str, Any]]) -> None:
    """Take damaged checkpoints out of the manifest. They are kept: it may be their line that is wrong."""
    for line in damaged:
        if (path := folder / line["file"]).exists():
            os.replace(path, path.with_name(path.name + SET_ASIDE))
    if damaged:
        write_manifest(folder, [line for line in lines if line not in damaged])


def keep_newest(folder: Path, n: int) -> None:
    """Remove the run's own checkpoints but the newest n, and what broken saves of them have left."""
    lines = read_manifest(folder)
    old = [line for line in lines if CHECKPOINT.fullmatch(line["file"])][:-n]
    with writing(folder):
        # The lines go last: what bears the name of a checkpoint is always listed.
        for line in old:
            path = folder / line["file"]
            if path.is_dir():
                os.replace(path, path.with_name(path.name + SET_ASIDE))
            else:
                path.unlink(missing_ok=True)
        if old:
            write_manifest(folder, [line for line in lines if line not in old])
        for path in folder.iterdir():
            name = path.name.removesuffix(PART)
            if path.name != name and (CHECKPOINT.fullmatch(name) or name == MANIFEST):
                path.unlink()


def replace_folder(folder: Path, write: Callable[[Path], Any]) -> None:
    """Write a folder of files with their manifest, so that `find_folder` gives the old one or the new one, whole.

    Raises WriteError where the system does not let it.
    """
    part, old = (folder.with_name(folder.name + ending) for ending in (PART, ".old"))
    shutil.rmtree(part, ignore_errors=True)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
    try:
        with writing(folder):
            part.mkdir(parents=True)
            write(part)
            files = sorted(path for path in part.iterdir() if path.name != MANIFEST)
            for path in files:
                sync_file(path)
            write_manifest(part, [describe_file(path) for path in files])
            if folder.exists():
                os.replace(folder, old)
            os.replace(part, folder)
            sync_folder(folder.parent)
    except WriteError:
        # Where there is no room, what is half written would keep it.
        shutil.rmtree(part, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def find_folder(folder: Path) -> Path | None:
    """The folder that `replace_folder` wrote; where it was killed between two renames, the one set aside.

    None where there is none, or it has no manifest.
    """
    # The one set aside is older: it does not take the place of one that has lost its manifest.
    candidate = folder if folder.exists() else folder.with_name(folder.name + ".old")
    return candidate if (candidate / MANIFEST).is_file() else None
