"""A token is the sum of what it is, which field it comes from and where it stands: lift + type + position."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor, nn

from anyformer.batch import Batch, FieldTokens
from anyformer.choices import Values
from anyformer.errors import InputError
from anyformer.model.attention.rotary import Rotary
from anyformer.model.by_field import FieldModules, FieldParameters
from anyformer.model.config import RotaryConfig, TransformerConfig
from anyformer.model.layers import dropout, make_norm
from anyformer.model.lifts import Lookup, SharedLift, share_lift
from anyformer.model.positions import PositionConfig, make_positions
from anyformer.tokens import Tokenizer


@dataclass(frozen=True)
class EmbeddingConfig(Values):
    """How content, type and position become a token."""

    types: bool = True
    """Whether each field has a learned type vector."""
    positions: list[PositionConfig] | None = None
    """Position embeddings; when left out a joint learned table over the axes of every field that rotary or relative
    positions do not cover. Where no tokenizer tells the size of one, as of a text without max_len, attention goes by
    rotary positions on that axis instead, and a table is over the others."""
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
    """Axes that positions may go by even if no field here has them: a mixture gives its tasks those of all; name them
    where such a task is trained further alone."""

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise InputError(f"embedding.dropout must be at least 0 and below 1, got {self.dropout}")


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
        self.lifts = FieldModules({name: tokenizer.lift(d_model) for name, tokenizer in tokenizers.items()})
        for name, owner in shared.items():
            if owner in shared:
                raise InputError(f"fields {owner!r} and {name!r} cannot share a lift: that of {owner!r} is another's")
            self.lifts[name] = share_lift(name, self.lifts[name], owner, self.lifts[owner])
        self.masks = FieldParameters({name: torch.empty(d_model).normal_(std=0.02) for name in maskable})
        # Fields of one lift differ by their type alone, which then begins about as strong as what lifts put out: far
        # weaker, and a model takes thousands of steps to tell a left picture from a right one. Ids begin weak too.
        alike = {name for pair in shared.items() for name in pair if not isinstance(self.lifts[name], Lookup)}
        self.types = FieldParameters(
            {name: torch.empty(d_model).normal_(std=0.5 if name in alike else 0.02) for name in tokenizers}
            if config.types
            else {}
        )
        stacks = [stack for stack in (transformer, encoder) if stack is not None]
        self.placed, rotary = config.positions, transformer.rotary
        if self.placed is None:
            self.placed = default_positions((axes, stacks) for axes in self.axes.values())
            covered = set.intersection(*({*axes_of_attention(stack)} for stack in stacks))
            if encoder is None and rotary is None:
                rotary = default_rotary(self.placed, tokenizers, transformer)
                covered |= set() if rotary is None else {*rotary.axes}
            self.placed = without_axes(self.placed, covered - sized_axes(tokenizers))
        named = [*(position.axes for position in self.placed), *map(axes_of_attention, stacks)]
        self._check_axes([axis for axes in named for axis in axes], tokenizers)
        self.positions = nn.ModuleList(make_positions(position, tokenizers, d_model) for position in self.placed)
        self.rotary, self.encoder_rotary = (
            Rotary(turned, stack.head_width) if stack and turned else None
            for stack, turned in ((transformer, rotary), (encoder, encoder and encoder.rotary))
        )
        self.norm = make_norm(transformer.norm, d_model, transformer) if config.norm else nn.Identity()
        self.offset = nn.Parameter(torch.empty(d_model).normal_(std=0.02)) if config.offset else None

    def _check_axes(self, named: Sequence[str], tokenizers: Mapping[str, Tokenizer]) -> None:
        known = dict.fromkeys([axis for axes in self.axes.values() for axis in axes] + list(self.config.axes))
        for axis in named:
            if axis not in known:
                raise InputError(
                    f"no field has the axis {axis!r} that positions name, in transformer.rotary or relative or in "
                    f"embedding.positions; there are {', '.join(known) or 'none'}, and embedding.axes may name those "
                    "that only other tasks of the same weights have"
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
            vectors = vectors + self.types[name]
        axes = self.axes[name]
        for config, positions in zip(self.placed, self.positions, strict=True):
            if set(config.axes) <= set(axes):
                columns = [axes.index(axis) for axis in config.axes]
                self._check_reach(name, tokens, columns, positions)
                position = tokens.position if columns == list(range(len(axes))) else tokens.position[:, columns]
                vectors = vectors + positions(position)
        dtype = self._dtype(name)
        # Sines stay float32 in a model that was cast; under autocast what is float32 stays so.
        return vectors if dtype.itemsize >= 4 else vectors.to(dtype)

    def _lifted(self, name: str, tokens: FieldTokens) -> Tensor:
        lift, masked, content = self.lifts[name], tokens.masked, tokens.content
        if tokens.inside is not None:
            return lift(tokens.inside, tokens.extents)
        if content.is_floating_point():
            # Of a model that was cast: `task.bfloat16()`.
            content = content.to(self._dtype(name))
        if name not in self.masks:
            if masked is not None:
                raise ValueError(f"field {name!r} has masked tokens; name it in maskable when the model is made")
            return lift(content, tokens.extents)
        if masked is None:
            # The vector takes part all the same: its gradient is 0 then, not None.
            masked = torch.zeros(len(tokens.index), dtype=torch.bool, device=tokens.index.device)
        # Taken out before the lift, because that of one token may look at its neighbours.
        content = content.masked_fill(masked.view(-1, *[1] * (tokens.content.ndim - 1)), 0)
        vectors = lift(content, tokens.extents)
        return torch.where(masked[:, None], self.masks[name].to(vectors.dtype), vectors)

    def _dtype(self, name: str) -> torch.dtype:
        """Of the weights that lift a field."""
        lift = self.lifts[name]
        weights = (lift.owner if isinstance(lift, SharedLift) else lift).parameters()
        return next((weight.dtype for weight in weights), torch.float32)

    def _check_reach(self, name: str, tokens: FieldTokens, columns: Sequence[int], positions: nn.Module) -> None:
        for column, size in zip(columns, positions.sizes, strict=False):
            if tokens.reach and tokens.reach[column] >= size:
                axis = self.axes[name][column]
                raise InputError(
                    f"field {name!r} reaches {axis} {tokens.reach[column]:.0f}, but the learned positions hold {size} "
                    f"(0 to {size - 1}); cut the data shorter, give positions.sizes, or use sinusoidal, rotary or "
                    "relative ones"
                )


def axes_of_attention(stack: TransformerConfig) -> tuple[str, ...]:
    """The axes on which a stack's attention knows where tokens stand."""
    relative = (stack.relative.axis,) if stack.relative else ()
    return (stack.rotary.axes if stack.rotary else ()) + relative


