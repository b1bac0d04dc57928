"""A token is the sum of what it is, which field it comes from and where it stands: lift + type + position."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from anyformer.attention import dropout, make_norm
from anyformer.batch import Batch, FieldTokens
from anyformer.errors import InputError
from anyformer.positions import Rotary
from anyformer.tokens import Tokenizer
from anyformer.transformer import TransformerConfig


class Lookup(nn.Module):
    """Lifts ids: one learned vector each."""

    def __init__(self, vocab_size: int, d_model: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(vocab_size, d_model).normal_(std=0.02))

    def forward(self, content: Tensor, extents: Sequence[tuple[int, ...]] = ()) -> Tensor:
        """content: (total,) int64. Returns (total, d)."""
        return F.embedding(content, self.table)


class SharedLift(nn.Module):
    """Lifts content by the weights of another field's lift, which stays their owner: one name among the parameters."""

    def __init__(self, owner: nn.Module) -> None:
        nn.Module.__init__(self)
        # In a tuple, so that it is no submodule.
        self._owner = (owner,)

    @property
    def owner(self) -> nn.Module:
        return self._owner[0]

    def forward(self, content: Tensor, extents: Sequence[tuple[int, ...]] = ()) -> Tensor:
        return self._owner[0](content, extents)


class SharedLookup(SharedLift, Lookup):
    """Lifts ids by the table of another field."""

    @property
    def table(self) -> Tensor:  # type: ignore[override]
        return self._owner[0].table


