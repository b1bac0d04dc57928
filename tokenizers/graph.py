"""Graphs as tokens: a set of nodes, and the edges between them, each of a kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyformer.data.moments import Moments
from anyformer.data.values import edges_of, is_json, is_missing, name_of, parse_json, to_numbers
from anyformer.errors import InputError, nearest
from anyformer.model.lifts import Lookup, Projection
from anyformer.tokenizers.text.text import Text
from anyformer.tokens import Tokenizer, TokenSet

UNKNOWN = "<unk>"
NO_KIND = ""
"""The name of an edge's kind where none is given, as `edges_of` says it."""
COLUMNS = ("nodes", "edges")
LEARNT = ("nodes", "vocabulary", "kinds", "mean", "std", "text")


@dataclass(frozen=True)
class Graph(Tokenizer):
    """Cuts a graph into a token for each node, a set without positions; what two nodes are to each other is the kind of
    the edge between them, a learned bias per head (Graphormer, Ying et al. 2021, 3.1.3, in its simplest form).

    A record is a dict, `{"nodes": ["a", "b"], "edges": [[0, 1, "cites"]]}`, as `columns: {graph: [nodes, edges]}` of a
    Table gives it, or JSON of one. Nodes are ids, lists of numbers, or texts, the same throughout. An edge [i, j] or
    [i, j, kind] lets node i look at node j: what i becomes hangs on j. In which sequence nodes and edges stand changes
    nothing. Ids and kinds are learnt from the training records; all others share an entry of their own each.
    """

    nodes: Literal["ids", "numbers", "text"] | None = None
    """What a node is; as in the training records when left out, where a list is of numbers, and a text or a whole
    number an id. Texts must be named here: a node is then the mean of its tokens' vectors."""
    edges_only: bool = False  # type: ignore[misc]
    """Whether a node sees itself and those alone to which it has an edge; else all see all, edges being biases."""
    directed: bool = True
    """Whether an edge leads one way. If not, each is there from its end to its start too, and is given once."""
    reverse: Literal["same", "own"] = "same"
    """Which kind the other way of an edge has that is not directed: the same, or one of its own."""
    max_nodes: int = 1024
    """A larger graph is refused."""
    normalize: bool = True
    """Whether each number has its mean taken off and is divided by its standard deviation, as the data has them."""
    text: Text | None = None
    """How the texts of nodes are cut; by a BPE that is learnt from them when left out."""
    vocabulary: tuple[str, ...] | None = None
    """What `fit` has learnt: the ids of nodes."""
    kinds: tuple[str, ...] | None = None
    """The kinds of edges; an empty name is that of edges without one."""
    mean: tuple[float, ...] | None = None
    """Of each number of a node."""
    std: tuple[float, ...] | None = None
    """The standard deviations; 1 for what never changes."""

    takes_columns: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("vocabulary", "kinds", "mean", "std"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.max_nodes < 1:
            raise InputError(f"max_nodes must be at least 1, got {self.max_nodes}")
        if self.directed and self.reverse == "own":
            raise InputError("reverse: own is of edges that are not directed; give directed: false too")
        if (self.mean is None) != (self.std is None):
            raise InputError("mean and std belong together; give both, or leave both out to learn them from the data")
        if self.text is not None and self.nodes not in (None, "text"):
            raise InputError(f"text says how texts are cut, and nodes are {self.nodes}; leave one of them out")
        if self.text is not None and self.nodes is None:
            object.__setattr__(self, "nodes", "text")

    @property
    def n_relations(self) -> int:  # type: ignore[override]
        """The kinds, and one for all others; as many again where the other way has kinds of its own."""
        return (len(self.kinds or ()) + 1) * (2 if self.reverse == "own" else 1)

    def encode(self, record: Any, random: np.random.Generator | None = None) -> TokenSet:
        """record: see the class. Raises InputError, with the number of the node or edge, for what is no graph."""
        nodes, edges = self._read(record)
        content = self._content(nodes)
        return TokenSet(content, order=torch.zeros(len(nodes), dtype=torch.int64), edges=self._edges(edges, len(nodes)))

    def count(self, record: Any) -> int:
        return len(self._read(record)[0])

    def decode(self, tokens: TokenSet) -> dict[str, list[Any]]:
        """The nodes and edges; `<unk>` for an id or kind not seen in training."""
        edges = tokens.edges.tolist()
        if not self.directed:
            # Their other ways stand behind them; an edge to itself has none.
            n_loops = sum(start == end for start, end, _ in edges)
            edges = edges[: (len(edges) + n_loops) // 2]
        names = (*self._known("kinds"), UNKNOWN)
        kinds = [(start, end, names[kind]) for start, end, kind in edges]
        return {
            "nodes": self._decoded(tokens.content),
            "edges": [[start, end] if kind == NO_KIND else [start, end, kind] for start, end, kind in kinds],
        }

    def pieces(self, tokens: TokenSet) -> list[str]:
        """The ids, texts or numbers of the nodes."""
        nodes = self._decoded(tokens.content)
        return [" ".join(f"{n:.3g}" for n in node) for node in nodes] if self._kind == "numbers" else nodes

    def empty(self) -> TokenSet:
        content = {
            "ids": torch.zeros(0, dtype=torch.int64),
            "text": torch.zeros(0, 2, dtype=torch.int64),
            "numbers": torch.zeros(0, len(self.mean or ())),
        }[self._kind]
        return TokenSet(content, edges=torch.zeros(0, 3, dtype=torch.int64))

    def lift(self, d_model: int) -> nn.Module:
        if self._kind == "ids":
            return Lookup(len(self._known("vocabulary")) + 1, d_model)
        if self._kind == "numbers":
            return Projection(len(self._known("mean")), d_model)
        return NodeTexts(self._known("text").n_ids, d_model)

    # What the data decides.

    def fit(self, records: Iterable[Any]) -> Self:
        """A copy that holds the kinds of edges, and the ids of nodes, the moments of their numbers or the vocabulary of
        their texts; what was given stays. What is no graph is left out here: whoever reads it names the record, or
        leaves it out by on_bad_sample."""
        wrong = InputError("there is no graph to learn from: the training records are empty")
        kind, kinds, ids, texts, moments, n_numbers = self.nodes, set(), set(), [], Moments(), None
        for record in records:
            try:
                nodes, edges = self._read(record)
                kinds |= {name for _, _, name in _named_edges(edges, len(nodes))}
            except InputError as error:
                wrong = error
                continue
            kind = kind or _kind_of(nodes[0], 0)
            _require(nodes, kind)
            if kind == "numbers":
                moments.add(_matrix(nodes, n_numbers))
                n_numbers = len(moments.mean)
            elif kind == "text":
                texts += nodes
            else:
                ids |= {name_of(node, f"node {i}") for i, node in enumerate(nodes)}
        if kind is None:
            raise wrong
        learnt: dict[str, Any] = {"nodes": kind}
        if kind == "text":
            learnt["text"] = (self.text or Text()).fit(texts)
        elif kind == "numbers" and self.mean is None:
            learnt |= {"mean": tuple(moments.mean.tolist()), "std": tuple(moments.std.tolist())}
        elif kind == "ids" and self.vocabulary is None:
            learnt["vocabulary"] = tuple(sorted(ids))
        if self.kinds is None:
            learnt["kinds"] = tuple(sorted(kinds))
        return replace(self, **learnt)

    def inherit(self, other: Tokenizer) -> Self:
        if not isinstance(other, Graph) or self.nodes not in (None, other.nodes):
            return self
        learnt = {name: getattr(other, name) for name in LEARNT if getattr(self, name) is None}
        if self.text is not None and other.text is not None:
            learnt["text"] = self.text.inherit(other.text)
        return replace(self, **learnt)

    def agree(self, other: Tokenizer, name: str) -> None:
        if not isinstance(other, Graph):
            return
        for fact in ("nodes", "vocabulary", "kinds", "mean", "std", "directed", "reverse"):
            ours, theirs = getattr(self, fact), getattr(other, fact)
            if None not in (ours, theirs) and ours != theirs:
                raise InputError(f"{name}: {fact} are not the same as the model was trained with; set them alike")
        if self.text is not None and other.text is not None:
            self.text.agree(other.text, name)

    # Records.

    def _read(self, record: Any) -> tuple[list[Any], list[Any]]:
        """The nodes and edges of a record."""
        record = parse_json(record) if is_json(record) else record
        if not isinstance(record, Mapping):
            raise InputError(
                f'a graph must be a dict like {{"nodes": ["a", "b"], "edges": [[0, 1]]}}, got {record!r:.60}; of a '
                "table give the field both columns, as in columns: {graph: [nodes, edges]}"
            )
        for name in record.keys() - {*COLUMNS}:
            raise InputError(f"a graph has nodes and edges, and no {name!r}{nearest(str(name), COLUMNS)}")
        nodes, edges = (_listed(record.get(name), name) for name in COLUMNS)
        if not nodes:
            raise InputError("the graph has no nodes; give at least one, or leave the record out")
        if len(nodes) > self.max_nodes:
            raise InputError(f"the graph has {len(nodes)} nodes, more than max_nodes={self.max_nodes}; raise max_nodes")
        return nodes, edges

    def _content(self, nodes: list[Any]) -> Tensor:
        _require(nodes, self._kind)
        if self._kind == "ids":
            known = self._numbered
            named = (name_of(node, f"node {i}") for i, node in enumerate(nodes))
            return torch.tensor([known.get(name, len(known)) for name in named], dtype=torch.int64)
        if self._kind == "numbers":
            mean, std = self._moments
            return torch.from_numpy(((_matrix(nodes, len(mean)) - mean) / std).astype(np.float32))
        text, pieces = self._known("text"), []
        for node in nodes:
            ids = text.encode(node).content.tolist() or [text.n_ids]
            pieces += [(int(i == 0), number) for i, number in enumerate(ids)]
        return torch.tensor(pieces, dtype=torch.int64)

    def _decoded(self, content: Tensor) -> list[Any]:
        if self._kind == "ids":
            names = (*self._known("vocabulary"), UNKNOWN)
            return [names[i] for i in content.tolist()]
        if self._kind == "numbers":
            mean, std = self._moments
            return (content.double().numpy() * std + mean).tolist()
        begins = content[:, 0].nonzero().flatten().tolist()
        text = self._known("text")
        each = [content[start:end, 1] for start, end in zip(begins, [*begins[1:], len(content)], strict=True)]
        return [text.decode(ids[ids < text.n_ids]) for ids in each]

    def _edges(self, edges: list[Any], n: int) -> Tensor:
        """(e, 3) int64, as `TokenSet.edges`; the other ways stand behind the edges themselves."""
        known = {name: i for i, name in enumerate(self._known("kinds"))}
        shift = len(known) + 1 if self.reverse == "own" else 0
        given = [(i, (start, end, kind, 0)) for i, (start, end, kind) in enumerate(_named_edges(edges, n))]
        if not self.directed:
            given += [(i, (end, start, kind, shift)) for i, (start, end, kind, _) in given if start != end]
        # By the names of kinds, of which those that are not known share a number.
        first: dict[tuple[int, int, str, int], int] = {}
        for i, edge in given:
            if edge in first:
                both = "" if self.directed else "; where both ways are given say directed: true"
                raise InputError(
                    f"edge {i}, {edges[i]!r:.60}, says again what edge {first[edge]} does; give it once{both}"
                )
            first[edge] = i
        numbered = [(start, end, known.get(kind, len(known)) + other) for start, end, kind, other in first]
        return torch.tensor(numbered, dtype=torch.int64).view(-1, 3)

    @property
    def _kind(self) -> Literal["ids", "numbers", "text"]:
        return self._known("nodes")

    @property
    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        mean, std = np.array(self._known("mean")), np.array(self._known("std"))
        return (mean, std) if self.normalize else (np.zeros_like(mean), np.ones_like(std))

    @cached_property
    def _numbered(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self._known("vocabulary"))}

    def _known(self, fact: str) -> Any:
        value = getattr(self, fact)
        if value is None:
            raise InputError(f"the {fact} of the graphs are not known yet: fit it to the training records first")
        return value


class NodeTexts(nn.Module):
    """Lifts nodes of several ids each: the mean of their vectors. A text of no ids has a vector of its own."""

    def __init__(self, n_ids: int, d_model: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(n_ids + 1, d_model).normal_(std=0.02))

    def forward(self, content: Tensor, extents: Sequence[tuple[int, ...]] = ()) -> Tensor:
        """content: (total pieces, 2) int64, whether a node begins, and the id. Returns (total nodes, d)."""
        node = content[:, 0].cumsum(0) - 1
        counts = torch.bincount(node)
        sums = self.table.new_zeros(len(counts), self.table.shape[1])
        return sums.index_add(0, node, F.embedding(content[:, 1], self.table)) / counts[:, None]


def _listed(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list | tuple | np.ndarray):
        if is_missing(value):
            return []
        raise InputError(f"{name} of a graph must be a list, got {value!r:.60}")
    return list(value)


def _kind_of(node: Any, i: int) -> Literal["ids", "numbers"]:
    """What a node is by its looks."""
    if isinstance(node, list | tuple | np.ndarray):
        return "numbers"
    if isinstance(node, float | np.floating):
        raise InputError(
            f"node {i} is {node}, which may be an id or a number; say in the tokenizer nodes: ids, or nodes: numbers"
        )
    return "ids"


def _require(nodes: Sequence[Any], kind: str) -> None:
    """Raise InputError for a node that is of another kind than all are to be."""
    for i, node in enumerate(nodes):
        is_list, is_text = isinstance(node, list | tuple | np.ndarray), isinstance(node, str)
        if (is_text if kind == "numbers" else is_list) or (kind == "text" and not is_text):
            said = {"ids": "ids, each a text or a number", "numbers": "lists of numbers", "text": "texts"}[kind]
            raise InputError(
                f"the nodes of all graphs must be {said}, as `nodes: {kind}` says; node {i} is {node!r:.60}"
            )


def _matrix(nodes: Sequence[Any], width: int | None) -> np.ndarray:
    """Nodes of numbers, (n, numbers) float64. width: how many a node must have; any, where that is not known."""
    numbers = to_numbers(nodes, "nodes")
    numbers = numbers[:, None] if numbers.ndim == 1 else numbers
    if numbers.ndim != 2 or not numbers.shape[1] or width not in (None, numbers.shape[1]):
        needed = "as many numbers each" if width is None else f"{width} numbers each, as others have"
        raise InputError(f"nodes must have {needed}, got {' x '.join(map(str, numbers.shape))}")
    if np.isnan(numbers).any():
        raise InputError(f"node {int(np.isnan(numbers).any(1).argmax())} lacks a number; fill it in")
    return numbers


def _named_edges(edges: Sequence[Any], n: int) -> list[tuple[int, int, str]]:
    """Start, end and kind of each edge between n nodes."""
    return edges_of(edges, (n, n), ("node {}", "node {}"))
