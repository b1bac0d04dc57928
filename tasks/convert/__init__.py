"""Runs of checkpoints of other libraries, and checkpoints of runs."""

from anyformer.tasks.convert.huggingface import export, from_transformers, to_transformers

__all__ = ["export", "from_transformers", "to_transformers"]
