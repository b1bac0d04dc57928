"""How evenly a model's tokens are spread over its experts: noted down while batches run, and as a loss.

The loss of a layer is that of the Switch Transformer (Fedus et al. 2022, equations 4 to 6): n times the sum over its
experts of f P, where f is the share of the tokens that went to an expert, and P its mean probability. It is 1 where all
experts get as much, however many are active.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from anyformer.model.experts.experts import Experts, Routed


def expert_layers(module: nn.Module) -> dict[str, Experts]:
    """The layers within a module that are experts, by name."""
    return {name: part for name, part in module.named_modules() if isinstance(part, Experts)}


@contextmanager
def recording(layers: Mapping[str, Experts]) -> Iterator[dict[str, list[Routed]]]:
    """Note down what the routers say meanwhile: by the layer, one entry for each forward pass."""
    found: dict[str, list[Routed]] = {name: [] for name in layers}
    for name, layer in layers.items():
        layer.record.passes = found[name]
    try:
        yield found
    finally:
        # Later ones, as of activations that are computed again, don't count.
        for layer in layers.values():
            layer.record.passes = None


class Load(NamedTuple):
    """How a batch was spread over the experts."""

    shares: dict[str, Tensor]
    """By the layer, (n,) float32, the share of its tokens that went to each expert; 1 in all, or 0 without tokens."""
    balance: Tensor
    """(), the mean of the layers' losses, without their factors."""

    @property
    def extremes(self) -> tuple[Tensor, Tensor]:
        """The least and the largest share of an expert in any layer."""
        return torch.cat([*self.shares.values()]).aminmax()


def balance_loss(
    layers: Mapping[str, Experts],
    routed: Mapping[str, Sequence[Routed]],
    n_targets: Tensor,
    add_up: Callable[[Tensor], Tensor] = lambda numbers: numbers,
) -> tuple[Tensor, Load]:
    """The loss of a batch as a sum over its targets, like any other: () float32.

    routed: what the routers of the layers said of this process's part of the batch.
    n_targets: of this process, (). add_up: gives the sums over all processes of some numbers.

    Added up over the processes and divided by the targets of all, it is that of the whole batch: each layer's loss
    times its factor, and their sum.
    """
    sizes = [layer.config.n for layer in layers.values()]
    counts, own = ([], [])
    for name, n in zip(layers, sizes, strict=True):
        nothing = n_targets.new_zeros(n, dtype=torch.float32)
        counts.append(sum((each.counts.float() for each in routed[name]), nothing))
        own.append(sum((each.probability for each in routed[name]), nothing))
    numbers = torch.cat([*counts, *own, n_targets.float().view(1)])
    *parts, n_all = add_up(numbers.detach()).split([*sizes, *sizes, 1])
    loss, values, shares = nothing.new_zeros(()), [], {}
    for (name, layer), count, said, mine in zip(
        layers.items(), parts[: len(sizes)], parts[len(sizes) :], own, strict=True
    ):
        shares[name] = count / count.sum().clamp(min=1)
        of_a_token = layer.config.n * layer.config.active / count.sum().clamp(min=1)
        values.append(of_a_token * (shares[name] * said).sum())
        if layer.config.balance:
            loss = loss + layer.config.balance * n_all[0] * of_a_token * (shares[name] * mine).sum()
    return loss, Load(shares, torch.stack(values).mean())
