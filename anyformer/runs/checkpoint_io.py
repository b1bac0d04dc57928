"""How Lightning saves and loads checkpoints here: whole or absent, listed with their hash, without running code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO

from anyformer.errors import InputError, writing
from anyformer.saving.atomic import write_counted, write_whole
from anyformer.saving.manifest import damage, describe, read_manifest, write_manifest


class Checkpoints(CheckpointIO):
    """How Lightning saves and loads checkpoints here: whole or absent, listed with their hash, without running code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        with writing(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        # The line goes first and comes back last, so that no line ever speaks of a file that is being replaced.
        others = [line for line in read_manifest(path.parent) if line["file"] != path.name]
        if path.exists():
            write_manifest(path.parent, others)
        write_whole(path, lambda part: write_counted(part, lambda file: torch.save(checkpoint, file)))
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
