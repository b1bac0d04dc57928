"""Explanations of the answers of a task."""

from anyformer.tasks.explain.explainer import Explainer

__all__ = ["Explainer"]
