"""Starting from a model that is there: opened, a config completed from it, its weights handed over."""

from anyformer.tasks.start.opening import describe_model, hand_over, open_model

__all__ = ["describe_model", "hand_over", "open_model"]
