"""A mixture of experts: each token goes through a few of many MLPs, which a router chooses, and through shared ones."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyformer.model.config import TransformerConfig
from anyformer.model.layers import MLP
from anyformer.model.lora import LoraLinear, full_weight


class Routed(NamedTuple):
    """What the router of a layer said of the tokens of a forward pass."""

    counts: Tensor
    """(n,) int64, tokens that went to each expert."""
    probability: Tensor
    """(n,) float32, the sum over the tokens of the probability of each expert."""


class Record:
    """Where the forward passes of a layer are noted down, and of copies that share its weights."""

    def __init__(self) -> None:
        self.passes: list[Routed] | None = None
        """None while that is not wanted."""


class Experts(nn.Module):
    """What stands in the place of an MLP. No token is dropped, and nothing is computed for padding.

    The tokens are sorted by their experts, so that each expert is one MLP on the tokens that it is given, however many.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config, width = config.experts, config.expert_width
        self.router = nn.Linear(config.d_model, self.config.n, bias=False)
        self.experts = nn.ModuleList(MLP(config, width) for _ in range(self.config.n))
        # The sum of several MLPs is one, of their inner widths together.
        self.shared = MLP(config, self.config.shared * width) if self.config.shared else None
        self.record = Record()

    def forward(self, x: Tensor, adapts: Tensor | None = None, real: Tensor | None = None) -> Tensor:
        """
        x: (b, n, d).
        adapts: (b, n) boolean, where adapters act; everywhere when left out.
        real: (b, n) boolean, which places hold a token; all when left out.

        Returns (b, n, d), 0 where there is no token.
        """
        tokens, adapts = x.flatten(0, 1), None if adapts is None else adapts.flatten()
        if real is None:
            return self._mix(tokens, adapts).view_as(x)
        place = real.flatten().nonzero()[:, 0]
        mixed = self._mix(tokens.index_select(0, place), None if adapts is None else adapts[place])
        return mixed.new_zeros(tokens.shape).index_copy(0, place, mixed).view_as(x)

    def _mix(self, x: Tensor, adapts: Tensor | None) -> Tensor:
        """x: (t, d), tokens. adapts: (t,). Returns (t, d), the sum of what their experts make of them, by weight."""
        n_active = self.config.active
        probability = self._logits(x, adapts).softmax(1)
        weight, chosen = probability.topk(n_active, 1)
        if self.config.is_normalized:
            weight = weight / weight.sum(1, keepdim=True)
        chosen = chosen.flatten()
        counts = chosen.bincount(minlength=self.config.n)
        if self.record.passes is not None:
            self.record.passes.append(Routed(counts, probability.sum(0)))
        # Pairs of a token and one of its experts: first by the token, then in the order of the experts and back.
        order = chosen.argsort(stable=True)
        pairs = x[:, None].expand(-1, n_active, -1).flatten(0, 1).index_select(0, order)
        sizes = counts.tolist()
        acting = [None] * len(sizes) if adapts is None else adapts.repeat_interleave(n_active)[order].split(sizes)
        # Those without a token run too, so that no parameter is ever without a gradient.
        made = [each(*given) for each, *given in zip(self.experts, pairs.split(sizes), acting, strict=True)]
        made = torch.cat(made).index_select(0, order.argsort()).unflatten(0, (-1, n_active))
        mixed = (made * weight[:, :, None]).sum(1).to(x.dtype)
        return mixed if self.shared is None else mixed + self.shared(x, adapts)

    def _logits(self, x: Tensor, adapts: Tensor | None) -> Tensor:
        """Of the router, (t, n), in float32 at least: in half precision, tokens would go to other experts."""
        kind = torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(kind)
            logits = F.linear(x, full_weight(self.router).to(kind))
            if adapts is None or not isinstance(self.router, LoraLinear):
                return logits
            return torch.where(adapts[:, None], logits, F.linear(x, self.router.weight.to(kind)))
