"""A toy tokenizer of graphs, samples of them with a text behind, and the rule along edges as loops in plain Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from anyformer.model.learned_tokens import LearnedTokens
from anyformer.model.lifts import Lookup
from anyformer.tokens import Sample, Tokenizer, TokenSet
from tests.helpers.witnesses import Ids, count, draw_ids

KINDS = 3
Edge = tuple[int, int, int]


@dataclass(frozen=True)
class Nodes(Tokenizer):
    """A record is the ids of nodes and a list of edges."""

    edges_only: bool = False  # type: ignore[misc]
    n_relations = KINDS

    def encode(self, record: tuple[Sequence[int], Sequence[Edge]], random: object = None) -> TokenSet:
        ids, edges = record
        return TokenSet(torch.tensor(ids), edges=torch.tensor(edges, dtype=torch.int64).view(-1, 3))

    def empty(self) -> TokenSet:
        return TokenSet(torch.zeros(0, dtype=torch.int64), edges=torch.zeros(0, 3, dtype=torch.int64))

    def lift(self, d_model: int) -> nn.Module:
        return Lookup(11, d_model)


TEXT = Ids(11, ("word",), 4096)


def fields(edges_only: bool, has_pairs: bool = True) -> dict[str, Tokenizer]:
    """has_pairs: whether a field with a dense relation stands before, so that kinds are not numbered from 0."""
    pairs = {"pairs": Ids(11, n_relations=2)} if has_pairs else {}
    return {"text": TEXT, **pairs, "graph": Nodes(edges_only), "class": LearnedTokens()}


def graph(n: int, n_edges: int, edges_only: bool = False) -> TokenSet:
    ends = torch.randint(n, (n_edges, 2)).tolist()
    return Nodes(edges_only).encode(
        (draw_ids(n), [(*pair, kind) for pair, kind in zip(ends, draw_ids(n_edges, KINDS), strict=True)])
    )


def samples(scale: int = 1) -> list[Sample]:
    """A graph with a text behind it, one alone, one that is read in turn beside another field of relations, and none;
    the second has two edges of one pair, and one of a token to itself."""
    two = TokenSet(torch.tensor([1, 5, 1]), edges=torch.tensor([[0, 1, 0], [2, 2, 1], [0, 1, 2]]))
    pairs = Ids(11, n_relations=2).encode(draw_ids(4))
    return [
        {"graph": graph(5 * scale, 9 * scale), "text": count(TEXT.encode(draw_ids(6 * scale)))},
        {"graph": two, "class": LearnedTokens().encode()},
        {"graph": count(graph(7 * scale, 20 * scale), 0), "pairs": pairs},
        {"text": count(TEXT.encode(draw_ids(3)))},
    ]


def by_hand(sample: Sample, table: Tensor, edges_only: bool) -> tuple[Tensor, Tensor]:
    """Which token of a sample sees which, (n, n) boolean, and the bias of each pair, (n, n, heads), in the sequence of
    its row. table: of the relations, the two of `pairs` and then the kinds of edges."""
    names = list(fields(edges_only))
    listed = sorted(
        (int(part.order[i]), names.index(name), i) for name, part in sample.items() for i in range(len(part))
    )
    n = len(listed)
    seen, bias = torch.zeros(n, n, dtype=torch.bool), torch.zeros(n, n, table.shape[1])
    for i, (order, field, own) in enumerate(listed):
        for j, (other_order, other_field, other) in enumerate(listed):
            seen[i, j] = other_order <= order
            if names[field] == names[other_field] == "graph":
                kinds = [kind for a, b, kind in sample["graph"].edges.tolist() if (a, b) == (own, other)]
                for kind in kinds:
                    bias[i, j] += table[2 + kind]
                if edges_only and not kinds and own != other:
                    seen[i, j] = False
            if names[field] == names[other_field] == "pairs":
                relation = int(sample["pairs"].relation[own, other])
                if relation == -1:
                    seen[i, j] = False
                else:
                    bias[i, j] += table[relation]
    return seen, bias
