"""Simple models of the same records, beside a run's own figures."""

from anyformer.baselines.baseline import baseline
from anyformer.baselines.features.features import Features
from anyformer.baselines.features.table import FEATURES

__all__ = ["FEATURES", "Features", "baseline"]
