"""Token sets into rows: which samples share a row, and the batch that is laid from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from anyformer.batch import Batch, Edges, FieldTokens, Layout
from anyformer.errors import InputError
from anyformer.tokens import UNSEEN, Sample, Tokenizer, TokenSet


def pack(lengths: Sequence[int] | Sequence[Sequence[int]], budget: int | Sequence[int]) -> list[int]:
    """Assign samples to rows: first fit, longest first. Returns the row of each sample, rows numbered from 0.

    lengths: tokens of each sample; or, where two stacks share the rows (encoder and decoder), a pair for each sample.
    budget: the tokens that a row holds; or one number for each stack. A sample fits where all of them are kept.
    Raises ValueError if a sample alone is longer than a row.

    >>> pack([5, 3, 2, 4], 7)
    [0, 1, 0, 1]
    """
    if not len(lengths):
        return []
    sizes = np.asarray(lengths, dtype=np.int64).reshape(len(lengths), -1)
    budgets = np.broadcast_to(np.asarray(budget, dtype=np.int64), (sizes.shape[1],))
    rows = np.zeros(len(sizes), dtype=np.int64)
    room = np.empty((0, len(budgets)), dtype=np.int64)
    for i in np.argsort(-sizes.max(1), kind="stable"):
        if (sizes[i] > budgets).any():
            raise ValueError(f"sample {i} has {sizes[i].tolist()} tokens, more than the {budgets.tolist()} of a row")
        fits = np.flatnonzero((room >= sizes[i]).all(1))
        if not len(fits):
            room, fits = np.vstack([room, budgets]), [len(room)]
        rows[i] = fits[0]
        room[fits[0]] -= sizes[i]
    # Rows are numbered by their first sample, so that a plan that moves nothing changes nothing.
    first_seen = {row: number for number, row in enumerate(dict.fromkeys(rows.tolist()))}
    return [first_seen[row] for row in rows.tolist()]


def group_by_length(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Numbers of the samples in groups of like length, each of at most `budget` tokens with its padding, if it can be.

    >>> group_by_length([3, 16384, 2], 16384)
    [[1], [0, 2]]
    """
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= budget:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def collate(
    samples: Sequence[Sample],
    tokenizers: Mapping[str, Tokenizer],
    rows: Sequence[int] | None = None,
    length: int | None = None,
) -> Batch:
    """Lay samples into rows; in its row a sample's tokens stand by (order, field, position).

    samples: dicts of fields; which fields a sample has may differ from one to the next.
    tokenizers: one for every field that can occur (see `expand`); their sequence numbers the fields.
    rows: the row of each sample (see `pack`); one sample a row by default. Samples of a row keep their sequence.
    length: of the rows; that of the fullest by default.
    Raises InputError for a field without a tokenizer, ValueError if a row is fuller than `length` or a relation is not
    one of its tokenizer's.
    """
    for sample in samples:
        if unknown := sample.keys() - tokenizers.keys():
            raise InputError(f"field {min(unknown)!r} has no tokenizer; there are {', '.join(tokenizers)}")
    parts = {}
    for name in tokenizers:
        sets = [(i, sample[name]) for i, sample in enumerate(samples) if name in sample]
        if sets:
            parts[name] = (
                [tokens for _, tokens in sets],
                np.repeat([i for i, _ in sets], [len(part) for _, part in sets]),
            )
    return lay(parts, tokenizers, len(samples), rows, length)


