"""Fields as columns of numbers, by the class of their tokenizer."""

from anyformer.baselines.features.features import Features, Vectors
from anyformer.baselines.features.table import FEATURES, features_of

__all__ = ["FEATURES", "Features", "Vectors", "features_of"]