class Projection(nn.Module):
    """Lifts vectors (patches, slices, states): one linear map."""

    def __init__(self, d_content: int, d_model: int, bias: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(d_content, d_model, bias=bias)

    def forward(self, content: Tensor, extents: Sequence[tuple[int, ...]] = ()) -> Tensor:
        """content: (total, *feature) float. Returns (total, d)."""
        return self.linear(content.flatten(1))


@dataclass(frozen=True)
class PositionConfig:
    """A position embedding for every field that has these axes. Fields with an axis in common share it."""

    axes: tuple[str, ...]
    """Names of the axes."""
    scheme: Literal["learned", "joint", "sinusoidal"] = "learned"
    """learned: a table for each axis, summed. joint: one table over the grid of all axes (ViT); it resizes to another
    grid.
    sinusoidal: sines and cosines, d_model divided evenly among the axes."""
    sizes: tuple[int, ...] | None = None
    """Places on each axis, for the tables; what the tokenizers say when left out. Sines on one axis become a table by
    them, which is not learned; weights from elsewhere may bring another."""
    sines: Literal["interleaved", "halves", "whisper"] = "interleaved"
    """interleaved: sine and cosine in turn (Vaswani et al. 2017, 3.5). halves: sines, then cosines (Marian). whisper:
    halves whose slowest frequency is 1 / base exactly."""
    base: float = 10_000.0
    """Of the sinusoidal frequencies."""

    def __post_init__(self) -> None:
        if not self.axes:
            raise InputError("positions.axes must name at least one axis, got none")
        if self.sizes is not None and len(self.sizes) != len(self.axes):
            axes = ", ".join(self.axes)
            raise InputError(f"positions.sizes must have a number for each of the axes {axes}, got {list(self.sizes)}")
        if self.scheme == "sinusoidal" and self.sizes is not None and len(self.axes) > 1:
            raise InputError(
                "positions.sizes makes a table of the sines on one axis; leave it out where there are several"
            )


@dataclass(frozen=True)
class EmbeddingConfig:
    """How content, type and position become a token."""

    types: bool = True
    """Whether each field has a learned type vector."""
    positions: list[PositionConfig] | None = None
    """Position embeddings; when left out a joint learned table over the axes of every field that rotary or relative
    positions do not cover."""
    scale: bool = False
    """Whether content is multiplied by sqrt(d_model) (Vaswani et al. 2017, 3.4)."""
    norm: bool = False
    """Whether the sum is normed (BERT)."""
    offset: bool = False
    """Whether one learned vector, the same for all tokens, is added behind the norm (transformers' Decision
    Transformer)."""
    dropout: float = 0.0
    """On the sum."""
    axes: tuple[str, ...] = ()
    """Axes that positions may go by even if no field here has them: those of all tasks of a mixture."""


class LearnedPositions(nn.Module):
    """A table of vectors for each axis; a token gets the sum of its rows."""

    def __init__(self, sizes: Sequence[int], d_model: int) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.tables = nn.ParameterList(torch.empty(size, d_model).normal_(std=0.02) for size in sizes)

    def forward(self, position: Tensor) -> Tensor:
        """position: (total, axes) int64. Returns (total, d)."""
        return sum(F.embedding(position[:, i], table) for i, table in enumerate(self.tables))


class JointPositions(nn.Module):
    """One table over the grid of all axes."""

    def __init__(self, sizes: Sequence[int], d_model: int) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.table = nn.Parameter(torch.empty(math.prod(sizes), d_model).normal_(std=0.02))

    def forward(self, position: Tensor) -> Tensor:
        """position: (total, axes) int64. Returns (total, d)."""
        place = position[:, 0]
        for i, size in enumerate(self.sizes[1:], start=1):
            place = place * size + position[:, i]
        return F.embedding(place, self.table)

    def resize(self, sizes: tuple[int, int]) -> None:
        """Stretch the table of two axes to a grid of other sizes, in place; an optimiser made before does not know
        it."""
        self.table = nn.Parameter(resize_grid(self.table.detach(), self.sizes, sizes))
        self.sizes = sizes


def resize_grid(table: Tensor, sizes: tuple[int, int], new_sizes: tuple[int, int]) -> Tensor:
    """A joint table for another grid, by antialiased bicubic interpolation (ViT, Dosovitskiy et al. 2021, 3.2).

    table: (rows * columns, d). Returns (new rows * new columns, d).
    """
    if sizes == new_sizes:
        return table
    grid = rearrange(table, "(row column) d -> 1 d row column", row=sizes[0])
    grid = F.interpolate(grid.float(), size=new_sizes, mode="bicubic", antialias=True).to(table.dtype)
    return rearrange(grid, "1 d row column -> (row column) d")


class SinusoidalPositions(nn.Module):
    """Sines and cosines of the position at falling frequencies; nothing is learned, and positions may be continuous."""

    def __init__(self, config: PositionConfig, d_model: int) -> None:
        super().__init__()
        if d_model % (2 * len(config.axes)):
            raise InputError(
                f"sinusoidal positions on {len(config.axes)} axes need a d_model that is a multiple of "
                f"{2 * len(config.axes)}, got {d_model}"
            )
        self.sizes = ()  # any position has its sines
        self.interleaved = config.sines == "interleaved"
        pairs = d_model // (2 * len(config.axes))
        steps = max(pairs - 1, 1) if config.sines == "whisper" else pairs
        self.register_buffer("frequency", config.base ** (-torch.arange(pairs) / steps), persistent=False)

    def forward(self, position: Tensor) -> Tensor:
        """position: (total, axes). Returns (total, d): the features of the first axis, then those of the next."""
        angle = position[:, :, None] * self.frequency
        if self.interleaved:
            return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)
        return torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(1)


class SineTable(nn.Module):
    """Sines on one axis as a table, which is not learned. Others may be loaded in its place: Whisper's are rounded."""

    def __init__(self, config: PositionConfig, d_model: int) -> None:
        super().__init__()
        self.sizes = tuple(config.sizes)
        places = torch.arange(self.sizes[0])[:, None]
        self.register_buffer("table", SinusoidalPositions(config, d_model)(places))

    def forward(self, position: Tensor) -> Tensor:
        """position: (total, 1) int64. Returns (total, d)."""
        return F.embedding(position[:, 0], self.table)