def lay(
    given: Mapping[str, tuple[Sequence[TokenSet], np.ndarray]],
    tokenizers: Mapping[str, Tokenizer],
    n_samples: int,
    rows: Sequence[int] | None = None,
    length: int | None = None,
) -> Batch:
    """As `collate`, of tokens by field: a set may hold those of many samples, where a tokenizer cuts them at once.

    given: the sets of each field, and the sample of each of their tokens in turn, (total tokens,) int64, which does not
        fall.
    """
    parts, counts, ranks = {}, {}, []
    for name, tokenizer in tokenizers.items():
        every, owner = given.get(name) or ([tokenizer.empty()], np.zeros(0, dtype=np.int64))
        position = torch.cat([tokens.position for tokens in every])
        parts[name] = (every, owner, position)
        counts[name] = len(owner)
        ranks.append(_ranks(owner, position.numpy()))

    sample = np.concatenate([owner for _, owner, _ in parts.values()]).astype(np.int64)
    order = torch.cat([tokens.order for every, _, _ in parts.values() for tokens in every]).numpy()
    field = np.repeat(np.arange(len(parts)), list(counts.values()))
    lengths = np.bincount(sample, minlength=n_samples)

    # Offset of each sample in its row: what the samples before it in that row have taken.
    row = np.arange(n_samples) if rows is None else np.asarray(rows, dtype=np.int64)
    by_row = np.argsort(row, kind="stable")
    ends = np.cumsum(lengths[by_row])
    starts = ends - lengths[by_row]
    first_of_row = np.searchsorted(row[by_row], row[by_row], side="left")
    offset, segment = np.empty_like(lengths), np.empty_like(lengths)
    offset[by_row] = starts - starts[first_of_row]
    segment[by_row] = np.arange(n_samples) - first_of_row + 1
    n_rows = int(row.max(initial=-1)) + 1
    fullest = int((offset + lengths).max(initial=0))
    if length is None:
        length = fullest
    elif fullest > length:
        raise ValueError(f"a row holds {fullest} tokens, more than the length of {length} asked for")

    sequence = np.lexsort((np.concatenate(ranks), field, order, sample))
    within = np.arange(len(sample)) - (np.cumsum(lengths) - lengths)[sample[sequence]]
    place = np.empty(len(sample), dtype=np.int64)
    place[sequence] = (row * length + offset)[sample[sequence]] + within

    layout = np.zeros((3, n_rows * length), dtype=np.int64)
    layout[:, place] = segment[sample], order, field
    fields, start = {}, 0
    for name, (every, owner, position) in parts.items():
        # What an encoder reads is not carried twice.
        inner = tokenizers[name].inside
        contents = [tokenizers[name].empty()] if inner else every
        fields[name] = FieldTokens(
            content=torch.cat([tokens.content for tokens in contents]),
            position=position,
            index=torch.from_numpy(place[start : start + counts[name]]),
            sample=torch.from_numpy(owner.astype(np.int64)),
            extents=tuple(tokens.extent for tokens in every if len(tokens.content)),
            reach=tuple(position.amax(0).tolist()) if len(position) else (),
            masked=_masked(every),
            inside=_lay_inside(every, inner) if inner else None,
        )
        start += counts[name]

    relation = _relations(parts, fields, tokenizers, (n_rows, length))
    edges = _edges(parts, fields, tokenizers, length)
    padded = len(sample) < n_rows * length
    n_per_row = int(segment.max(initial=0))
    same = sample[sequence][1:] == sample[sequence][:-1]
    step = np.diff(order[sequence])[same]
    kind = "dense"
    if n_per_row <= 1 and relation is None and edges is None:
        if (step > 0).all() and len(step):
            kind = "causal"
        elif (step == 0).all() and not padded:
            kind = "everything"
    return Batch(
        fields=fields,
        layout=Layout(*(torch.from_numpy(part.reshape(n_rows, length)) for part in layout)),
        n_samples=n_samples,
        kind=kind,
        n_per_row=n_per_row,
        padded=padded,
        orders=(int(order.min()), int(order.max())) if len(order) else (0, 0),
        n_pairs=int((lengths**2).sum()),
        relation=relation,
        edges=edges,
    )


def _lay_inside(every: Sequence[TokenSet], tokenizers: Mapping[str, Tokenizer]) -> Batch:
    """The samples inside token sets, which know nothing of each other; as many share a row as the longest is long."""
    samples = [tokens.inside for tokens in every if tokens.inside]
    lengths = [sum(map(len, sample.values())) for sample in samples]
    return collate(samples, tokenizers, pack(lengths, max(lengths, default=0)))


def _ranks(owner: np.ndarray, position: np.ndarray) -> np.ndarray:
    """The rank of each token among its field's tokens by (sample, position); ties keep the tokenizer's sequence."""
    ranks = np.empty(len(owner), dtype=np.int64)
    ranks[np.lexsort((*position.T[::-1], owner))] = np.arange(len(owner))
    return ranks


