"""Who may attend to whom: the one rule, for every architecture."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from anyformer.batch import Layout
from anyformer.tokens import UNSEEN


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
