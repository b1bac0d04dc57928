"""`anyformer explain`: why a model answers as it does."""

from anyformer.cli.explain.explain import explain_command

__all__ = ["explain_command"]