def _masked(every: Sequence[TokenSet]) -> Tensor | None:
    """Which tokens of a field are masked, of all its sets; None where none is."""
    if all(tokens.masked is None for tokens in every):
        return None
    return torch.cat([torch.zeros(len(t), dtype=torch.bool) if t.masked is None else t.masked for t in every])


def _relations(
    parts: dict, fields: dict[str, FieldTokens], tokenizers: Mapping, shape: tuple[int, int]
) -> Tensor | None:
    """The relation of every pair of places of a row; None where no tokenizer has any but edges."""
    # Where a field with relations is absent they are there too, so that their biases have gradients in every batch.
    related = any(
        tokens.relation is not None or (tokenizers[name].n_relations and tokens.edges is None)
        for name, (every, _, _) in parts.items()
        for tokens in every
    )
    if not related:
        return None
    dense, first = torch.zeros(*shape, shape[1], dtype=torch.int64), 1
    for name, (every, _, _) in parts.items():
        places = fields[name].index.split([len(tokens) for tokens in every])
        for tokens, place in zip(every, places, strict=True):
            if tokens.relation is not None and len(tokens):
                lowest, highest, n = *map(int, tokens.relation.aminmax()), tokenizers[name].n_relations
                if lowest < UNSEEN or highest >= n:
                    raise ValueError(
                        f"relations of field {name!r} must be {UNSEEN} to {n - 1}, got {lowest} to {highest}"
                    )
                row, column = int(place[0]) // shape[1], place % shape[1]
                known = tokens.relation + first
                dense[row, column[:, None], column] = torch.where(tokens.relation == UNSEEN, UNSEEN, known)
        first += tokenizers[name].n_relations
    return dense


def _edges(
    parts: dict, fields: dict[str, FieldTokens], tokenizers: Mapping[str, Tokenizer], length: int
) -> Edges | None:
    """The edges of all fields, and of tokens that see along edges alone those to themselves; None where no tokenizer
    has any."""
    found, first = [], 1
    for name, (every, _, _) in parts.items():
        n = tokenizers[name].n_relations
        places = fields[name].index.split([len(tokens) for tokens in every])
        for tokens, place in zip(every, places, strict=True):
            if tokens.edges is not None:
                lowest, highest = map(int, tokens.edges[:, 2].aminmax()) if len(tokens.edges) else (0, -1)
                if lowest < 0 or highest >= n:
                    raise ValueError(
                        f"kinds of edges of field {name!r} must be 0 to {n - 1}, got {lowest} to {highest}"
                    )
                found.append(_placed(tokens.edges, place, place, first))
        if tokenizers[name].edges_only:
            own = fields[name].index
            found.append(torch.stack([own, own, torch.zeros_like(own)]))
        first += n
    # Links are numbered behind all of these.
    found += _links(parts, fields, first)
    if not found:
        return None
    query, key, kind = torch.cat(found, 1)
    # By query, then by key; several of a pair as they are given.
    sequence = torch.from_numpy(np.lexsort((key.numpy(), query.numpy())))
    query, key = query[sequence], key[sequence]
    return Edges(query // max(length, 1), query % max(length, 1), key % max(length, 1), kind[sequence])


def _links(parts: dict, fields: dict[str, FieldTokens], first: int) -> list[Tensor]:
    """The links of all samples, each (3, e), as `_placed` gives them."""
    found = []
    for name, (every, _, _) in parts.items():
        sizes, start = [len(tokens) for tokens in every], 0
        for tokens, place in zip(every, fields[name].index.split(sizes), strict=True):
            for other, edges in (tokens.links or {}).items():
                theirs = fields[other]
                key = theirs.index[theirs.sample == fields[name].sample[start]] if len(tokens) else place
                # A sample that one of the two fields has been left out of has no edges between them.
                if len(key):
                    found.append(_placed(edges, place, key, first))
            start += len(tokens)
    return found


def _placed(edges: Tensor, query: Tensor, key: Tensor, first: int) -> Tensor:
    """Edges between places: (from, to, kind), (3, e), with kinds numbered from `first` on, and 0 for none.

    query, key: the places of the tokens that they are between.
    """
    start, end, kind = edges.unbind(1)
    return torch.stack([query[start], key[end], torch.where(kind < 0, 0, kind + first)])
