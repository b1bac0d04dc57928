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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn

from anyformer.choices import Checked

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
    edges: (e, 3) int64 or None; the same as a list, of large sets in which few pairs are related: an edge (from, to,
        kind) says that token `to` is `kind` to token `from`, which looks at it. Of several edges of a pair the biases
        add up. Whether a pair without an edge may be seen is said by `Tokenizer.edges_only`.
    links: edges to the tokens of a field of the same sample, which may be this one, as a record's column gives them: by
        the field's name (e, 3) int64, with kinds numbered among those of all links, -1 for none.
    inside: a sample of its own, by field, that the lift reads by itself in place of the content, where the tokens are
    what an encoder makes of the record; see `Tokenizer.inside`. None: the lift reads the content.

    Raises ValueError where the shapes contradict each other.
    """

    content: Tensor
    position: Tensor = None  # type: ignore[assignment]
    order: Tensor = None  # type: ignore[assignment]
    relation: Tensor | None = None
    extent: tuple[int, ...] = None  # type: ignore[assignment]
    masked: Tensor | None = None
    edges: Tensor | None = None
    links: Mapping[str, Tensor] | None = None
    inside: Mapping[str, TokenSet] | None = None

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
        if self.edges is not None:
            if self.edges.shape != (len(self.edges), 3):
                raise ValueError(f"edges must be (e, 3), each (from, to, kind), got {tuple(self.edges.shape)}")
            if len(self.edges) and not 0 <= int(self.edges[:, :2].min()) <= int(self.edges[:, :2].max()) < n:
                raise ValueError(f"edges must be between the tokens 0 to {n - 1}, got {self.edges[:, :2].tolist()}")
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


class Tokenizer(Checked, ABC):
    """Cuts records of one modality into token sets, and says how their content is lifted to d_model.

    A subclass is a frozen dataclass of plain values: it has no weights, runs in data workers, and is written to a run's
    config as it stands. Weights live in the lift. A tokenizer whose record holds several fields returns a dict from
    `encode` and names the tokenizer of each in `parts`.
    """

    axes: ClassVar[tuple[str, ...]] = ()
    """Names of the columns of `position`: word, row, column, time, step, ... Fields may share one."""
    n_relations: ClassVar[int] = 0
    """Relations, and the kinds of edges, are 0 ... n_relations - 1."""
    edges_only: ClassVar[bool] = False
    """Whether the tokens of a record look at each other along edges alone, and each at itself; where it is so, and
    where `encode` gives edges at all, `empty` has a list of none."""
    takes_columns: ClassVar[bool] = False
    """Whether a record of it is a dict of several columns."""
    together: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Groups of arguments that say one thing together, as a vocabulary: where a config gives one of them otherwise than
    the model that it starts from, it takes none of the group over."""
    seconds_per_token: ClassVar[float | None] = None
    """How long a token of the axis `time` takes, where positions count tokens."""
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

    @property
    def inside(self) -> dict[str, Tokenizer]:
        """The tokenizers of the sample that a token set holds inside, by field, where an encoder reads each record by
        itself; {} where the lift reads the content."""
        return {}

    def named(self, field: str) -> Self:
        """A copy that knows what its field is called, where a bare value is the column of that name."""
        return self

    @property
    def augments(self) -> bool:
        """Whether `encode` draws from `random`, so that a record has many views: where it, or one of its parts, has an
        `augment` that is set, if nothing else is said."""
        return bool(getattr(self, "augment", None)) or any(part.augments for part in self.parts.values())

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
        alone. Where there is something `inside`, the content is a `Batch` of it, one sample for each of the field's.
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

    def reads_column(self, name: str) -> bool:
        """Whether, of a field that is read from several columns, it reads the one of this name."""
        return True

    def inherit(self, other: Tokenizer) -> Self:
        """A copy that holds what another one learnt of its data, where this would learn it anew: training starts from
        the weights that were made for that."""
        return self

    def rows_from(self, other: Tokenizer) -> Tensor | None:
        """Of a vocabulary: for each id here the id of the other that means the same, (v,) int64, -1 where there is
        none. None where all ids are the same, and for what has no vocabulary."""
        return None

    def agree(self, other: Tokenizer, name: str) -> None:
        """Raise InputError, with the first difference, if the content of the other, of that name, means something else
        than the same content here: other words for the same ids."""
        return None


# Whoever evaluates the types of a subclass evaluates these too, in its module, which need not know the names in them.
Tokenizer.__annotations__ = get_type_hints(Tokenizer)


def expand(tokenizers: Mapping[str, Tokenizer]) -> dict[str, Tokenizer]:
    """The tokenizer of every field: one whose record holds several stands as `name.part` for each of them."""
    flat: dict[str, Tokenizer] = {}
    for name, tokenizer in tokenizers.items():
        parts = tokenizer.parts
        flat |= {f"{name}.{part}": inner for part, inner in parts.items()} if parts else {name: tokenizer}
    return flat
