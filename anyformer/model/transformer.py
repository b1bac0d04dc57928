"""The one shared transformer: a stack of blocks over rows of vectors. It knows sizes, not what the vectors were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from anyformer.model.attention.attention import Attention
from anyformer.model.attention.cache import Cache
from anyformer.model.attention.patterns import wanted_by
from anyformer.model.attention.rotary import Rotation
from anyformer.model.attention.sight import Sight
from anyformer.model.attention.visibility import RULE, AnySight, Pattern, choose_pattern
from anyformer.model.config import TransformerConfig
from anyformer.model.experts.experts import Experts
from anyformer.model.layers import MLP, dropout, make_norm, take


class Context(NamedTuple):
    """What all blocks are given beside the vectors, worked out once a batch."""

    sights: tuple[AnySight, ...]
    """What self-attention sees, under each of the stack's patterns."""
    rotation: Rotation | None = None
    """Cosines and sines of rotary positions."""
    memory: Tensor | None = None
    """(b, m, d), the output of the encoder for cross-attention; None where the cache holds its keys and values."""
    memory_sight: Sight = Sight()
    """What cross-attention sees."""
    cache: Cache | None = None
    """Keys and values of earlier places."""
    adapts: Tensor | None = None
    """(b, n) boolean, where adapters act; None: everywhere."""
    memory_adapts: Tensor | None = None
    """(b, m), likewise, of the memory."""
    segment: Tensor | None = None
    """(b, n), for stochastic depth by sample; None: one sample a row."""
    n_samples: int = 1
    """Samples of the batch, those without tokens too: no segment is higher."""
    real: Tensor | None = None
    """(b, n) boolean, which places hold a token, for experts; None: all."""

    def at(self, place: Tensor, n: int) -> Context:
        """The same for some places of every row alone, as queries.

        place: (b, r) int64, places in the row. n: places of a row.
        """
        return self._replace(
            sights=tuple(sight.at(place, n) for sight in self.sights),
            rotation=None if self.rotation is None else tuple(take(part, place, 2) for part in self.rotation),
            memory_sight=self.memory_sight.at(place, n),
            adapts=None if self.adapts is None else self.adapts.gather(1, place),
            segment=None if self.segment is None else self.segment.gather(1, place),
            real=None if self.real is None else self.real.gather(1, place),
        )


class Residual(nn.Module):
    """What stands around every sublayer: norm, dropout, layer scale, stochastic depth and the sum."""

    def __init__(self, config: TransformerConfig, drop_path: float) -> None:
        super().__init__()
        self.is_pre = config.norm_position == "pre"
        self.dropout, self.drop_path = config.dropout, drop_path
        self.norm = make_norm(config.norm, config.d_model, config)
        scale = config.layer_scale
        self.scale = None if scale is None else nn.Parameter(torch.full((config.d_model,), scale))

    def before(self, x: Tensor) -> Tensor:
        """What the sublayer is given."""
        return self.norm(x) if self.is_pre else x

    def after(self, x: Tensor, update: Tensor, context: Context) -> Tensor:
        """x with the sublayer's update, each (b, n, d)."""
        if self.training and self.dropout:
            update = dropout(update, self.dropout)
        if self.scale is not None:
            update = update * self.scale
        if self.training and self.drop_path:
            update = update * self._kept(x, context)
        return x + update if self.is_pre else self.norm(x + update)

    def _kept(self, x: Tensor, context: Context) -> Tensor:
        """Drawn for each sample: 0, or what keeps the expectation. (b, n or 1, 1)"""
        width = 1 if context.segment is None else context.n_samples + 1
        kept = x.new_empty(x.shape[0], width).bernoulli_(1 - self.drop_path)
        if context.segment is not None:
            kept = kept.gather(1, context.segment)
        return kept[:, :, None] / (1 - self.drop_path)


