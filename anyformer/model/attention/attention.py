"""Multi-head attention under a `Sight`."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from anyformer.model.attention.cache import Cache, Track
from anyformer.model.attention.compression.linformer import PlaceProjection, Projected
from anyformer.model.attention.compression.strided import StridedConvolution, Windows
from anyformer.model.attention.rotary import Rotation, rotate
from anyformer.model.attention.shaw import make_vectors
from anyformer.model.attention.sight import Sight
from anyformer.model.attention.visibility import RULE, AnySight, Pattern
from anyformer.model.config import TransformerConfig
from anyformer.model.layers import make_norm
from anyformer.model.lora import project


class Recorded(NamedTuple):
    """One pass of an attention: what went into it and what came out."""

    q: Tensor
    """(b, h, n, k), as the kernel is given it: normed and turned."""
    k: Tensor
    """(b, h', m, k), likewise."""
    v: Tensor
    """(b, h', m, k)"""
    sight: AnySight
    mixed: Tensor
    """(b, n, h * k), the values by their weights, all heads beside each other."""
    update: Tensor
    """(b, n, d), what the block is given of it."""
    adapts: Tensor | None
    """(b, n) boolean, where adapters acted on `mixed`; None: everywhere."""


class Attention(nn.Module):
    """Multi-head attention, of a row to itself or to the memory that another stack computed."""

    def __init__(self, config: TransformerConfig, crosses: bool = False, pattern: Pattern = RULE) -> None:
        """crosses: whether it is to the memory. pattern: what it sees, which may be of fewer keys than places."""
        super().__init__()
        self.config = config
        self.d_head, self.n_heads = config.head_width, config.n_heads
        self.n_kv_heads = config.kv_heads
        self.q = nn.Linear(config.d_model, self.n_heads * self.d_head, bias=config.q_bias)
        self.k = nn.Linear(config.d_model, self.n_kv_heads * self.d_head, bias=config.k_bias)
        self.v = nn.Linear(config.d_model, self.n_kv_heads * self.d_head, bias=config.v_bias)
        self.o = nn.Linear(self.n_heads * self.d_head, config.d_model, bias=config.o_bias)
        self.q_norm = make_norm(config.qk_norm, self.d_head, config) if config.qk_norm else None
        self.k_norm = make_norm(config.qk_norm, self.d_head, config) if config.qk_norm else None
        self.vectors = None if crosses else make_vectors(config)
        self.compression = _make_compression(config, pattern)
        self.record: list[Recorded] | None = None
        """Each pass, noted down while that is wanted."""

    def forward(
        self,
        x: Tensor,
        sight: AnySight,
        rotation: Rotation | None = None,
        cache: Track | None = None,
        layer: int = 0,
        read: Tensor | None = None,
        read_rotation: Rotation | None = None,
        adapts: Tensor | None = None,
        read_adapts: Tensor | None = None,
    ) -> Tensor:
        """Self-attention of x (b, n, d). With a cache the keys are those of all places so far. Returns (b, n, d).

        read: (b, r, d), the vectors of some places, which `sight`, `read_rotation` and `read_adapts` are then of; only
            they ask.
        adapts: (b, n) boolean, where adapters act; everywhere when left out.
        """
        asking, asking_adapts = (x, adapts) if read is None else (read, read_adapts)
        q, k, v = self._queries(asking, asking_adapts), *self._keys_and_values(x, adapts)
        if rotation is not None:
            q = rotate(q, rotation if read is None else read_rotation)
        if self.compression is not None:
            k, v = self.compression(k, v, sight, rotation, cache, layer)
        else:
            k = k if rotation is None else rotate(k, rotation)
            if cache is not None:
                k, v = cache.extend(layer, k, v)
        return self._attend(q, k, v, sight, asking_adapts)

    def cross(
        self,
        x: Tensor,
        memory: Tensor | None,
        sight: Sight,
        cache: Cache | None = None,
        layer: int = 0,
        adapts: Tensor | None = None,
        memory_adapts: Tensor | None = None,
    ) -> Tensor:
        """Attention of x (b, n, d) to memory (b, m, d), whose keys and values a cache keeps. Returns (b, n, d).

        adapts, memory_adapts: (b, n) and (b, m) boolean, where adapters act; everywhere when left out.
        """
        if cache is not None and layer in cache.memory:
            k, v = cache.memory[layer]
        else:
            k, v = self._keys_and_values(memory, memory_adapts)
            if cache is not None:
                cache.memory[layer] = k, v
        n = 1 if cache is None else cache.sharing
        # Queries that share a memory ask it in one product, which reads its keys and values once.
        asking = x.reshape(len(x) // n, n * x.shape[1], x.shape[2])
        adapts = None if adapts is None else adapts.reshape(asking.shape[:2])
        return self._attend(self._queries(asking, adapts), k, v, sight, adapts).reshape(x.shape)

    def _queries(self, x: Tensor, adapts: Tensor | None) -> Tensor:
        q = project(self.q, x, adapts).unflatten(-1, (self.n_heads, self.d_head)).transpose(1, 2)  # (b, h, n, k)
        return q if self.q_norm is None else self.q_norm(q)

    def _keys_and_values(self, x: Tensor, adapts: Tensor | None) -> tuple[Tensor, Tensor]:
        k = project(self.k, x, adapts).unflatten(-1, (self.n_kv_heads, self.d_head)).transpose(1, 2)
        v = project(self.v, x, adapts).unflatten(-1, (self.n_kv_heads, self.d_head)).transpose(1, 2)
        return (k if self.k_norm is None else self.k_norm(k)), v

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, sight: AnySight, adapts: Tensor | None) -> Tensor:
        out = sight.attend(
            q,
            k,
            v,
            dropout_p=self.config.attention_dropout if self.training else 0.0,
            scale=self.config.attention_scale,
            enable_gqa=self.n_kv_heads != self.n_heads,
            **({} if self.vectors is None else {"vectors": self.vectors}),
        )
        mixed = out.transpose(1, 2).flatten(2)
        update = project(self.o, mixed, adapts)
        if self.record is not None:
            self.record.append(Recorded(q, k, v, sight, mixed, update, adapts))
        return update


def _make_compression(config: TransformerConfig, pattern: Pattern) -> StridedConvolution | PlaceProjection | None:
    condition = pattern[-1]
    if isinstance(condition, Windows):
        return StridedConvolution(config, condition.stride)
    return PlaceProjection(config, condition) if isinstance(condition, Projected) else None
