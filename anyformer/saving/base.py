"""The base of an adapter: the model whose weights it was trained on, known by its place and the SHA-256 of its weights.

A folder with an adapter holds what was trained alone; `base.json` beside it says to which weights that belongs.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from anyformer.errors import InputError
from anyformer.local_files import read_json
from anyformer.saving.manifest import describe_file, find_folder
from anyformer.saving.run_folder import find_run, split_run

BASE = "base.json"
WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Base:
    """The weights that an adapter was trained on."""

    path: str
    """Where they are, from the root: a run, a folder or a file; `RUN:TASK` is a task of a mixture."""
    sha256: str
    """Of the file of the weights; where they are several, of their digests one after another."""


def find_base(source: str | Path) -> Base:
    """The weights that a path names, as `init_from` does.

    Raises InputError where there are none, or they are an adapter themselves.
    """
    path, member = find_run(source)
    return Base(f"{path.absolute()}{member}", _digest(path))


def _digest(path: Path) -> str:
    if path.is_file():
        return describe_file(path)["sha256"]
    folder = find_folder(path / "model") or find_folder(path)
    if folder is not None and (folder / BASE).exists():
        raise InputError(
            f"{path} holds an adapter and no whole model; make one of it and its base first: anyformer merge {path} "
            "--output FOLDER"
        )
    files = sorted(path.glob("*.safetensors")) if folder is None else [folder / WEIGHTS]
    if not files or not files[0].is_file():
        raise InputError(f"{path} holds no weights: neither {WEIGHTS} nor another safetensors file is there")
    digests = [describe_file(file)["sha256"] for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def write_base(base: Base, folder: Path) -> None:
    """Write which base the adapter in a folder belongs to; found again too where both are moved together."""
    content = {"path": base.path, "relative": os.path.relpath(base.path, folder.absolute()), "sha256": base.sha256}
    (folder / BASE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def locate_base(folder: Path, given: str | Path | None = None) -> str | None:
    """Where the base of the adapter in a folder is; None where the folder holds a whole model.

    given: where it is now; as `base.json` says when left out.
    Raises InputError, with the name and both hashes, where it is not there or is not what it was; and for another task
    of the same mixture.
    """
    if not (folder / BASE).exists():
        if given is not None:
            raise InputError(f"base: {folder} holds a whole model, which needs no base beside it; leave it out")
        return None
    content = read_json(folder / BASE)
    if not all(isinstance(content.get(name), str) for name in ("path", "relative", "sha256")):
        raise InputError(f"{folder / BASE} is damaged: it must hold path, relative and sha256; copy the folder anew")
    wanted, member, reasons = content["sha256"], split_run(content["path"])[1], []
    places = [content["path"], os.path.normpath(folder / content["relative"])] if given is None else [str(given)]
    for place in dict.fromkeys(places):
        try:
            found = find_base(place)
        except InputError as error:
            reasons.append(str(error).partition("; looked for")[0])
            continue
        path, own = split_run(place)
        if found.sha256 != wanted:
            reasons.append(f"{place} has other weights, of SHA-256 {found.sha256[:16]}...")
        elif own != member:
            # The tasks of a mixture are in one file.
            reasons.append(f"{place} is not what it was trained on, {f'{path}:{member}' if member else path}")
        else:
            return place
    raise InputError(
        f"{folder} holds an adapter on {content['path']}, whose weights are of SHA-256 {wanted[:16]}...; "
        f"{'; '.join(reasons)}; say where the base is now by --base FOLDER, or load(..., base=FOLDER)"
    )
