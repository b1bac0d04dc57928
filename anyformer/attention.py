"""Who sees whom, and attention under that rule.

One rule covers encoders, decoders, prefix language models, episodes and packed rows (see `visible`); there is no flag
that says which of them a model is. The rule is worked out once a batch and shared by all layers as a `Sight`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from anyformer.batch import Batch, Layout
from anyformer.tokens import UNSEEN

if TYPE_CHECKING:
    from anyformer.transformer import TransformerConfig

NormName = Literal["layernorm", "rmsnorm"]
Rotation = tuple[Tensor, Tensor]
"""Cosines and sines by which queries or keys are turned, each (b, 1, n, d_head / 2)."""


def visible(query: Layout, key: Layout, sees: Tensor | None = None, relation: Tensor | None = None) -> Tensor:
    """Whether each query may look at each key: (b, queries, keys) boolean.

    query, key: where they stand, (b, queries) and (b, keys).
    sees: (fields, fields) boolean, whether tokens of field i may look at those of field j; None: all may.
    relation: (b, queries, keys) int64 or None; `UNSEEN` hides a pair.

    Three tokens of orders 0, 1, 2 in one sample (a causal text) give the rows 100, 110, 111; of orders 0, 0, 1 (a
    prefix and a target) 110, 110, 111; of orders 0, 0, 0 (a picture) 111, 111, 111. Patterns for long sequences (a
    window, say) are to be one more condition here.
    """
    seen = (query.segment[:, :, None] == key.segment[:, None, :]) & (query.segment > 0)[:, :, None]
    seen &= key.order[:, None, :] <= query.order[:, :, None]
    if sees is not None:
        seen &= sees[query.field[:, :, None], key.field[:, None, :]]
    if relation is not None:
        seen &= relation != UNSEEN
    return seen


class Sight(NamedTuple):
    """What the queries of a layer see, in the form that the attention kernel takes."""

    mask: Tensor | None = None
    """(b, 1 or h, queries, keys): boolean, True where a key may be attended to, or float, added to the logits; None:
    everything, or what `causal` says."""
    causal: bool = False
    """Whether query i sees keys 0 ... i: right only where queries and keys start at the same place."""


class RelationBias(nn.Module):
    """A learned bias per head for every relation, added to the logits of attention (Graphormer, Ying et al. 2021,
    3.1.2)."""

    def __init__(self, n_relations: int, n_heads: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(n_relations, n_heads))

    def forward(self, relation: Tensor) -> Tensor:
        """relation: (b, n, n) int64 as in `Batch.relation`. Returns (b, h, n, n); 0 for pairs without a relation."""
        table = torch.cat([self.table.new_zeros(1, self.table.shape[1]), self.table])
        return rearrange(table[relation.clamp(min=0)], "b q k h -> b h q k")


class Cache:
    """Keys and values of the tokens seen so far, for inference: using it equals not using it.

    New tokens must not be visible to the cached ones, that is, their orders are higher or their samples others. Rows
    keep their place from call to call; ragged rows keep their padding, and the rule hides it, so prompts need no
    padding on the left.
    """

    def __init__(self) -> None:
        self.layout: Layout | None = None
        self.memory_layout: Layout | None = None
        self.memory_plain = False
        """Whether every row sees all of its memory, known on the host."""
        self.coordinate: Tensor | None = None
        self.memory: dict[int, tuple[Tensor, Tensor]] = {}
        self.sharing = 1
        """How many rows, one after another, ask the same row of the memory: the beams of one sample."""
        self._memory_mask: Tensor | None = None
        self._kept: dict[int, Tensor] = {}
        # Known on the host: whether every cached place is real and of the one sample of its row, and the highest order.
        self._plain, self._highest = True, -1

    def __len__(self) -> int:
        return 0 if self.layout is None else self.layout.segment.shape[1]

    def admit(self, batch: Batch) -> Layout:
        """Take up the places of a batch; returns the layout of all keys, the new ones last."""
        if self.layout is None:
            self.layout = batch.layout
        else:
            if len(batch.layout.segment) != len(self.layout.segment):
                raise ValueError(f"the cache holds {len(self.layout.segment)} rows, got {len(batch.layout.segment)}")
            self.layout = Layout(*(torch.cat(pair, 1) for pair in zip(self.layout, batch.layout, strict=True)))
        self._plain &= batch.one_per_row and not batch.padded
        self._highest = max(self._highest, batch.orders[1])
        return self.layout

    def place(self, coordinate: Tensor) -> Tensor:
        """Keep where the newest tokens stand, (b, n), for biases by distance; returns that of all keys."""
        old = [] if self.coordinate is None else [self.coordinate]
        self.coordinate = torch.cat([*old, coordinate], 1)
        return self.coordinate

    def all_visible_to(self, batch: Batch) -> bool:
        """Whether one new token a row sees all keys, known without asking the device."""
        return self._plain and batch.shape[1] == 1 and batch.orders[0] >= self._highest

    def memory_mask(self) -> Tensor:
        """What new tokens, all of them real, see of the memory where a row holds one sample: (b, 1, 1, m) boolean."""
        if self._memory_mask is None:
            self._memory_mask = (self.memory_layout.segment == 1)[:, None, None]
        return self._memory_mask

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store the newest keys and values of a layer, each (b, h, n, d_head); returns those of all places."""
        end = len(self)
        kept = self._kept.get(layer)
        if kept is None or kept.shape[3] < end:
            # Room doubles, so that a token costs its own copy and not that of all before it.
            grown = k.new_empty(2, *k.shape[:2], max(end, 2 * (0 if kept is None else kept.shape[3])), k.shape[3])
            if kept is not None:
                grown[:, :, :, : end - k.shape[2]] = kept[:, :, :, : end - k.shape[2]]
            self._kept[layer] = kept = grown
        kept[0, :, :, end - k.shape[2] : end] = k
        kept[1, :, :, end - k.shape[2] : end] = v
        return kept[0, :, :, :end], kept[1, :, :, :end]

    @classmethod
    def join(cls, parts: Sequence[Cache]) -> Cache:
        """The rows of several caches without memory, those of the first first; shorter rows are padded at the end."""
        n, joined = max(map(len, parts)), cls()

        def stack(tensors: Sequence[Tensor]) -> Tensor:
            return torch.cat([F.pad(tensor, (0, n - tensor.shape[1])) for tensor in tensors])

        joined.layout = Layout(*map(stack, zip(*(part.layout for part in parts), strict=True)))
        if parts[0].coordinate is not None:
            joined.coordinate = stack([part.coordinate for part in parts])
        for layer in parts[0]._kept:
            kept = [part._kept[layer][:, :, :, : len(part)] for part in parts]
            joined._kept[layer] = torch.cat([F.pad(each, (0, 0, 0, n - each.shape[3])) for each in kept], 1)
        joined._plain = all(part._plain and len(part) == n for part in parts)
        joined._highest = max(part._highest for part in parts)
        return joined

    def select(self, rows: Tensor, sharing: int = 1) -> None:
        """Keep these rows only, (r,) int64, in this sequence; a row may be kept several times.

        sharing: so many rows, one after another, are of one row of the memory, which is then held once.
        """
        of_memory = (rows // self.sharing)[::sharing]
        self.layout, self.memory_layout = (
            None if layout is None else Layout(*(part[index] for part in layout))
            for layout, index in ((self.layout, rows), (self.memory_layout, of_memory))
        )
        self.coordinate = None if self.coordinate is None else self.coordinate[rows]
        self.memory = {layer: (k[of_memory], v[of_memory]) for layer, (k, v) in self.memory.items()}
        self.sharing, self._memory_mask = sharing, None
        self._kept = {layer: kept.index_select(1, rows) for layer, kept in self._kept.items()}

    def copy(self, sources: Sequence[int], targets: Sequence[int], start: int) -> None:
        """Overwrite rows with others from a place on, where beams of one sample part.

        No target may be a source. Up to `start` the rows of a pair hold the same, and throughout the same layout.
        """
        for kept in self._kept.values():
            for source, target in zip(sources, targets, strict=True):
                kept[:, target, :, start : len(self)] = kept[:, source, :, start : len(self)]

    def hide(self, rows: Tensor) -> None:
        """What these rows, (r,) int64, hold is seen no more: they begin anew behind it."""
        segment = self.layout.segment.index_fill(0, rows, 0)
        self.layout, self._plain = self.layout._replace(segment=segment), False

    def renew(self, rows: Tensor, part: Cache) -> None:
        """Put the keys and values of another cache, one of its rows for each of these, in the place of the newest that
        they hold; of these rows all else is seen no more.

        The tokens are the same, at the same positions: those that a row has kept, seen without those it has dropped.
        """
        real, newest = self.layout.segment[rows] > 0, part.layout.segment > 0
        # Real places counted from the end: as many are kept as the other cache has.
        kept = real & (real.flip(1).cumsum(1).flip(1) <= newest.sum(1, keepdim=True))
        row, place = kept.nonzero(as_tuple=True)
        theirs, source = newest.nonzero(as_tuple=True)
        for layer, old in self._kept.items():
            old[:, rows[row], :, place] = part._kept[layer][:, theirs, :, source]
        segment = self.layout.segment.index_copy(0, rows, self.layout.segment[rows].masked_fill(~kept, 0))
        self.layout, self._plain = self.layout._replace(segment=segment), False

    def cut(self, start: int, end: int) -> None:
        """Keep the places from one number to another alone."""
        self.layout = Layout(*(part[:, start:end] for part in self.layout))
        self.coordinate = None if self.coordinate is None else self.coordinate[:, start:end]
        self._kept = {layer: kept[:, :, :, start:] for layer, kept in self._kept.items()}

    @property
    def n_hidden(self) -> int:
        """How many of the first places no row sees any more."""
        seen = (self.layout.segment > 0).any(0)
        return int(seen.int().argmax()) if seen.any() else len(seen)

    def restart(self) -> None:
        """Forget all places but keep the memory, to begin anew with what is still to be seen."""
        self.layout, self.coordinate, self._kept, self._plain, self._highest = None, None, {}, True, -1


def make_norm(kind: NormName, width: int, config: TransformerConfig) -> nn.Module:
    """A norm over the last axis, of `width`, with the config's eps and gains."""
    make = nn.LayerNorm if kind == "layernorm" else nn.RMSNorm
    return make(width, eps=config.norm_eps, elementwise_affine=config.norm_affine)


def dropout(x: Tensor, p: float) -> Tensor:
    """x with numbers set to 0, each with probability p (at least 0, below 1), and the rest divided by 1 - p.

    On a CPU a mask of 16 random bits a number takes half the time of torch's, and p is rounded to 1 / 65,536.
    """
    if x.device.type != "cpu":
        return F.dropout(x, p)
    n_dropped = min(round(p * 2**16), 2**16 - 1)
    # Four numbers share a draw of 64 bits, from the lowest int64 on.
    drawn = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    kept = drawn[: x.numel()].view(x.shape) >= n_dropped - 2**15
    return x * kept.to(x.dtype).mul_(2**16 / (2**16 - n_dropped))


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn pairs of features by their angles (RoFormer, Su et al. 2021, 3.2.2).

    x: (b, h, n, k), pairs (i, i + k / 2). rotation: cosines and sines, each (b, 1, n, k / 2).
    """
    cos, sin = rotation
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class Attention(nn.Module):
    """Multi-head attention, of a row to itself or to the memory that another stack computed."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.d_head, self.n_heads = config.head_width, config.n_heads
        self.n_kv_heads = config.n_kv_heads or config.n_heads
        self.q = nn.Linear(config.d_model, self.n_heads * self.d_head, bias=config.q_bias)
        self.k = nn.Linear(config.d_model, self.n_kv_heads * self.d_head, bias=config.k_bias)
        self.v = nn.Linear(config.d_model, self.n_kv_heads * self.d_head, bias=config.v_bias)
        self.o = nn.Linear(self.n_heads * self.d_head, config.d_model, bias=config.o_bias)
        self.q_norm = make_norm(config.qk_norm, self.d_head, config) if config.qk_norm else None
        self.k_norm = make_norm(config.qk_norm, self.d_head, config) if config.qk_norm else None

    def forward(
        self,
        x: Tensor,
        sight: Sight,
        rotation: Rotation | None = None,
        cache: Cache | None = None,
        layer: int = 0,
        read: Tensor | None = None,
        read_rotation: Rotation | None = None,
    ) -> Tensor:
        """Self-attention of x (b, n, d). With a cache the keys are those of all places so far. Returns (b, n, d).

        read: (b, r, d), the vectors of some places, which `sight` and `read_rotation` are then of; only they ask.
        """
        q, k, v = self._queries(x if read is None else read), *self._keys_and_values(x)
        if rotation is not None:
            q, k = rotate(q, rotation if read is None else read_rotation), rotate(k, rotation)
        if cache is not None:
            k, v = cache.extend(layer, k, v)
        return self._attend(q, k, v, sight)

    def cross(
        self, x: Tensor, memory: Tensor | None, sight: Sight, cache: Cache | None = None, layer: int = 0
    ) -> Tensor:
        """Attention of x (b, n, d) to memory (b, m, d), whose keys and values a cache keeps. Returns (b, n, d)."""
        if cache is not None and layer in cache.memory:
            k, v = cache.memory[layer]
        else:
            k, v = self._keys_and_values(memory)
            if cache is not None:
                cache.memory[layer] = k, v
        n = 1 if cache is None else cache.sharing
        # Queries that share a memory ask it in one product, which reads its keys and values once.
        out = self._attend(self._queries(x.reshape(len(x) // n, n * x.shape[1], x.shape[2])), k, v, sight)
        return out.reshape(x.shape)

    def _queries(self, x: Tensor) -> Tensor:
        q = self.q(x).unflatten(-1, (self.n_heads, self.d_head)).transpose(1, 2)  # (b, h, n, k)
        return q if self.q_norm is None else self.q_norm(q)

    def _keys_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        k = self.k(x).unflatten(-1, (self.n_kv_heads, self.d_head)).transpose(1, 2)
        v = self.v(x).unflatten(-1, (self.n_kv_heads, self.d_head)).transpose(1, 2)
        return (k if self.k_norm is None else self.k_norm(k)), v

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, sight: Sight) -> Tensor:
        # A query that sees no key gets 0 from the kernel, not NaN: padding, and targets of a sample without conditions.
        out = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=sight.mask,
            dropout_p=self.config.attention_dropout if self.training else 0.0,
            is_causal=sight.causal,
            scale=self.config.attention_scale,
            enable_gqa=self.n_kv_heads != self.n_heads,
        )
        return self.o(out.transpose(1, 2).flatten(2))
