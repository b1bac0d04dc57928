"""How a task's experts are used, where it has any: their loss in training, and how many tokens each was given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from anyformer.drawing.experts import draw_experts
from anyformer.model.experts.balance import balance_loss, expert_layers, recording
from anyformer.model.experts.experts import Experts, Routed

Reduce = Callable[[Tensor], Tensor]
"""Gives the sums over all processes of some numbers."""


class ExpertUse:
    """What the experts of a task were given, in the last batch of training or the last evaluation."""

    def __init__(self) -> None:
        self.layers: dict[str, Experts] = {}
        """By the name of the block."""
        self._trained: dict[str, Tensor] = {}
        self._evaluated: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor] = {}
        self._routed: dict[str, list[Routed]] = {}

    @property
    def shares(self) -> dict[str, Tensor]:
        """By the layer, (n,), the share of its tokens that went to each expert: of the last evaluation, or, where there
        was none, of the last batch of training."""
        return self._evaluated or self._trained

    def find(self, module: nn.Module) -> None:
        """Look for the experts of a task that is built."""
        named = expert_layers(module).items()
        self.layers = {name.removeprefix("model.").removesuffix(".mlp"): layer for name, layer in named}

    @contextmanager
    def training(self) -> Iterator[None]:
        """While the loss of a batch is worked out, which `loss` then adds to."""
        with recording(self.layers) as self._routed:
            yield

    def loss(self, n_targets: Tensor, add_up: Reduce) -> tuple[Tensor, dict[str, Tensor]]:
        """The balance loss of the batch, as a sum over its targets, and what is logged of it.

        Of several tasks only the layers count whose turn it was, which is the same in all processes.
        """
        layers = {name: layer for name, layer in self.layers.items() if self._routed[name]}
        if not layers:
            return n_targets.new_zeros(()), {}
        loss, load = balance_loss(layers, self._routed, n_targets, add_up)
        self._routed = {}
        self._trained |= load.shares
        least, most = load.extremes
        return loss, {"experts/balance": load.balance, "experts/least": least, "experts/most": most}

    def begin(self, module: nn.Module) -> None:
        """Begin an evaluation."""
        self.find(module)
        self._counts = {name: torch.zeros(layer.config.n, dtype=torch.int64) for name, layer in self.layers.items()}

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """While a batch is evaluated."""
        with recording(self.layers) as routed:
            yield
        for name, entries in routed.items():
            for entry in entries:
                self._counts[name] = self._counts[name].to(entry.counts.device) + entry.counts

    def end(self, add_up: Reduce) -> None:
        """End an evaluation, whose batches may be shared out over several processes."""
        if self.layers:
            every = add_up(torch.cat([*self._counts.values()])).split([len(part) for part in self._counts.values()])
            counts = {name: count.cpu() for name, count in zip(self._counts, every, strict=True)}
            # Those of a task that is not evaluated have none.
            self._evaluated = {name: count / count.sum() for name, count in counts.items() if count.any()}

    def draw(self, folder: Path) -> None:
        """Draw the shares into a run folder, where there are any."""
        if self.shares:
            draw_experts(self.shares, folder / "experts.png")
