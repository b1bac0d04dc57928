"""Experts in the place of MLPs: the layer, and how evenly tokens are spread over them."""

from anyformer.model.experts.balance import Load, balance_loss, expert_layers, recording
from anyformer.model.experts.experts import Experts, Routed

__all__ = ["Experts", "Load", "Routed", "balance_loss", "expert_layers", "recording"]
