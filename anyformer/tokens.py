"""Token sets, and batches of them: all that the transformer ever sees of the data.

A tokenizer cuts one record of one field into a `TokenSet`. A sample is a dict of fields, `{"image": TokenSet, ...}`; a
field that is missing in a sample is not in the dict. `collate` lays samples into the (rows, length) layout of the
transformer, and keeps each field's content together, without padding. Nothing here knows a modality.

Shapes, here and everywhere: `b` rows, `n` tokens, `d` d_model, `h` heads, `k` d_head, `v` vocabulary, `c` channels,
`f` mel bins, `t` time.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple, Self, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn

from anyformer.errors import InputError

UNSEEN = -1
"""The relation of a pair whose first token may not look at the second."""


@dataclass(frozen=True)
class TokenSet:
    """The tokens of one record of one field: what, where, when, and what they are to each other.

    For n tokens made of m pieces of content (m = n, but for a lift with stride):

    content: (m,) int64 ids, (m, k) where each piece has several of them, or (m, *feature) float.
    position: (n, axes) int64, or float32 where an axis is continuous; (n, 0) for a set without positions (the default).
    order: (n,) int64; a token may look at tokens of the same or a lower order. 0 by default: all see all.
    relation: (n, n) int64 or None; what token j is to token i at [i, j], `UNSEEN` (-1) where i may not look at j.
    extent: the shape of the content as its lift wants it, (frames,) or (rows, columns); its product is m. (m,) by
    default.
    masked: (n,) bool or None; tokens whose content the model is not shown, where m = n: a learned vector of the field
    stands in its place (see `maskable` of Anyformer). None: all is shown.

    Raises ValueError where the shapes contradict each other.
    """

    content: Tensor
    position: Tensor = None  # type: ignore[assignment]
    order: Tensor = None  # type: ignore[assignment]
    relation: Tensor | None = None
    extent: tuple[int, ...] = None  # type: ignore[assignment]
    masked: Tensor | None = None

    def __post_init__(self) -> None:
        # Shapes in place of len(), for which torch takes many times as long: small samples are made by the thousand.
        m = self.content.shape[0]
        n = next((part.shape[0] for part in (self.position, self.order, self.relation) if part is not None), m)
        if self.position is None:
            object.__setattr__(self, "position", torch.zeros(n, 0, dtype=torch.int64))
        if self.order is None:
            object.__setattr__(self, "order", torch.zeros(n, dtype=torch.int64))
        if self.extent is None:
            object.__setattr__(self, "extent", (m,))
        if self.position.ndim != 2 or self.position.shape[0] != n:
            raise ValueError(f"position must be ({n}, axes) for {n} tokens, got {tuple(self.position.shape)}")
        if self.order.shape != (n,):
            raise ValueError(f"order must be ({n},) for {n} tokens, got {tuple(self.order.shape)}")
        if self.relation is not None and self.relation.shape != (n, n):
            raise ValueError(f"relation must be ({n}, {n}) for {n} tokens, got {tuple(self.relation.shape)}")
        if math.prod(self.extent) != m:
            raise ValueError(f"extent must multiply to the {m} pieces of content, got {self.extent}")
        if self.masked is not None and (n != m or self.masked.shape != (n,) or self.masked.dtype != torch.bool):
            shape, dtype = tuple(self.masked.shape), str(self.masked.dtype).removeprefix("torch.")
            raise ValueError(
                f"masked must be ({n},) bool, of a piece of content each, for {n} tokens of {m} pieces, "
                f"got {shape} {dtype}"
            )

    def __len__(self) -> int:
        return self.order.shape[0]

    def at(self, order: int | Tensor) -> TokenSet:
        """The same tokens at another order: one number for all of them, or (n,) int64.

        The tokenizer cannot know what a text is for; the task that knows sets the order.
        """
        if not isinstance(order, Tensor):
            order = torch.full((len(self),), order, dtype=torch.int64)
        return replace(self, order=order)


Sample = dict[str, TokenSet]


class Tokenizer(ABC):
    """Cuts records of one modality into token sets, and says how their content is lifted to d_model.

    A subclass is a frozen dataclass of plain values: it has no weights, runs in data workers, and is written to a run's
    config as it stands. Weights live in the lift. A tokenizer whose record holds several fields returns a dict from
    `encode` and names the tokenizer of each in `parts`.
    """

    axes: ClassVar[tuple[str, ...]] = ()
    """Names of the columns of `position`: word, row, column, time, step, ... Fields may share one."""
    n_relations: ClassVar[int] = 0
    """Relations are 0 ... n_relations - 1."""
    endings: ClassVar[tuple[str, ...]] = ()
    """What the names of the files end in that `encode` opens, in small letters; () where it opens none."""

    @property
    def reads_files(self) -> bool:
        """Whether a string in a table names a file that `encode` opens."""
        return bool(self.endings)

    @property
    def sizes(self) -> dict[str, int]:
        """How many places each axis has, for the axes where the tokenizer knows."""
        return {}

    @property
    def parts(self) -> dict[str, Tokenizer]:
        """The tokenizers of the fields of one record, by suffix: `{"image": ..., "vector": ...}`; {} for one field."""
        return {}

    @abstractmethod
    def encode(self, record: Any, random: np.random.Generator | None = None) -> TokenSet | dict[str, TokenSet]:
        """Cut one record into tokens.

        random: the source of augmentation, a function of (seed, epoch, sample); None where nothing is drawn
            (validation).
        Raises InputError if the record cannot be used.
        """

    @abstractmethod
    def empty(self) -> TokenSet:
        """A set of no tokens, which tells the shape and dtype of the content, the position and the extent."""

    @abstractmethod
    def lift(self, d_model: int) -> nn.Module:
        """The module that turns content into vectors.

        It is called as `lift(content, extents)`: content (total, *feature) of all samples of a batch, extents a tuple
        with the extent of each sample; it returns (total tokens, d_model). Lifting a batch equals lifting each sample
        alone.
        """

    def decode(self, tokens: TokenSet) -> Any:
        """The record again, where an inverse exists."""
        raise NotImplementedError(f"{type(self).__name__} has no inverse")

    def show(self, tokens: TokenSet) -> np.ndarray | None:
        """The record as a picture of what the model sees, (rows, columns, 3) uint8; None where there is no such."""
        return None

    def pieces(self, tokens: TokenSet) -> list[str] | None:
        """What each token says, in a few characters, where a person can read it; None where there is no such."""
        return None

    @property
    def unmixable(self) -> str | None:
        """Why two records cannot be blended into one for augmentation; None where `mix` does it."""
        return f"what {type(self).__name__} cuts cannot be blended"

    def mix(
        self, tokens: TokenSet, other: TokenSet, mixing: Any, random: np.random.Generator
    ) -> tuple[TokenSet, float]:
        """Two records blended as `mixing` says, and the share of the first in them."""
        raise NotImplementedError(self.unmixable)

    def count(self, record: Any) -> int:
        """The number of tokens of a record, from its header alone where the format has one."""
        tokens = self.encode(record)
        return sum(map(len, tokens.values())) if isinstance(tokens, dict) else len(tokens)

    def fit(self, records: Iterable[Any]) -> Self:
        """A copy that holds what the data decides (a vocabulary, a mean), computed on the training records."""
        return self

    def inherit(self, other: Tokenizer) -> Self:
        """A copy that holds what another one learnt of its data, where this would learn it anew: training starts from
        the weights that were made for that."""
        return self

    def agree(self, other: Tokenizer, name: str) -> None:
        """Raise InputError, with the first difference, if the content of the other, of that name, means something else
        than the same content here: other words for the same ids."""
        return None


# Whoever evaluates the types of a subclass evaluates these too, in its module, which need not know the names in them.
Tokenizer.__annotations__ = get_type_hints(Tokenizer)


@dataclass(frozen=True)
class LearnedTokens(Tokenizer):
    """Tokens that carry no data but a learned vector each: class tokens, registers, queries.

    They take part as a field of their own, of the highest order in their sample, so that they see it all and, in a
    causal sample, nothing sees them.
    """

    n: int = 1
    """How many."""
    placed: bool = False
    """Whether each also has a position, on the axis `slot` (a ViT whose class token has a position embedding)."""

    @property
    def axes(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("slot",) if self.placed else ()

    @property
    def sizes(self) -> dict[str, int]:
        return {"slot": self.n} if self.placed else {}

    def encode(self, record: None = None, random: np.random.Generator | None = None) -> TokenSet:
        slot = torch.arange(self.n)
        return TokenSet(slot, slot[:, None] if self.placed else None)

    def empty(self) -> TokenSet:
        return TokenSet(torch.zeros(0, dtype=torch.int64), torch.zeros(0, len(self.axes), dtype=torch.int64))

    def lift(self, d_model: int) -> nn.Module:
        from anyformer.embeddings import Lookup

        return Lookup(self.n, d_model)


def expand(tokenizers: Mapping[str, Tokenizer]) -> dict[str, Tokenizer]:
    """The tokenizer of every field: one whose record holds several stands as `name.part` for each of them."""
    flat: dict[str, Tokenizer] = {}
    for name, tokenizer in tokenizers.items():
        parts = tokenizer.parts
        flat |= {f"{name}.{part}": inner for part, inner in parts.items()} if parts else {name: tokenizer}
    return flat


class Layout(NamedTuple):
    """Who stands where in the rows of a transformer: each (rows, length) int64."""

    segment: Tensor
    """Number of the sample within its row, from 1; 0 is padding."""
    order: Tensor
    """When: see `TokenSet.order`."""
    field: Tensor
    """Index of the token's field in the names that the batch was collated with."""


