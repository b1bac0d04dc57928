"""What a run's records are known again by when it goes on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from anyformer.data.source import Source
from anyformer.saving.fingerprint import fingerprint
from anyformer.tokenizers.text.corpus import Documents


def data_fingerprints(task: Any, data: Any, place: str = "") -> dict[str, Any]:
    """The fingerprint of the records of training and validation, by where they stand in a config below `data`.

    Hashed are the columns that are learned to be predicted, and the text of a corpus.
    """
    if task.members:
        found: dict[str, Any] = {}
        for name, member in task.members.items():
            found |= data_fingerprints(member, data.parts[name], f"parts.{name}.")
        return found
    sources = getattr(data, "sources", {})
    own = {name: sources[name] for name in ("train", "validation") if name in sources}
    return {f"{place}{name}": _fingerprint(source, task.predicted) for name, source in own.items()}


def _fingerprint(source: Source, columns: Iterable[str]) -> dict[str, Any]:
    if isinstance(source, Documents):
        # Never a record, which may be larger than memory.
        return {"rows": len(source), "columns": ["text"], "sha256": {"text": source.sha256()}}
    return fingerprint(source, columns)
