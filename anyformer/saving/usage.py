"""What `predict` takes of a model, in a file beside its weights: said without making the model, and without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

USAGE = "usage.json"
"""Fields with what their files end in, and the dataclass of options with its values; of each task of a mixture. Folders
of before it was written have none."""


def read_usage(run: Path, member: str = "") -> dict[str, Any] | None:
    """Of the model of a run's folder, or of a folder of a model; None where it is not said, or not readable.

    member: of a mixture's tasks the one that is meant.
    """
    for place in (run / "model" / USAGE, run / USAGE):
        try:
            found = json.loads(place.read_text(encoding="utf-8"))
            return found["members"][member] if member else found
        except (OSError, ValueError, KeyError, TypeError):
            # What is wrong with a folder is said where the model is read.
            continue
    return None