@dataclass(frozen=True)
class FieldTokens:
    """One field's tokens of all samples of a batch, one after another without padding."""

    content: Tensor
    """(total pieces, *feature)"""
    position: Tensor
    """(total tokens, axes)"""
    index: Tensor
    """(total tokens,) int64: where each token stands in the flattened (rows * length) layout"""
    sample: Tensor
    """(total tokens,) int64: which sample of the batch it belongs to"""
    extents: tuple[tuple[int, ...], ...]
    """The extent of each sample that has the field, on the host."""
    reach: tuple[float, ...] = ()
    """The highest position on each axis, on the host."""
    masked: Tensor | None = None
    """(total tokens,) bool: those whose content is not shown; None where all is."""


@dataclass(frozen=True)
class Batch:
    """Samples laid into rows. Made by `collate`; see `FieldTokens` for the content."""

    fields: dict[str, FieldTokens]
    layout: Layout
    n_samples: int
    kind: Literal["everything", "causal", "dense"]
    """What the visibility rule comes down to when every field sees every field, known on the host.

    everything: every place is real, and each sees its whole row. causal: one sample a row in ascending order without
    ties (padding may trail). dense: a mask is needed.
    """
    n_per_row: int
    """Samples of the row that holds the most, on the host."""
    padded: bool
    """Whether some places hold no token."""
    orders: tuple[int, int]
    """Lowest and highest order in the batch, on the host."""
    relation: Tensor | None = None
    """(rows, length, length) int64: 0 no relation, 1 + r for the batch's relation r, -1 unseen; None where no
    tokenizer has any.

    Relations of several fields are numbered one after another, in the order of the fields.
    """

    @property
    def one_per_row(self) -> bool:
        """Whether no row holds more than one sample."""
        return self.n_per_row <= 1

    @property
    def shape(self) -> torch.Size:
        """(rows, length)"""
        return self.layout.segment.shape

    def by_field(self, hidden: Tensor) -> dict[str, Tensor]:
        """The vectors of each field's tokens, (total tokens, d), out of hidden vectors (rows, length, d)."""
        flat = hidden.flatten(0, 1)
        return {name: flat[tokens.index] for name, tokens in self.fields.items()}

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The batch with its tensors on a device."""
        return map_tensors(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, from where a GPU copies while it computes."""
        return map_tensors(self, Tensor.pin_memory)