def default_positions(fields: Iterable[tuple[Sequence[str], Sequence[TransformerConfig]]]) -> list[PositionConfig]:
    """The position embeddings where none are given: a joint table for the axes of a field, of which fields of the same
    axes share one; none where the attention of every stack that may read the field goes by all of them.

    fields: the axes of each, and the stacks.
    """
    placed = {}
    for axes, stacks in fields:
        covered = set.intersection(*(set(axes_of_attention(stack)) for stack in stacks))
        if not set(axes) <= covered:
            placed[tuple(axes)] = PositionConfig(tuple(axes), "joint")
    return list(placed.values())


def default_rotary(
    placed: Sequence[PositionConfig], tokenizers: Mapping[str, Tokenizer], transformer: TransformerConfig
) -> RotaryConfig | None:
    """Rotary positions on an axis whose size no tokenizer tells, where it is a field's only such one; None where there
    are no such, or attention has no room for them: then the table says that it cannot be.

    Those that are counted alone: what is measured, as time in seconds, has no scale that would be right for all.
    """
    sized = sized_axes(tokenizers)
    measured = {axis for each in tokenizers.values() if each.empty().position.is_floating_point() for axis in each.axes}
    unsized = [[axis for axis in each.axes if axis not in sized] for each in placed]
    axes = dict.fromkeys(own[0] for own in unsized if len(own) == 1 and own[0] not in measured)
    return RotaryConfig(tuple(axes)) if axes and transformer.head_width % (2 * len(axes)) == 0 else None


def sized_axes(tokenizers: Mapping[str, Tokenizer]) -> set[str]:
    """The axes of which a tokenizer tells how many places there are."""
    return {axis for tokenizer in tokenizers.values() for axis in tokenizer.sizes}


def without_axes(placed: Iterable[PositionConfig], covered: Collection[str]) -> list[PositionConfig]:
    """Position embeddings without axes that attention goes by and no table could be made for."""
    left = [(each, tuple(axis for axis in each.axes if axis not in covered)) for each in placed]
    return [replace(each, axes=axes) for each, axes in left if axes]