class Block(nn.Module):
    """Self-attention, cross-attention where there is a memory, and the MLP or experts in its place."""

    def __init__(
        self,
        config: TransformerConfig,
        drop_path: float = 0.0,
        has_memory: bool = False,
        pattern: int = 0,
        has_experts: bool = False,
        sees: Pattern = RULE,
    ) -> None:
        """pattern: the number of its sight among those of the context. sees: that pattern."""
        super().__init__()
        self.pattern = pattern
        self.attention, self.attention_residual = Attention(config, pattern=sees), Residual(config, drop_path)
        if has_memory:
            self.cross, self.cross_residual = Attention(config, crosses=True), Residual(config, drop_path)
        self.mlp = Experts(config) if has_experts else MLP(config)
        self.mlp_residual = Residual(config, drop_path)

    def forward(self, x: Tensor, context: Context, layer: int, read: Tensor | None = None) -> Tensor:
        """x: (b, n, d). Returns (b, n, d); or with `read`, places of every row, (b, r), only these, (b, r, d)."""
        cache, before = context.cache, self.attention_residual.before(x)
        track = None if cache is None else cache.tracks[self.pattern]
        if read is None:
            sight, adapts = context.sights[self.pattern], context.adapts
            update = self.attention(before, sight, context.rotation, track, layer, adapts=adapts)
        else:
            whole, n = context, x.shape[1]
            x, context, asking = take(x, read, 1), context.at(read, n), take(before, read, 1)
            update = self.attention(
                before,
                context.sights[self.pattern],
                whole.rotation,
                track,
                layer,
                asking,
                context.rotation,
                whole.adapts,
                context.adapts,
            )
        x = self.attention_residual.after(x, update, context)
        if hasattr(self, "cross"):
            before = self.cross_residual.before(x)
            update = self.cross.cross(
                before, context.memory, context.memory_sight, cache, layer, context.adapts, context.memory_adapts
            )
            x = self.cross_residual.after(x, update, context)
        before = self.mlp_residual.before(x)
        if isinstance(self.mlp, Experts):
            update = self.mlp(before, context.adapts, context.real)
        else:
            update = self.mlp(before, context.adapts)
        return self.mlp_residual.after(x, update, context)


class Transformer(nn.Module):
    """A stack of blocks, with norms before and after it where the config asks for them."""

    def __init__(self, config: TransformerConfig, has_memory: bool = False, fields: Sequence[str] = ()) -> None:
        """has_memory: whether each block also attends to the memory of an encoder. fields: names of all, for patterns
        that name some."""
        super().__init__()
        self.config = config
        last = max(config.depth - 1, 1)
        chosen = [choose_pattern(config, i, fields) for i in range(config.depth)]
        self.wanted = wanted_by(config)
        """What its attention asks of places."""
        self.patterns = tuple(dict.fromkeys(chosen))
        """Of self-attention, each once."""
        self.blocks = nn.ModuleList(
            Block(
                config,
                config.drop_path * i / last,
                has_memory,
                self.patterns.index(pattern),
                config.has_experts(i),
                pattern,
            )
            for i, pattern in enumerate(chosen)
        )
        has_final = config.norm_position == "pre" if config.final_norm is None else config.final_norm
        self.first_norm = make_norm(config.norm, config.d_model, config) if config.first_norm else nn.Identity()
        self.final_norm = make_norm(config.norm, config.d_model, config) if has_final else nn.Identity()
        self.apply(self._initialize)
        if config.zero_output:
            for name, parameter in self.named_parameters():
                if name.endswith((".o.weight", ".down.weight")):
                    nn.init.zeros_(parameter)

    def _initialize(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=self.config.init_std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, context: Context, read: Tensor | None = None, n_blocks: int | None = None) -> Tensor:
        """x: (b, n, d), 0 at padding. Returns (b, n, d).

        read: (b, r) int64, the places of every row that are wanted; the last block works out only these, from the keys
            of all, and (b, r, d) is returned.
        n_blocks: how many of the first blocks are run; where it is not all of them, the final norm is left out.
        """
        x = self.first_norm(x)
        if n_blocks is not None and n_blocks < len(self.blocks):
            for layer, block in enumerate(self.blocks[:n_blocks]):
                x = block(x, context, layer)
            return x
        for layer, block in enumerate(self.blocks):
            wanted = read if layer == len(self.blocks) - 1 else None
            if self.config.checkpointing and self.training and torch.is_grad_enabled():
                x = checkpoint(block, x, context, layer, wanted, use_reentrant=False)
            else:
                x = block(x, context, layer, wanted)
        if read is not None and not self.blocks:
            x = take(x, read, 1)
        return self.final_norm(x)
