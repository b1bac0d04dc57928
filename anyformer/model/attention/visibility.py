"""Who may attend to whom: the one rule, for every architecture, and the form in which attention takes it.

One rule covers encoders, decoders, prefix language models, episodes and packed rows (see `visible`); there is no flag
that says which of them a model is. It is worked out once a batch and shared by all layers of one pattern as a `Sight`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from anyformer.batch import Batch, Edges, Layout
from anyformer.errors import InputError, nearest
from anyformer.model.attention.bias import ClippedDistances, RelationBias, RelativeBias
from anyformer.model.attention.blocks import lay_blocks
from anyformer.model.attention.cache import Cache
from anyformer.model.attention.compression.linformer import Projected, ProjectedSight, lay_samples
from anyformer.model.attention.compression.strided import CompressedSight, Windows
from anyformer.model.attention.edges import among, behind, linked
from anyformer.model.attention.patterns import Reach, make_reach, narrows, wanted_by
from anyformer.model.attention.places import Places
from anyformer.model.attention.sight import BlockSight, Sight, count_pairs
from anyformer.model.config import TransformerConfig
from anyformer.tokens import UNSEEN

AnySight = Sight | BlockSight | CompressedSight | ProjectedSight

Condition = Callable[[Places, Places], Tensor]
"""Of the queries' places, (b, queries), and the keys', (b, keys): which pairs it allows, (b, queries, keys) boolean."""

Pattern = tuple[Condition, ...]
"""All that must hold for a query to see a key. Layers of equal patterns share a sight."""

LONG = 512
"""Places of a row from which blocks are thought of."""
GAIN = 2
"""Times as many pairs as in blocks a mask must have, for blocks to be taken: they gather what they see."""


def same_sample(query: Places, key: Places) -> Tensor:
    return (query.segment[:, :, None] == key.segment[:, None, :]) & (query.segment > 0)[:, :, None]


def not_later(query: Places, key: Places) -> Tensor:
    return key.order[:, None, :] <= query.order[:, :, None]


RULE: Pattern = (same_sample, not_later)


def choose_pattern(config: TransformerConfig, layer: int, fields: Sequence[str] = ()) -> Pattern:
    """The pattern of self-attention in a layer of a stack. All patterns are chosen here; CONTRIBUTING.md adds one.

    fields: names of all, in the sequence of their numbers.
    """
    given = config.patterns[layer % len(config.patterns)] if config.patterns else {}
    if "compress" in given:
        return (*RULE, Windows(given["compress"]))
    if "linformer" in given:
        return (*RULE, Projected(given["linformer"], given["length"]))
    return (*RULE, make_reach(given, wanted_by(config).axes, fields, layer)) if narrows(given) else RULE


def visible(
    query: Layout | Places,
    key: Layout | Places,
    sees: Tensor | None = None,
    relation: Tensor | None = None,
    pattern: Pattern = RULE,
    edges: Edges | None = None,
    edges_only: Tensor | None = None,
) -> Tensor:
    """Whether each query may look at each key: (b, queries, keys) boolean.

    query, key: where they stand, (b, queries) and (b, keys); a layout is enough for the plain rule.
    sees: (fields, fields) boolean, whether tokens of field i may look at those of field j; None: all may.
    relation: (b, queries, keys) int64 or None; `UNSEEN` hides a pair.
    edges_only: (fields, fields) boolean, whether tokens of field i look at those of field j along edges alone; None:
        none do.

    Three tokens of orders 0, 1, 2 in one sample (a causal text) give the rows 100, 110, 111; of orders 0, 0, 1 (a
    prefix and a target) 110, 110, 111; of orders 0, 0, 0 (a picture) 111, 111, 111.
    """
    first, *others = pattern
    seen = first(query, key)
    for condition in others:
        seen &= condition(query, key)
    if sees is not None:
        seen &= sees[query.field[:, :, None], key.field[:, None, :]]
    if relation is not None:
        seen &= relation != UNSEEN
    if edges_only is not None:
        apart = edges_only[query.field[:, :, None], key.field[:, None, :]]
        seen &= ~apart | linked(edges, seen.shape, seen.device)
    return seen


def visible_memory(query: Layout, memory: Layout, sees: Tensor | None = None) -> Tensor:
    """Whether each query of a decoder may look at each of the encoder's tokens: (b, queries, memory) boolean.

    A condition stands at order 0 for the decoder whatever its order in its own stack.
    """
    return visible(query, memory._replace(order=torch.zeros_like(memory.order)), sees)


def field_matrix(sees: Mapping[str, Sequence[str]], names: Sequence[str]) -> Tensor:
    """(fields, fields) boolean: whether tokens of the row's field may look at those of the column's.

    sees: the fields that a field's tokens may look at; fields not named there see everything.
    names: of all fields. Raises InputError for a field that is not among them.
    """
    matrix = torch.ones(len(names), len(names), dtype=torch.bool)
    for name, seen in sees.items():
        for unknown in {name, *seen} - set(names):
            raise InputError(
                f"sees names the field {unknown!r}, which is not among {', '.join(names)}{nearest(unknown, names)}"
            )
        matrix[names.index(name)] = torch.tensor([other in seen for other in names])
    return matrix


@dataclass
class View:
    """All that decides which of some keys some queries see, and how much: the rule under a pattern, and biases."""

    query: Places
    key: Places
    pattern: Pattern
    sees: Tensor | None = None
    relation: Tensor | None = None
    relation_bias: RelationBias | None = None
    relative: RelativeBias | ClippedDistances | None = None
    edges: Edges | None = None
    edges_only: Tensor | None = None

    def bias(self) -> Tensor | None:
        """What is added to the logits, (b or 1, h, queries, keys); None where there is nothing."""
        bias = self.relative(self.query, self.key) if isinstance(self.relative, RelativeBias) else None
        if self.relation is not None:
            by_relation = self.relation_bias(self.relation)
            bias = by_relation if bias is None else bias + by_relation
        if self.edges is not None and self.relation_bias is not None:
            along = self.relation_bias.along(self.edges, (*self.query.segment.shape, self.key.segment.shape[1]))
            bias = along if bias is None else bias + along
        return bias

    def visible(self) -> Tensor:
        """As the function, of all that is here."""
        return visible(self.query, self.key, self.sees, self.relation, self.pattern, self.edges, self.edges_only)

    def mask(self) -> Tensor:
        """As `Sight.mask`."""
        bias = self.bias()
        mask = self.visible()[:, None]
        return mask if bias is None else bias.masked_fill(~mask, -torch.inf)

    def distance(self) -> Tensor | None:
        """As `Sight.distance`."""
        return self.relative(self.query, self.key) if isinstance(self.relative, ClippedDistances) else None

    def sight(self) -> Sight:
        return Sight(self.mask(), distance=self.distance())

    def sight_of(self, query: Tensor, key: Tensor) -> Sight:
        """That of some places: (m, queries) and (m, keys), as in `Block`."""
        relation = self.relation
        if relation is not None:
            n = relation.shape[2]
            relation = relation.flatten()[query.clamp(min=0)[:, :, None] * n + key.clamp(min=0)[:, None] % n]
        edges = None if self.edges is None else among(self.edges, query, key, self.key.segment.shape)
        return replace(self, query=self.query.at(query), key=self.key.at(key), relation=relation, edges=edges).sight()


def self_sights(
    patterns: Sequence[Pattern],
    batch: Batch,
    places: Places,
    n_fields: int,
    cache: Cache | None = None,
    sees: Tensor | None = None,
    relation_bias: RelationBias | None = None,
    relative: RelativeBias | ClippedDistances | None = None,
    edges_only: Tensor | None = None,
) -> tuple[AnySight, ...]:
    """What self-attention sees under each of the patterns.

    places: of the batch, which the cache has taken up. sees, edges_only: as in `visible`.
    relation_bias, relative: what is added to the logits, or meets them by distance, where there is something.
    """
    plain = _plain_sight(batch, cache) if sees is None and edges_only is None else None
    sights = []
    for number, pattern in enumerate(patterns):
        keys = places if cache is None else cache.tracks[number].places
        if isinstance(pattern[-1], Windows):
            sights.append(_compressed(places, keys, pattern, cache is not None))
            continue
        if isinstance(pattern[-1], Projected):
            pattern[-1].check(batch, cache is not None)
            sights.append(lay_samples(places, pattern[-1]))
            continue
        # A record's relations come whole in one call: new tokens have none to the cached ones.
        n_cached = keys.segment.shape[1] - batch.shape[1]
        relation = None if batch.relation is None else F.pad(batch.relation, (n_cached, 0))
        edges = None if batch.edges is None else behind(batch.edges, n_cached)
        view = View(places, keys, pattern, sees, relation, relation_bias, relative, edges, edges_only)
        if plain is not None and pattern == RULE:
            bias = view.bias()
            sight = plain if bias is None else _biased(plain, bias, batch.shape[1])
            sights.append(sight._replace(distance=view.distance()))
        else:
            sights.append(_in_blocks(view, batch, n_fields) or view.sight())
    return tuple(sights)


def _compressed(query: Places, key: Places, pattern: Pattern, is_cached: bool) -> CompressedSight:
    """Who sees which windows. With a cache they stand among the places; else they are all that there is."""
    member, end = pattern[-1].lay(query, key)
    if not is_cached:
        b, n = key.segment.shape
        first = n * torch.arange(b, device=end.device)[:, None]
        key = key.at(torch.where(end >= 0, first + end, -1))
    return CompressedSight(Sight(visible(query, key, pattern=pattern)[:, None]), member, end)


def _in_blocks(view: View, batch: Batch, n_fields: int) -> BlockSight | None:
    """The sight in blocks, where that is less than all pairs by enough; None else.

    That hangs on the shapes of the batch alone: how many tokens its samples have, where they stand, and between which
    there are edges.
    """
    b, n = batch.shape
    is_packed = batch.n_per_row > 1 and GAIN * batch.n_pairs <= b * n * n
    reach = next((condition for condition in view.pattern if isinstance(condition, Reach)), None)
    narrow = reach is not None or is_packed or view.edges_only is not None
    if n < LONG or view.key is not view.query or torch.compiler.is_compiling() or not narrow:
        return None
    blocks = lay_blocks(view.query, reach, view.sees, n_fields, edges=view.edges, edges_only=view.edges_only)
    return BlockSight(blocks, view.sight_of, b * n) if GAIN * count_pairs(blocks) <= b * n * n else None


def _plain_sight(batch: Batch, cache: Cache | None) -> Sight | None:
    """The rule where it is the same for all rows, known on the host; None where it takes a mask."""
    if batch.relation is None and batch.edges is None:
        if cache is None or len(cache) == batch.shape[1]:
            if batch.kind != "dense":
                return Sight(causal=batch.kind == "causal")
        elif cache.all_visible_to(batch):
            return Sight()
    return None


def _biased(plain: Sight, bias: Tensor, n: int) -> Sight:
    """The rule is the same in all rows, and so may the bias be: neither is laid out for each."""
    if not plain.causal:
        return Sight(bias)
    return Sight(bias.masked_fill(torch.ones(n, n, dtype=torch.bool, device=bias.device).triu(1), -torch.inf))


def memory_sight(batch: Batch, conditions: Batch | None, cache: Cache | None, sees: Tensor | None = None) -> Sight:
    """What a decoder's tokens see of the conditions that the encoder reads.

    conditions: None where the cache, which keeps their layout, has been given them before.
    Raises ValueError where they are given twice, or never.
    """
    known = cache is not None and cache.memory_layout is not None
    if conditions is not None:
        if known:
            raise ValueError("the cache already holds the conditions; give them in its first call only")
        layout = conditions.layout
        is_plain = sees is None and conditions.one_per_row and not conditions.padded and conditions.shape[1] > 0
        if cache is not None:
            cache.memory_layout, cache.memory_plain = layout, is_plain
    elif known:
        layout, is_plain = cache.memory_layout, cache.memory_plain
        if not is_plain and sees is None and batch.one_per_row and not batch.padded:
            return Sight(cache.memory_mask())
    else:
        raise ValueError("a model with cross-attention needs conditions, at least in the first call with a cache")
    if is_plain and batch.one_per_row:
        return Sight()
    asking = batch.layout
    if cache is not None and cache.sharing > 1:
        asking = Layout(*(part.reshape(len(layout.order), -1) for part in asking))
    return Sight(visible_memory(asking, layout, sees)[:, None])
