"""Classification."""

from anyformer.tasks.classify.classify import Classify

__all__ = ["Classify"]
