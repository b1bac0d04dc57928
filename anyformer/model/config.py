"""Sizes and choices of a transformer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from anyformer.choices import Values
from anyformer.errors import InputError, nearest

NormName = Literal["layernorm", "rmsnorm"]


ActivationName = Literal["gelu", "gelu_tanh", "relu", "relu2", "silu"]


@dataclass(frozen=True)
class RotaryConfig(Values):
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
        if self.base <= 0:
            raise InputError(f"rotary.base must be above 0, got {self.base}")


@dataclass(frozen=True)
class RelativeConfig(Values):
    """What self-attention makes of the distance of two tokens on an axis; nothing between tokens of which one has no
    such axis."""

    kind: Literal["alibi", "t5", "shaw"]
    """alibi: a bias on the logits, the distance times a fixed slope per head (Press et al. 2022). t5: a learned one, in
    buckets that widen with the distance (Raffel et al. 2020, 2.1). Both are shared by all layers. shaw: learned vectors
    that are added to keys and values, one for each distance, a layer's own and shared by its heads (Shaw et al.
    2018)."""
    axis: str
    """Name of the axis."""
    n_buckets: int = 32
    """Of t5."""
    max_distance: int = 128
    """Of t5 and shaw: all distances beyond share the last bucket, or the last vector of their side. Shaw et al. took
    16."""
    bidirectional: bool = True
    """Of t5: whether keys before and behind their query have buckets apart, each side half of them; a causal stack has
    no use for the second half."""
    on: tuple[Literal["keys", "values"], ...] = ("keys", "values")
    """Of shaw: what the vectors are added to. On keys alone attention keeps its fast kernel, and loses little (Shaw et
    al. 2018, 4.3)."""

    def __post_init__(self) -> None:
        if isinstance(self.on, list):
            object.__setattr__(self, "on", tuple(self.on))
        if self.kind == "shaw":
            if not self.on:
                raise InputError("relative.on must name keys, values or both, got none")
            if self.max_distance < 1:
                raise InputError(f"relative.max_distance must be at least 1, got {self.max_distance}")
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


PatternConfig = TypedDict(
    "PatternConfig",
    {
        "window": dict[str, float],
        "global": list[str] | dict[str, int | None],
        "random": int | list[list[int]],
        "seed": int,
        "block": int,
        "compress": int,
        "linformer": int,
        "length": int,
    },
    total=False,
)
"""What the tokens of a layer see of what the rule allows; {}: all of it.

window: the largest difference on each named axis; a field without the axis is not limited by it.
global: fields that see all and are seen by all, or of a field the first n tokens: [class] or {class: null, text: 4}.
random: so many links of every place to earlier ones of its sample, along which both see each other, drawn from `seed`,
    the layer and the place; or a table, of every place those that it sees.
