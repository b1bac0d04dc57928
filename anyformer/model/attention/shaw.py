"""Relative positions as vectors on keys and values (Shaw et al. 2018, "Self-Attention with Relative Position
Representations")."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyformer.model.config import TransformerConfig


class DistanceVectors(nn.Module):
    """The vectors of a layer, one for each clipped distance, shared by its heads (Shaw et al. 2018, 3.2 and 3.3).

    No tensor is of pairs x d_head: queries meet the 2 max_distance + 1 vectors, and pairs take their product (3.3).
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        shape = 2 * config.relative.max_distance + 1, config.head_width
        for name in ("keys", "values"):
            drawn = torch.empty(shape).normal_(std=config.init_std) if name in config.relative.on else None
            self.register_parameter(name, None if drawn is None else nn.Parameter(drawn))

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        distance: Tensor,
        mask: Tensor | None = None,
        dropout_p: float = 0.0,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """As `Sight.attend`.

        distance: as in `Sight`; one number more than there are vectors is of none. mask: as in `Sight`.
        """
        distance = distance[:, None].expand(len(q), q.shape[1], -1, -1)
        scale = q.shape[-1] ** -0.5 if scale is None else scale
        if self.keys is not None:
            # The last column, of pairs without a distance, is 0.
            met = F.pad(F.linear(q, self.keys) * scale, (0, 1))
            mask = _added(met.gather(3, distance).to(q.dtype), mask)
        if self.values is None:
            return F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=dropout_p, scale=scale, enable_gqa=enable_gqa
            )
        if enable_gqa:
            k, v = (part.repeat_interleave(q.shape[1] // k.shape[1], 1) for part in (k, v))
        weights = F.dropout(_weights(q @ k.transpose(2, 3) * scale, mask), dropout_p).to(v.dtype)
        # Of each query the weight that all keys of a distance have together.
        together = weights.new_zeros(*weights.shape[:3], len(self.values) + 1).scatter_add(3, distance, weights)
        return weights @ v + F.linear(together[..., :-1], self.values.T).to(v.dtype)


def make_vectors(config: TransformerConfig) -> DistanceVectors | None:
    """Those of a layer, where a config asks for them."""
    return DistanceVectors(config) if config.relative is not None and config.relative.kind == "shaw" else None


def _added(bias: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return bias
    return bias.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else bias + mask


def _weights(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Their softmax; 0 for a query that sees nothing."""
    if mask is None:
        return logits.softmax(-1)
    logits = _added(logits, mask)
    hidden = logits == -torch.inf
    return logits.masked_fill(hidden.all(-1, keepdim=True), 0.0).softmax(-1).masked_fill(hidden, 0.0)
