"""anyformer: chop it up and feed it in."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Anyformer": "model.anyformer",
    "Audio": "tokenizers.audio.audio",
    "Batch": "batch",
    "Classify": "tasks.classify.classify",
    "Decide": "tasks.decide.decide",
    "EmbeddingConfig": "model.embeddings",
    "Episodes": "tokenizers.episode.files",
    "ImagePatches": "tokenizers.image.patches",
    "InputError": "errors",
    "LanguageModel": "tasks.language.language",
    "Mixed": "tasks.mixture.data",
    "Mixture": "tasks.mixture.mixture",
    "Molecule": "tokenizers.molecule",
    "OptimizerConfig": "optim.optimizer",
    "Points": "tokenizers.points",
    "Predict": "tasks.predict.predict",
    "Records": "tasks.base.records",
    "Row": "tokenizers.row",
    "SequenceToSequence": "tasks.sequence.sequence",
    "Series": "tokenizers.series.series",
    "Table": "data.tables",
    "Task": "tasks.base.task",
    "Text": "tokenizers.text.text",
    "TokenSet": "tokens",
    "Tokenizer": "tokens",
    "TransformerConfig": "model.config",
    "Video": "tokenizers.video",
    "check_tokenizer": "testing.tokenizer",
    "fit": "runs.fit",
    "load": "saving.model_folder",
    "save": "saving.model_folder",
}
"""Where the names offered here live; importing the package alone imports none of them, nor torch."""

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'anyformer' has no attribute {name!r}")
    return getattr(import_module(f"anyformer.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
