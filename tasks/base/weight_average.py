"""The moving average of weights (EMA), which is evaluated and kept in the place of the weights themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """The moving average of a module's parameters; empty until `begin`, and then it changes nothing."""

    def __init__(self) -> None:
        self.weights: dict[str, Tensor] = {}
        """By the name of the parameter."""
        self.n_steps = 0

    def begin(self, module: nn.Module, device: torch.device) -> None:
        """Start from the parameters as they are, or go on from what a checkpoint held."""
        start = self.weights or {name: p.detach().clone() for name, p in module.named_parameters()}
        self.weights = {name: value.to(device) for name, value in start.items()}

    def update(self, module: nn.Module, decay: float) -> None:
        """Take in the parameters after a step of the optimiser."""
        if not self.weights:
            return
        # Early weights are far from the later ones, so the average starts short (as TensorFlow's does).
        self.n_steps += 1
        decay = min(decay, self.n_steps / (9 + self.n_steps))
        parameters = dict(module.named_parameters())
        kept = list(self.weights.values())
        torch._foreach_lerp_(kept, [parameters[name].detach() for name in self.weights], 1 - decay)

    @torch.no_grad()
    def swap(self, module: nn.Module) -> None:
        """Put the average in the place of the parameters, or back."""
        parameters = dict(module.named_parameters())
        for name, average in self.weights.items():
            held = parameters[name].detach().clone()
            parameters[name].copy_(average)
            average.copy_(held)

    def replace(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights by name, with the average of those that have one."""
        return {name: self.weights.get(name, value) for name, value in weights.items()}

    def forget(self) -> None:
        """Drop the average, as the parameters are others now."""
        self.weights = {}

    def save(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["average"] = dict(self.weights)
        checkpoint["averaged_steps"] = self.n_steps

    def load(self, checkpoint: Mapping[str, Any]) -> None:
        self.weights = checkpoint.get("average", {})
        self.n_steps = checkpoint.get("averaged_steps", 0)