seed: of the random links, 0 when left out.
block: so many neighbours on an axis, or in the sample, count as one place for window and random; 1 when left out.
compress: a convolution leaves one key and value for so many places, of all that is seen (Liu et al. 2018).
linformer: keys and values are projected to so many, whatever the length (Wang et al. 2020); where all see all alone.
length: tokens of a sample at most, of linformer.
"""


@dataclass(frozen=True)
class ExpertsConfig(Values):
    """A mixture of experts in the place of MLPs (Shazeer et al. 2017): a router sends each token to a few of many MLPs.
    No token is dropped, however many go to one expert."""

    n: int = 8
    """Experts of a block."""
    active: int = 2
    """Experts that each token goes to: those of highest probability."""
    every: int = 1
    """Which blocks have experts: all, or with 2 the second, fourth, ... (GShard, Lepikhin et al. 2021); the others have
    an MLP."""
    shared: int = 0
    """Further experts that every token goes to, without the router (DeepSeekMoE, Dai et al. 2024, 3.2)."""
    d_ff: int | None = None
    """Inner width of an expert; that of the MLPs when left out."""
    balance: float = 0.01
    """Factor on the loss that evens out how many tokens each expert gets (Switch Transformer, Fedus et al. 2022, 2.2),
    which each block with experts adds to the training loss; 0 for none."""
    normalize: bool | None = None
    """Whether the probabilities of a token's experts are divided by their sum (Mixtral, Jiang et al. 2024), or weight
    the experts as they are (Switch Transformer); when left out they are, but where one expert is active."""

    def __post_init__(self) -> None:
        for name, least in (("n", 2), ("active", 1), ("every", 1), ("shared", 0), ("d_ff", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"experts.{name} must be at least {least}, got {value}")
        if self.active > self.n:
            raise InputError(f"experts.active must be at most experts.n, got {self.active} of {self.n} experts")
        if self.balance < 0:
            raise InputError(f"experts.balance must not be negative, got {self.balance}")
        if not self.balance < math.inf:
            raise InputError(f"experts.balance must be a number of at least 0, got {self.balance}")
        if self.normalize and self.active == 1:
            raise InputError(
                "experts.normalize: with one active expert its weight would always be 1, and the router learn nothing "
                "of the task; leave it out"
            )

    @property
    def is_normalized(self) -> bool:
        """normalize as given or chosen."""
        return self.active > 1 if self.normalize is None else self.normalize


@dataclass(frozen=True)
class TransformerConfig(Values):
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
    experts: ExpertsConfig | None = None
    """Experts in the place of MLPs; none when left out."""
    rotary: RotaryConfig | None = None
    """Rotary positions in self-attention."""
    relative: RelativeConfig | None = None
    """Biases, or vectors on keys and values, by distance in self-attention."""
    patterns: tuple[PatternConfig, ...] | None = None
    """What self-attention sees, layer by layer, repeated over the depth: a window, global and random links; everything
    when left out."""
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
        if isinstance(self.patterns, list):
            object.__setattr__(self, "patterns", tuple(self.patterns))
        for name in ("d_model", "n_heads", "depth", "d_head", "n_kv_heads", "d_ff"):
            value, least = getattr(self, name), int(name != "depth")
            if value is not None and value < least:
                raise InputError(f"{name} must be at least {least}, got {value}")
        if self.d_head is None and self.d_model % self.n_heads:
            raise InputError(
                "n_heads must divide d_model unless d_head is given, "
                f"got d_model={self.d_model}, n_heads={self.n_heads}"
            )
        if self.n_kv_heads is not None and self.n_heads % self.n_kv_heads:
            raise InputError(
                f"n_kv_heads must divide n_heads, got n_heads={self.n_heads}, n_kv_heads={self.n_kv_heads}"
            )
        for name in ("init_std", "norm_eps"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("dropout", "attention_dropout", "drop_path"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}")
        if self.experts is not None and self.experts.every > self.depth:
            raise InputError(
                f"experts.every must be at most depth, or no block has experts, got {self.experts.every} and a depth "
                f"of {self.depth}"
            )
        if self.rotary is not None and self.head_width % (2 * len(self.rotary.axes)):
            raise InputError(
                f"rotary needs a d_head that is a multiple of {2 * len(self.rotary.axes)} for the axes "
                f"{', '.join(self.rotary.axes)}, got {self.head_width}"
            )
        patterns = self.patterns or ()
        if len(patterns) > self.depth:
            raise InputError(f"patterns must be at most one for each of the {self.depth} layers, got {len(patterns)}")
        for i, pattern in enumerate(patterns):
            check_pattern(pattern, f"patterns.{i}")
            for key in {"compress", "linformer"} & pattern.keys() if self.relative is not None else ():
                raise InputError(
                    f"patterns.{i}.{key} has keys that stand for several places, between which relative "
                    f"({self.relative.kind}) knows no distance; take rotary positions, or leave one of the two out"
                )

    @property
    def head_width(self) -> int:
        """d_head as given or computed."""
        return self.d_model // self.n_heads if self.d_head is None else self.d_head

    @property
    def kv_heads(self) -> int:
        """n_kv_heads as given or computed."""
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    @property
    def inner_width(self) -> int:
        """d_ff as given or computed."""
        if self.d_ff is not None:
            return self.d_ff
        return -(-self.d_model // 3) * 8 if self.gated else 4 * self.d_model

    @property
    def expert_width(self) -> int:
        """experts.d_ff as given or computed."""
        return self.inner_width if self.experts is None or self.experts.d_ff is None else self.experts.d_ff

    def has_experts(self, layer: int) -> bool:
        """Whether a block, from 0, has experts in the place of its MLP."""
        return self.experts is not None and (layer + 1) % self.experts.every == 0


def check_pattern(pattern: Mapping[str, Any], where: str) -> None:
    """Raise InputError for a pattern that cannot be; `where` begins the message."""
    known = PatternConfig.__annotations__
    for unknown in pattern.keys() - known.keys():
        raise InputError(f"{where} has no {unknown!r}, but {', '.join(known)}{nearest(unknown, list(known))}")
    for name, what in (("window", "an axis"), ("global", "a field"), ("random", "a link")):
        if name in pattern and pattern[name] != 0 and not pattern[name]:
            raise InputError(f"{where}.{name} must name at least {what}, or be left out, got {pattern[name]}")
    for axis, width in pattern.get("window", {}).items():
        if not width >= 0:
            raise InputError(f"{where}.window.{axis} must be at least 0, got {width}")
    for name, least in (("compress", 2), ("linformer", 1)):
        if name not in pattern:
            continue
        if others := [other for other in pattern if other not in (name, "length" if name == "linformer" else name)]:
            raise InputError(
                f"{where}.{name} is of a layer's own and cannot stand beside {', '.join(others)}; give a pattern more, "
                "for another layer"
            )
        if pattern[name] < least:
            raise InputError(f"{where}.{name} must be at least {least}, got {pattern[name]}")
    if ("length" in pattern) != ("linformer" in pattern):
        lacks, has = ("length", "linformer") if "linformer" in pattern else ("linformer", "length")
        raise InputError(f"{where}.{has} needs {lacks} beside it: {{linformer: 64, length: 512}}")
    if pattern.get("length", math.inf) < pattern.get("linformer", 0):
        raise InputError(
            f"{where}.length must be at least linformer, or nothing is saved, got {pattern['length']} and "
            f"{pattern['linformer']}"
        )
    if pattern.get("block", 1) < 1:
        raise InputError(f"{where}.block must be at least 1, got {pattern['block']}")
    if pattern.get("seed", 0) < 0:
        raise InputError(f"{where}.seed must be at least 0, got {pattern['seed']}")
    first = pattern.get("global", [])
    for field, n in first.items() if isinstance(first, Mapping) else ():
        if n is not None and n < 1:
            raise InputError(f"{where}.global.{field} must be at least 1, or null for all its tokens, got {n}")
    random = pattern.get("random", 1)
    if isinstance(random, int):
        if random < 1:
            raise InputError(f"{where}.random must be at least 1, got {random}")
        return
    for i, places in enumerate(random):
        for place in places:
            if not 0 <= place < len(random):
                raise InputError(
                    f"{where}.random.{i} must name places of the table, 0 to {len(random) - 1}, got {place}"
                )
