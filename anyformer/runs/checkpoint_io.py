"""How Lightning saves and loads checkpoints here: whole or absent, listed with their hash, without running code."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO

from anyformer.errors import InputError
from anyformer.faults import writing
from anyformer.local_files import check_archive
from anyformer.model.by_field import with_weight_names
from anyformer.saving.atomic import write_counted
from anyformer.saving.manifest import add_file, listed, remove_file

WEIGHTS = ("state_dict", "average")
"""What a checkpoint holds of weights, by their names."""


class Checkpoints(CheckpointIO):
    """How Lightning saves and loads checkpoints here: whole or absent, listed with their hash, without running code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        with writing(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        add_file(path, lambda part: write_counted(part, lambda file: torch.save(checkpoint, file)))

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Raises InputError if the file is not listed, is not the one that was saved, or would run code when loaded."""
        path = listed(Path(path).parent, Path(path).name)
        try:
            check_archive(path)
            checkpoint = torch.load(path, map_location=map_location, weights_only=True)
            named = {part: with_weight_names(checkpoint[part]) for part in WEIGHTS if part in checkpoint}
            return checkpoint | named
        except pickle.UnpicklingError as error:
            raise InputError(
                f"{path} is refused: it holds more than tensors and plain values, and loading it would run code "
                f"({_global_named(error)}); use a checkpoint that anyformer saved"
            ) from None
        except InputError:
            raise
        except (zipfile.BadZipFile, AttributeError, EOFError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(f"{path} is no checkpoint that anyformer saved: {' '.join(str(error).split())}") from None

    def remove_checkpoint(self, path: str | Path) -> None:
        remove_file(Path(path))


def _global_named(error: Exception) -> str:
    """The name that a refused pickle asks for, out of torch's long explanation."""
    words = str(error).replace("`", " ").split()
    return next((words[i + 1].strip(".,") for i, word in enumerate(words[:-1]) if word == "GLOBAL"), "not a checkpoint")
