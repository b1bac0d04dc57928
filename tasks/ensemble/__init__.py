"""Several models whose predictions are averaged."""

from anyformer.tasks.ensemble.ensemble import Ensemble

__all__ = ["Ensemble"]
