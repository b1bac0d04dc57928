"""Decision transformers: learn to act from recorded episodes."""

from anyformer.tasks.decide.actor import PlayConfig, Policy
from anyformer.tasks.decide.collect import Collected, collect
from anyformer.tasks.decide.decide import Decide

__all__ = ["Collected", "Decide", "PlayConfig", "Policy", "collect"]
