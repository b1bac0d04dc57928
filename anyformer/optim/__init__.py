"""The optimizer and its schedule."""

from anyformer.optim.muon import Muon
from anyformer.optim.optimizer import OptimizerConfig, make_optimizer

__all__ = ["Muon", "OptimizerConfig", "make_optimizer"]
