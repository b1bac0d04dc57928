"""Several tasks with one trunk."""

from anyformer.tasks.mixture.data import Mixed
from anyformer.tasks.mixture.mixture import Mixture

__all__ = ["Mixed", "Mixture"]
