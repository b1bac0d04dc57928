"""The model: lifts and embeddings of token sets, the shared transformer, heads and losses."""

from anyformer.model.anyformer import Anyformer
from anyformer.model.config import ExpertsConfig, RelativeConfig, RotaryConfig, TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.heads import Head, HeadConfig
from anyformer.model.learned_tokens import LearnedTokens
from anyformer.model.lifts import Lookup, Projection
from anyformer.model.positions import PositionConfig
from anyformer.model.transformer import Transformer

__all__ = [
    "Anyformer",
    "EmbeddingConfig",
    "ExpertsConfig",
    "Head",
    "HeadConfig",
    "LearnedTokens",
    "Lookup",
    "PositionConfig",
    "Projection",
    "RelativeConfig",
    "RotaryConfig",
    "Transformer",
    "TransformerConfig",
]
