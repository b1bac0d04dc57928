"""Files that are whole or absent, and the checkpoints of a run made of them.

A file is written beside its destination, flushed, synced and renamed; then a line of `manifest.jsonl` in its folder
gives its size and SHA-256. Nothing is read that is not what its line says, and reading runs no code.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.utilities import rank_zero_only

from anyformer.errors import InputError
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


def newest(folder: Path, say: Callable[[str], None]) -> Path | None:
    """The newest checkpoint that is as it was saved; None if there has never been one.

    Newer ones that are damaged lose their lines in the manifest, so that they count no more among the newest to keep.
    say: is told of each of them.
    Raises InputError if there are checkpoints and all are damaged.
    """
    lines = read_manifest(folder)
    found = []
    for i, line in reversed(list(enumerate(lines))):
        wrong = damage(folder, line)
        if wrong is None:
            for earlier in found:
                say(f"{earlier}; going on from {line['file']}, the one before")
            if found and rank_zero_only.rank == 0:
                write_manifest(folder, lines[: i + 1])
            return folder / line["file"]
        found.append(f"{folder / line['file']} is damaged ({wrong})")
    if found:
        raise InputError(f"no checkpoint can be used: {'; '.join(found)}; train again with another --run_dir")
    return None


class Checkpoints(CheckpointIO):
    """How Lightning saves and loads checkpoints here: whole or absent, listed with their hash, without running code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        # The line goes first and comes back last, so that no line ever speaks of a file that is being replaced.
        others = [line for line in read_manifest(path.parent) if line["file"] != path.name]
        if path.exists():
            write_manifest(path.parent, others)
        write_whole(path, lambda part: torch.save(checkpoint, part))
        write_manifest(path.parent, [*others, describe(path)])

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Raises InputError if the file is not the one that was saved, or would run code when loaded."""
        path = Path(path)
        for line in read_manifest(path.parent):
            if line["file"] == path.name and (wrong := damage(path.parent, line)):
                raise InputError(f"{path} is damaged ({wrong})")
        try:
            return torch.load(path, map_location=map_location, weights_only=True)
        except pickle.UnpicklingError as error:
            raise InputError(
                f"{path} is refused: it holds more than tensors and plain values, and loading it would run code "
                f"({_global_named(error)}); use a checkpoint that anyformer saved"
            ) from None

    def remove_checkpoint(self, path: str | Path) -> None:
        path = Path(path)
        write_manifest(path.parent, [line for line in read_manifest(path.parent) if line["file"] != path.name])
        path.unlink(missing_ok=True)


def _global_named(error: Exception) -> str:
    """The name that a refused pickle asks for, out of torch's long explanation."""
    words = str(error).replace("`", " ").split()
    return next((words[i + 1].strip(".,") for i, word in enumerate(words[:-1]) if word == "GLOBAL"), "not a checkpoint")


def keep_newest(folder: Path, n: int) -> None:
    """Remove all checkpoints but the newest n, and what broken saves have left."""
    lines = read_manifest(folder)
    if len(lines) > n:
        write_manifest(folder, lines[-n:])
    kept = {MANIFEST, *(line["file"] for line in lines[-n:])}
    for path in folder.iterdir():
        if path.name not in kept:
            path.unlink()


def replace_folder(folder: Path, write: Callable[[Path], Any]) -> None:
    """Write a folder of files with their manifest, so that `find_folder` gives the old one or the new one, whole."""
    part, old = (folder.with_name(folder.name + ending) for ending in (PART, ".old"))
    shutil.rmtree(part, ignore_errors=True)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
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
    shutil.rmtree(old, ignore_errors=True)


def find_folder(folder: Path) -> Path | None:
    """The folder that `replace_folder` wrote; where it was killed between two renames, the one set aside."""
    for ending in ("", ".old"):
        candidate = folder.with_name(folder.name + ending)
        if (candidate / MANIFEST).is_file():
            return candidate
    return None


def generators() -> dict[str, Any]:
    """The states of Python's, numpy's and torch's global generators, of plain values and tensors."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(words), gauss],
        "numpy": [kind, keys.tolist(), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_generators(state: dict[str, Any]) -> None:
    """Put the generators back to what `generators` returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