def map_tensors(value: Any, function: Any) -> Any:
    """Apply a function to every tensor within dataclasses, dicts and named tuples."""
    if isinstance(value, Tensor):
        return function(value)
    if is_dataclass(value):
        return replace(value, **{f.name: map_tensors(getattr(value, f.name), function) for f in fields(value)})
    if isinstance(value, dict):
        return {name: map_tensors(part, function) for name, part in value.items()}
    if isinstance(value, Layout):
        return Layout(*(map_tensors(part, function) for part in value))
    return value


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
        fields[name] = FieldTokens(
            content=torch.cat([tokens.content for tokens in every]),
            position=position,
            index=torch.from_numpy(place[start : start + counts[name]]),
            sample=torch.from_numpy(owner.astype(np.int64)),
            extents=tuple(tokens.extent for tokens in every if len(tokens.content)),
            reach=tuple(position.amax(0).tolist()) if len(position) else (),
            masked=_masked(every),
        )
        start += counts[name]

    relation = _relations(parts, fields, tokenizers, (n_rows, length))
    padded = len(sample) < n_rows * length
    n_per_row = int(segment.max(initial=0))
    same = sample[sequence][1:] == sample[sequence][:-1]
    step = np.diff(order[sequence])[same]
    kind = "dense"
    if n_per_row <= 1 and relation is None:
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
        relation=relation,
    )


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
    """The relation of every pair of places of a row; None where no tokenizer has relations."""
    related = any(tokens.relation is not None for every, _, _ in parts.values() for tokens in every)
    if not related and not any(tokenizer.n_relations for tokenizer in tokenizers.values()):
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


def read_before(batch: Batch, name: str) -> tuple[Tensor, Tensor]:
    """Where to read the prediction of each token of a field: the last token of lower order in its sample.

    A token has seen itself, so a prediction read at its own place would be a copy. For a text of orders 1, 2, 3 behind
    a start token of order 0 this reads place j for token j + 1; for an action it is the state it follows. Tokens that
    nothing precedes are left out.

    Returns (places, tokens), each (r,) int64 on the batch's device: places in the flattened (rows * length) layout, and
    which of the field's tokens (0 ... total - 1) is to be predicted there.
    """
    segment, order, _ = (part.flatten() for part in batch.layout)
    length = batch.shape[1]
    place = torch.arange(len(order), device=order.device)
    # A group is a run of places of one sample and order: the place to read is the one before its group begins.
    starts = torch.ones_like(order, dtype=torch.bool)
    starts[1:] = (order[1:] != order[:-1]) | (segment[1:] != segment[:-1]) | (place[1:] % length == 0)
    group_start = torch.where(starts, place, 0).cummax(0).values
    before = group_start[batch.fields[name].index] - 1
    own = batch.fields[name].index
    known = (before >= 0) & (before // length == own // length) & (segment[before.clamp(min=0)] == segment[own])
    return before[known], known.nonzero().squeeze(1)
