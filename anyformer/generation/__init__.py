"""Generation of token ids: sampling, beams and CTC, with cached keys and values."""

from anyformer.generation.config import GenerationConfig
from anyformer.generation.continuation import Continuation, Step
from anyformer.generation.generator import Generator

__all__ = ["Continuation", "GenerationConfig", "Generator", "Step"]