class Embeddings(nn.Module):
    """Lifts every field's content and sets it into the rows, with type and position added."""

    def __init__(
        self,
        tokenizers: Mapping[str, Tokenizer],
        transformer: TransformerConfig,
        config: EmbeddingConfig,
        encoder: TransformerConfig | None = None,
        shared: Mapping[str, str] = MappingProxyType({}),
        maskable: Sequence[str] = (),
    ) -> None:
        """
        tokenizers: of every field, see `expand`.
        transformer, encoder: the stacks that the tokens are for, whose attention may go by different axes.
        shared: field -> the field whose lift it uses, weights and all; each keeps a type vector of its own.
        maskable: fields that have a learned vector in the place of what is masked of their content.
        Raises InputError where a table's size or an axis is not known, and where fields cannot share a lift.
        """
        super().__init__()
        self.config = config
        d_model = transformer.d_model
        self.axes = {name: tuple(tokenizer.axes) for name, tokenizer in tokenizers.items()}
        # Module names must not hold a dot, and the fields of a record of several do.
        self.lifts = nn.ModuleDict({_key(name): tokenizer.lift(d_model) for name, tokenizer in tokenizers.items()})
        for name, owner in shared.items():
            if owner in shared:
                raise InputError(f"fields {owner!r} and {name!r} cannot share a lift: that of {owner!r} is another's")
            self.lifts[_key(name)] = _shared_lift(name, self.lifts[_key(name)], owner, self.lifts[_key(owner)])
        self.masks = nn.ParameterDict({_key(name): torch.empty(d_model).normal_(std=0.02) for name in maskable})
        # Fields of one lift differ by their type alone, which then begins about as strong as what lifts put out: far
        # weaker, and a model takes thousands of steps to tell a left picture from a right one. Ids begin weak too.
        alike = {name for pair in shared.items() for name in pair if not isinstance(self.lifts[_key(name)], Lookup)}
        self.types = nn.ParameterDict(
            {_key(name): torch.empty(d_model).normal_(std=0.5 if name in alike else 0.02) for name in tokenizers}
            if config.types
            else {}
        )
        told = [_told_by_attention(stack) for stack in (transformer, encoder) if stack]
        self.placed = config.positions
        if self.placed is None:
            # An axis needs no table where the attention of every stack goes by it.
            covered = set(told[0]).intersection(*told)
            rest = {axes: None for axes in self.axes.values() if axes and not set(axes) <= covered}
            self.placed = [PositionConfig(axes, "joint") for axes in rest]
        self._check_axes(
            [axis for axes in (*(position.axes for position in self.placed), *told) for axis in axes], tokenizers
        )
        self.positions = nn.ModuleList(_positions(position, tokenizers, d_model) for position in self.placed)
        self.rotary, self.encoder_rotary = (
            Rotary(stack.rotary, stack.head_width) if stack and stack.rotary else None
            for stack in (transformer, encoder)
        )
        self.norm = make_norm(transformer.norm, d_model, transformer) if config.norm else nn.Identity()
        self.offset = nn.Parameter(torch.empty(d_model).normal_(std=0.02)) if config.offset else None

    def _check_axes(self, named: Sequence[str], tokenizers: Mapping[str, Tokenizer]) -> None:
        known = dict.fromkeys([axis for axes in self.axes.values() for axis in axes] + list(self.config.axes))
        for axis in named:
            if axis not in known:
                raise InputError(
                    f"no field has the axis {axis!r} that positions name, in transformer.rotary or relative or in "
                    f"embedding.positions; there are {', '.join(known) or 'none'}"
                )
        for position in self.placed:
            if not any(set(position.axes) <= set(axes) for axes in self.axes.values()):
                raise InputError(
                    f"no single field has all the axes {', '.join(position.axes)} of a position embedding; "
                    f"give each axis an embedding of its own"
                )
            for name, axes in self.axes.items():
                is_continuous = tokenizers[name].empty().position.is_floating_point()
                is_table = position.scheme != "sinusoidal" or position.sizes is not None
                if is_table and set(position.axes) <= set(axes) and is_continuous:
                    raise InputError(
                        f"field {name!r} is continuous on {', '.join(position.axes)}, where a table of positions has "
                        "no rows; use sinusoidal or rotary positions"
                    )

    def forward(self, batch: Batch) -> Tensor:
        """The tokens of a batch in their rows, (b, n, d); 0 at padding."""
        vectors = [self._tokens(name, tokens) for name, tokens in batch.fields.items()]
        index = torch.cat([tokens.index for tokens in batch.fields.values()])
        vectors = self.norm(torch.cat(vectors))
        if self.offset is not None:
            vectors = vectors + self.offset
        if self.training and self.config.dropout:
            vectors = dropout(vectors, self.config.dropout)
        rows = vectors.new_zeros(batch.shape.numel(), vectors.shape[1])
        return rows.index_copy(0, index, vectors).unflatten(0, batch.shape)

    def rotation(self, batch: Batch, encoder: bool = False) -> tuple[Tensor, Tensor] | None:
        """Cosines and sines for rotary attention in the transformer or the encoder, None without it."""
        rotary = self.encoder_rotary if encoder else self.rotary
        return None if rotary is None else rotary(batch, self.axes)

    def _tokens(self, name: str, tokens: FieldTokens) -> Tensor:
        vectors = self._lifted(name, tokens)
        if self.config.scale:
            vectors = vectors * math.sqrt(vectors.shape[1])
        if self.config.types:
            vectors = vectors + self.types[_key(name)]
        axes = self.axes[name]
        for config, positions in zip(self.placed, self.positions, strict=True):
            if set(config.axes) <= set(axes):
                columns = [axes.index(axis) for axis in config.axes]
                self._check_reach(name, tokens, columns, positions)
                position = tokens.position if columns == list(range(len(axes))) else tokens.position[:, columns]
                vectors = vectors + positions(position)
        return vectors

    def _lifted(self, name: str, tokens: FieldTokens) -> Tensor:
        lift, masked = self.lifts[_key(name)], tokens.masked
        if _key(name) not in self.masks:
            if masked is not None:
                raise ValueError(f"field {name!r} has masked tokens; name it in maskable when the model is made")
            return lift(tokens.content, tokens.extents)
        if masked is None:
            # The vector takes part all the same: its gradient is 0 then, not None.
            masked = torch.zeros(len(tokens.index), dtype=torch.bool, device=tokens.index.device)
        # Taken out before the lift, because that of one token may look at its neighbours.
        content = tokens.content.masked_fill(masked.view(-1, *[1] * (tokens.content.ndim - 1)), 0)
        vectors = lift(content, tokens.extents)
        return torch.where(masked[:, None], self.masks[_key(name)].to(vectors.dtype), vectors)

    def _check_reach(self, name: str, tokens: FieldTokens, columns: Sequence[int], positions: nn.Module) -> None:
        for column, size in zip(columns, positions.sizes, strict=False):
            if tokens.reach and tokens.reach[column] >= size:
                axis = self.axes[name][column]
                raise InputError(
                    f"field {name!r} reaches {axis} {tokens.reach[column]:.0f}, but the learned positions hold {size} "
                    f"(0 to {size - 1}); cut the data shorter, give positions.sizes, or use sinusoidal, rotary or "
                    "relative ones"
                )


