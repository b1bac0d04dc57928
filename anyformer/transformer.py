"""The one shared transformer: a stack of blocks over rows of vectors. It knows sizes, not what the vectors were."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from anyformer.attention import Attention, Cache, NormName, Rotation, Sight, dropout, make_norm
from anyformer.errors import InputError

ActivationName = Literal["gelu", "gelu_tanh", "relu", "relu2", "silu"]
ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
    "silu": F.silu,
}


@dataclass(frozen=True)
class RotaryConfig:
    """Rotary positions (RoFormer, Su et al. 2021): queries and keys are turned by angles proportional to their
    position."""

    axes: tuple[str, ...]
    """Names of the axes; the pairs of features of a head are divided evenly among them. A field without an axis stands
    at 0."""
    base: float = 10_000.0
    """The slowest pair turns by about 1 / base a place."""

    def __post_init__(self) -> None:
        if isinstance(self.axes, list):
            object.__setattr__(self, "axes", tuple(self.axes))
        if not self.axes:
            raise InputError("rotary.axes must name at least one axis, got none")


@dataclass(frozen=True)
class RelativeConfig:
    """Biases on the logits of self-attention by the distance of two tokens on an axis, shared by all layers; none
    between tokens of which one has no such axis."""

    kind: Literal["alibi", "t5"]
    """alibi: the distance times a fixed slope per head (Press et al. 2022). t5: learned, in buckets that widen with
    the distance (Raffel et al. 2020, 2.1)."""
    axis: str
    """Name of the axis."""
    n_buckets: int = 32
    """Of t5."""
    max_distance: int = 128
    """Of t5: all distances beyond share the last bucket."""
    bidirectional: bool = True
    """Of t5: whether keys before and behind their query have buckets apart, each side half of them; a causal stack has
    no use for the second half."""

    def __post_init__(self) -> None:
        if self.kind != "t5":
            return
        least = 4 if self.bidirectional else 2
        if self.n_buckets < least or self.n_buckets % 2:
            raise InputError(f"relative.n_buckets must be even and at least {least}, got {self.n_buckets}")
        n_exact = self.n_buckets // least
        if self.max_distance <= n_exact:
            raise InputError(
                f"relative.max_distance must be above the {n_exact} distances that have a bucket of their own, "
                f"got {self.max_distance}"
            )


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes and choices of the shared transformer."""

    d_model: int = 256
    """Width of every token vector."""
    depth: int = 6
    """Number of blocks."""
    n_heads: int = 8
    """Attention heads."""
    d_head: int | None = None
    """Width of a head; d_model / n_heads when left out."""
    n_kv_heads: int | None = None
    """Heads of keys and values, each shared by n_heads / n_kv_heads heads of queries (grouped-query attention);
    n_heads when left out."""
    d_ff: int | None = None
    """Inner width of the MLP; when left out 4 d_model, or for a gated one 8/3 d_model, rounded up to multiples of 8."""
    activation: ActivationName = "gelu"
    """Of the MLP. gelu is exact, gelu_tanh its approximation, relu2 the square of relu."""
    gated: bool = False
    """Whether the MLP multiplies the activation by a second projection (GLU variants, Shazeer 2020)."""
    norm: NormName = "layernorm"
    """Kind of the norms."""
    norm_eps: float = 1e-5
    """Added to the variance."""
    norm_affine: bool = True
    """Whether norms have learned gains (and LayerNorm biases)."""
    norm_position: Literal["pre", "post"] = "pre"
    """Before each sublayer (GPT-2, ViT), or after its residual sum (the original transformer, BERT)."""
    first_norm: bool = False
    """Whether the vectors are normed before the first block."""
    final_norm: bool | None = None
    """Whether the vectors are normed after the last block; when left out, with pre-norm only."""
    qk_norm: NormName | None = None
    """Norm over d_head of queries and keys (Henry et al. 2020)."""
    attention_scale: float | None = None
    """Factor on the logits of attention; 1 / sqrt(d_head) when left out."""
    q_bias: bool = True
    """Whether the projection to queries has a bias."""
    k_bias: bool = True
    """Whether the projection to keys has a bias."""
    v_bias: bool = True
    """Whether the projection to values has a bias."""
    o_bias: bool = True
    """Whether the projection out of attention has a bias."""
    mlp_bias: bool = True
    """Whether the projections of the MLP have biases."""
    rotary: RotaryConfig | None = None
    """Rotary positions in self-attention."""
    relative: RelativeConfig | None = None
    """Biases by distance in self-attention."""
    cross_attention: bool = False
    """Whether each block also attends to the memory of an encoder, between self-attention and MLP."""
    dropout: float = 0.0
    """On what each sublayer adds."""
    attention_dropout: float = 0.0
    """On the weights of attention; on a CPU this turns the fast kernel off."""
    drop_path: float = 0.0
    """Stochastic depth (Huang et al. 2016): the chance, for each sample, that the last block's sublayers are skipped;
    it rises from 0 linearly."""
    layer_scale: float | None = None
    """Initial value of a learned gain on what each sublayer adds (CaiT, Touvron et al. 2021, 3); none when left out."""
    init_std: float = 0.02
    """Standard deviation of the matrices at the start."""
    zero_output: bool = False
    """Whether each sublayer's last matrix starts at 0, so that every block starts as the identity."""
    checkpointing: bool = False
    """Whether activations inside a block are computed again in the backward pass: less memory, more time."""

    def __post_init__(self) -> None:
        for name in ("d_model", "n_heads", "depth"):
            if getattr(self, name) < (name != "depth"):
                raise InputError(f"{name} must be at least {int(name != 'depth')}, got {getattr(self, name)}")
        if self.d_head is None and self.d_model % self.n_heads:
            raise InputError(
                "n_heads must divide d_model unless d_head is given, "
                f"got d_model={self.d_model}, n_heads={self.n_heads}"
            )
        if self.n_kv_heads is not None and self.n_heads % self.n_kv_heads:
            raise InputError(
                f"n_kv_heads must divide n_heads, got n_heads={self.n_heads}, n_kv_heads={self.n_kv_heads}"
            )
        for name in ("dropout", "attention_dropout", "drop_path"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}")
        if self.rotary is not None and self.head_width % (2 * len(self.rotary.axes)):
            raise InputError(
                f"rotary needs a d_head that is a multiple of {2 * len(self.rotary.axes)} for the axes "
                f"{', '.join(self.rotary.axes)}, got {self.head_width}"
            )

    @property
    def head_width(self) -> int:
        """d_head as given or computed."""
        return self.d_head or self.d_model // self.n_heads

    @property
    def inner_width(self) -> int:
        """d_ff as given or computed."""
        return self.d_ff or (-(-self.d_model // 3) * 8 if self.gated else 4 * self.d_model)


class Context(NamedTuple):
    """What all blocks are given beside the vectors, worked out once a batch."""

    sight: Sight
    """What self-attention sees."""
    rotation: Rotation | None = None
    """Cosines and sines of rotary positions."""
    memory: Tensor | None = None
    """(b, m, d), the output of the encoder for cross-attention; None where the cache holds its keys and values."""
    memory_sight: Sight = Sight()
    """What cross-attention sees."""
    cache: Cache | None = None
    """Keys and values of earlier places."""
    segment: Tensor | None = None
    """(b, n), for stochastic depth by sample; None: one sample a row."""
    n_samples: int = 1
    """Samples of the batch, those without tokens too: no segment is higher."""

    def at(self, place: Tensor, n: int) -> Context:
        """The same for some places of every row alone, as queries.

        place: (b, r) int64, places in the row. n: places of a row.
        """
        sight = Sight(take(self.sight.mask, place, 2))
        if self.sight.causal:
            sight = Sight((torch.arange(n, device=place.device) <= place[:, :, None])[:, None])
        rotation = None if self.rotation is None else tuple(take(part, place, 2) for part in self.rotation)
        return self._replace(
            sight=sight,
            rotation=rotation,
            memory_sight=Sight(take(self.memory_sight.mask, place, 2)),
            segment=None if self.segment is None else self.segment.gather(1, place),
        )


def take(x: Tensor | None, place: Tensor, dim: int) -> Tensor | None:
    """The vectors at some places of every row: x (b or 1, ..., n, d) along `dim`, place (b, r). None stays None."""
    if x is None:
        return None
    index = place.view(len(place), *[1] * (dim - 1), -1, 1)
    x = x.expand(len(place), *x.shape[1:])
    return x.gather(dim, index.expand(-1, *x.shape[1:dim], -1, x.shape[-1]))


class MLP(nn.Module):
    """Two matrices with an activation between, gated or not."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.up = nn.Linear(config.d_model, config.inner_width, bias=config.mlp_bias)
        self.gate = nn.Linear(config.d_model, config.inner_width, bias=config.mlp_bias) if config.gated else None
        self.down = nn.Linear(config.inner_width, config.d_model, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.gate is None:
            return self.down(self.activation(self.up(x)))
        return self.down(self.activation(self.gate(x)) * self.up(x))


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
    """Self-attention, cross-attention where there is a memory, and the MLP."""

    def __init__(self, config: TransformerConfig, drop_path: float = 0.0) -> None:
        super().__init__()
        self.attention, self.attention_residual = Attention(config), Residual(config, drop_path)
        if config.cross_attention:
            self.cross, self.cross_residual = Attention(config), Residual(config, drop_path)
        self.mlp, self.mlp_residual = MLP(config), Residual(config, drop_path)

    def forward(self, x: Tensor, context: Context, layer: int, read: Tensor | None = None) -> Tensor:
        """x: (b, n, d). Returns (b, n, d); or with `read`, places of every row, (b, r), only these, (b, r, d)."""
        cache, before = context.cache, self.attention_residual.before(x)
        if read is None:
            update = self.attention(before, context.sight, context.rotation, cache, layer)
        else:
            x, rotation, context = take(x, read, 1), context.rotation, context.at(read, x.shape[1])
            asking = take(before, read, 1)
            update = self.attention(before, context.sight, rotation, cache, layer, asking, context.rotation)
        x = self.attention_residual.after(x, update, context)
        if hasattr(self, "cross"):
            before = self.cross_residual.before(x)
            update = self.cross.cross(before, context.memory, context.memory_sight, cache, layer)
            x = self.cross_residual.after(x, update, context)
        return self.mlp_residual.after(x, self.mlp(self.mlp_residual.before(x)), context)


class Transformer(nn.Module):
    """A stack of blocks, with norms before and after it where the config asks for them."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        last = max(config.depth - 1, 1)
        self.blocks = nn.ModuleList(Block(config, config.drop_path * i / last) for i in range(config.depth))
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

    def forward(self, x: Tensor, context: Context, read: Tensor | None = None) -> Tensor:
        """x: (b, n, d), 0 at padding. Returns (b, n, d).

        read: (b, r) int64, the places of every row that are wanted; the last block works out only these, from the keys
            of all, and (b, r, d) is returned.
        """
        x = self.first_norm(x)
        for layer, block in enumerate(self.blocks):
            wanted = read if layer == len(self.blocks) - 1 else None
            if self.config.checkpointing and self.training and torch.is_grad_enabled():
                x = checkpoint(block, x, context, layer, wanted, use_reentrant=False)
            else:
                x = block(x, context, layer, wanted)
        if read is not None and not self.blocks:
            x = take(x, read, 1)
        return self.final_norm(x)
