"""Files that are whole or absent, and the checkpoints of a run made of them.

A file is written beside its destination, flushed, synced and renamed; then a line of `manifest.jsonl` in its folder
gives its size and SHA-256. Nothing is read that is not what its line says, and reading runs no code.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from anyformer.errors import InputError, WriteError, writing
from anyformer.saving.atomic import PART, sync_file, sync_folder, write_whole

MANIFEST = "manifest.jsonl"


def describe(path: Path) -> dict[str, Any]:
    """The line of the manifest for a file."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"file": path.name, "size": path.stat().st_size, "sha256": digest}


def read_manifest(folder: Path) -> list[dict[str, Any]]:
    """The lines of a folder's manifest, oldest first; none where there is no manifest."""
    try:
        lines = (folder / MANIFEST).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    try:
        return [json.loads(line) for line in lines]
    except ValueError:
        raise InputError(f"{folder / MANIFEST} is damaged: it must hold one JSON object a line") from None


def write_manifest(folder: Path, lines: list[dict[str, Any]]) -> None:
    write_whole(folder / MANIFEST, "".join(json.dumps(line) + "\n" for line in lines))


def damage(folder: Path, line: dict[str, Any]) -> str | None:
    """What is wrong with the file of a line of the manifest; None if nothing is."""
    path = folder / line["file"]
    if not path.is_file():
        return "it is missing"
    size = path.stat().st_size
    if size != line["size"]:
        return f"it has {size} of {line['size']} bytes"
    if describe(path)["sha256"] != line["sha256"]:
        return "its SHA-256 is not the one it was saved with"
    return None


def newest(folder: Path, say: Callable[[str], None], mends: bool = True) -> Path | None:
    """The newest checkpoint that is as it was saved; None if there has never been one.

    Newer ones that are damaged lose their lines in the manifest, so that they count no more among the newest to keep.
    say: is told of each of them. mends: whether the manifest is written; of several processes one does.
    Raises InputError if there are checkpoints and all are damaged.
    """
    lines = read_manifest(folder)
    found = []
    for i, line in reversed(list(enumerate(lines))):
        wrong = damage(folder, line)
        if wrong is None:
            for earlier in found:
                say(f"{earlier}; going on from {line['file']}, the one before")
            if found and mends:
                write_manifest(folder, lines[: i + 1])
            return folder / line["file"]
        found.append(f"{folder / line['file']} is damaged ({wrong})")
    if found:
        raise InputError(f"no checkpoint can be used: {'; '.join(found)}; train again with another --run_dir")
    return None


def keep_newest(folder: Path, n: int) -> None:
    """Remove all checkpoints but the newest n, and what broken saves have left."""
    lines = read_manifest(folder)
    if len(lines) > n:
        write_manifest(folder, lines[-n:])
    kept = {MANIFEST, *(line["file"] for line in lines[-n:])}
    with writing(folder):
        for path in folder.iterdir():
            if path.name not in kept:
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
            write_manifest(part, [describe(path) for path in files])
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
    """The folder that `replace_folder` wrote; where it was killed between two renames, the one set aside."""
    for ending in ("", ".old"):
        candidate = folder.with_name(folder.name + ending)
        if (candidate / MANIFEST).is_file():
            return candidate
    return None