def _key(name: str) -> str:
    return name.replace(".", "/")


def _shared_lift(name: str, ours: nn.Module, owner: str, theirs: nn.Module) -> SharedLift:
    """What lifts a field by the weights of another's lift. Raises InputError where these are for other content."""
    shapes = [{each: value.shape for each, value in lift.state_dict().items()} for lift in (ours, theirs)]
    if type(ours) is not type(theirs) or shapes[0] != shapes[1]:
        what = "have other ids" if isinstance(ours, Lookup) and isinstance(theirs, Lookup) else "are of other content"
        raise InputError(f"fields {owner!r} and {name!r} cannot share a lift: they {what}")
    return (SharedLookup if isinstance(theirs, Lookup) else SharedLift)(theirs)


def _told_by_attention(stack: TransformerConfig) -> tuple[str, ...]:
    """The axes on which a stack's attention knows where tokens stand."""
    relative = (stack.relative.axis,) if stack.relative else ()
    return (stack.rotary.axes if stack.rotary else ()) + relative


def _positions(config: PositionConfig, tokenizers: Mapping[str, Tokenizer], d_model: int) -> nn.Module:
    """The module of a position config; sizes that it leaves out are those of the tokenizers."""
    if config.scheme == "sinusoidal":
        return (SineTable if config.sizes else SinusoidalPositions)(config, d_model)
    sizes = config.sizes
    if sizes is None:
        known = [
            [tokenizer.sizes[axis] for tokenizer in tokenizers.values() if axis in tokenizer.sizes]
            for axis in config.axes
        ]
        for axis, found in zip(config.axes, known, strict=True):
            if not found:
                raise InputError(
                    f"learned positions on the axis {axis!r} need its size, which no tokenizer tells; "
                    f"give transformer.rotary: {{axes: [{', '.join(config.axes)}]}}, or embedding.positions with sizes "
                    "or scheme: sinusoidal"
                )
        sizes = tuple(max(found) for found in known)
    return (LearnedPositions if config.scheme == "learned" else JointPositions)(sizes, d_model)
