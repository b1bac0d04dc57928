"""Attention: who may attend to whom, its biases and rotations, and the cache of keys and values."""

from anyformer.model.attention.attention import Attention
from anyformer.model.attention.cache import Cache
from anyformer.model.attention.visibility import visible

__all__ = ["Attention", "Cache", "visible"]
