"""anyformer: chop it up and feed it in."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Anyformer": "model",
    "Audio": "tokenizers.audio",
    "Batch": "tokens",
    "Classify": "tasks.classify",
    "Decide": "tasks.decide",
    "EmbeddingConfig": "embeddings",
    "Episodes": "tasks.episode_files",
    "ImagePatches": "tokenizers.image",
    "InputError": "errors",
    "LanguageModel": "tasks.language",
    "Mixed": "tasks.mixed",
    "Mixture": "tasks.mixture",
    "Molecule": "tokenizers.molecule",
    "OptimizerConfig": "tasks.optimization",
    "Points": "tokenizers.points",
    "Predict": "tasks.predict",
    "Records": "tasks.records",
    "Row": "tokenizers.table",
    "SequenceToSequence": "tasks.sequence",
    "Series": "tokenizers.series",
    "Table": "tables",
    "Task": "tasks.task",
    "Text": "tokenizers.text",
    "TokenSet": "tokens",
    "Tokenizer": "tokens",
    "TransformerConfig": "transformer",
    "Video": "tokenizers.video",
    "check_tokenizer": "testing",
    "fit": "runs",
    "load": "runs",
    "save": "runs",
}
"""Where the names offered here live; importing the package alone imports none of them, nor torch."""

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'anyformer' has no attribute {name!r}")
    return getattr(import_module(f"anyformer.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
