"""Patterns of attention: windows, global tokens and random links, as one condition of the rule who may attend to whom.

After Longformer (Beltagy et al. 2020, 3.1) and BigBird (Zaheer et al. 2020, 2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from anyformer.errors import InputError, nearest
from anyformer.model.attention.places import Places, Wanted
from anyformer.model.config import PatternConfig, TransformerConfig
from anyformer.model.learned_tokens import LearnedTokens
from anyformer.tokens import Tokenizer

GOLDEN = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Drawn:
    """Links of every place of a sample to earlier ones, a function of (seed, layer, place) alone: what is drawn for a
    text holds for every longer one. Along a link both see each other."""

    n: int
    seed: int
    layer: int

    mutual = True

    def targets(self, place: Tensor) -> Tensor:
        """place: (...) int64. Returns (..., n) int64, ascending, -1 where there is none; n different ones, or all that
        are earlier where these are fewer: each from a stretch of its own."""
        number = torch.arange(self.n, device=place.device)
        low, high = (place[..., None] * (number + i) // self.n for i in (0, 1))
        start = _mixed_int(self.seed * GOLDEN + self.layer)
        drawn = _mixed((place[..., None] * self.n + number) * _signed(GOLDEN) + _signed(start))
        found = low + (drawn & (2**63 - 1)) % (high - low).clamp(min=1)
        return torch.where(high > low, found, -1)


@dataclass(frozen=True)
class Given:
    """Links by a table: of every place those that it sees."""

    table: tuple[tuple[int, ...], ...]

    mutual = False

    @cached_property
    def _padded(self) -> Tensor:
        width = max(map(len, self.table), default=0)
        return torch.tensor([[*row, *[-1] * (width - len(row))] for row in self.table], dtype=torch.int64)

    def targets(self, place: Tensor) -> Tensor:
        """As of `Drawn`; places behind the table have none."""
        found = self._padded.to(place.device)[place.clamp(max=len(self.table) - 1)]
        return found.masked_fill((place >= len(self.table))[..., None], -1)


def _mixed(x: Tensor) -> Tensor:
    """The bits of int64 numbers, mixed (splitmix64, Steele et al. 2014)."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> shift & (1 << 64 - shift) - 1)) * _signed(factor)
    return x ^ (x >> 31 & (1 << 33) - 1)


def _mixed_int(x: int) -> int:
    return int(_mixed(torch.tensor(_signed(x % 2**64)))) % 2**64


def _signed(x: int) -> int:
    """The int64 of the same 64 bits."""
    return x - 2**64 if x >= 2**63 else x


@dataclass(frozen=True)
class Reach:
    """Whether a token sees another by a window, or because one of them is global, or along a link; itself in any
    case."""

    window: tuple[tuple[int, float], ...] = ()
    """Columns of the coordinates, and the largest difference on each."""
    fields: tuple[tuple[int, int | None], ...] = ()
    """Global fields, and how many of their first tokens; None: all."""
    links: Drawn | Given | None = None
    block: int = 1
    """So many neighbours on an axis, or in the sample, count as one for window and links."""

    def __call__(self, query: Places, key: Places) -> Tensor:
        """As a condition of the rule: (b, queries, keys) boolean."""
        seen = self._near(query, key)
        if self.links is not None or not self.window:
            own, other = query.rank[:, :, None] // self.block, key.rank[:, None] // self.block
            seen = own == other if seen is None else seen | (own == other)
            for target in () if self.links is None else self.links.targets(own[:, :, 0]).unbind(2):
                seen |= target[:, :, None] == other
            if self.links is not None and self.links.mutual:
                for target in self.links.targets(other[:, 0]).unbind(2):
                    seen |= target[:, None] == own
        if self.fields:
            seen = seen | self.is_global(query)[:, :, None] | self.is_global(key)[:, None]
        return seen

    def _near(self, query: Places, key: Places, is_later: bool = False) -> Tensor | None:
        """By the window; None without one. is_later: or near a token that stands behind the query."""
        seen = None
        for column, width in self.window:
            away = self.on_axis(query, column)[:, :, None] - self.on_axis(key, column)[:, None]
            # Where one of the two has no such axis the difference is NaN, and it is not limited.
            within = ~((away if is_later else away.abs()) > width)
            seen = within if seen is None else seen & within
        return seen

    def on_axis(self, places: Places, column: int) -> Tensor:
        """Coordinates as the window counts them, (b, n)."""
        coordinate = places.coordinate[:, :, column]
        return coordinate if self.block == 1 else (coordinate / self.block).floor()

    def is_global(self, places: Places) -> Tensor:
        """(b, n) boolean."""
        found = torch.zeros_like(places.field, dtype=torch.bool)
        for field, n in self.fields:
            found |= places.field == field if n is None else (places.field == field) & (places.nth < n)
        return found

    def still_seen(self, newest: Places, key: Places) -> Tensor | None:
        """Which keys a token may see that stands where the newest of its row does or behind, on every axis, and is of
        the same field: (b, keys) boolean; None: all.

        newest: (b, 1).
        """
        if self.links is not None or not self.window or self.is_global(newest).any():
            return None
        return self._near(newest, key, is_later=True)[:, 0] | self.is_global(key)


def narrows(pattern: PatternConfig) -> bool:
    """Whether a pattern leaves anything out."""
    return not pattern.keys().isdisjoint(("window", "global", "random"))


def wanted_by(config: TransformerConfig) -> Wanted:
    """What a stack asks of places; the axis of its relative bias comes first."""
    own = [] if config.relative is None else [config.relative.axis]
    axes = [*own, *(axis for pattern in config.patterns or () for axis in pattern.get("window", {}))]
    counts = any(map(_counts, config.patterns or ()))
    return Wanted(tuple(dict.fromkeys(axes)), counts, any("compress" in each for each in config.patterns or ()))


def _counts(pattern: PatternConfig) -> bool:
    """Whether a pattern asks for the numbers of tokens in their sample or field."""
    is_counted = "random" in pattern or not pattern.get("window") or isinstance(pattern.get("global"), Mapping)
    return narrows(pattern) and is_counted


def make_reach(pattern: PatternConfig, axes: Sequence[str], fields: Sequence[str], layer: int) -> Reach:
    """The condition of a pattern in a layer. axes: of the coordinates; fields: names of all."""
    first = pattern.get("global", [])
    first = first if isinstance(first, Mapping) else dict.fromkeys(first)
    random, links = pattern.get("random"), None
    if isinstance(random, int):
        links = Drawn(random, pattern.get("seed", 0), layer)
    elif random is not None:
        links = Given(tuple(map(tuple, random)))
    return Reach(
        window=tuple((axes.index(axis), width) for axis, width in pattern.get("window", {}).items()),
        fields=tuple((fields.index(field), n) for field, n in first.items()),
        links=links,
        block=pattern.get("block", 1),
    )


def check_fields(config: TransformerConfig, tokenizers: Mapping[str, Tokenizer], stack: str) -> None:
    """Raise InputError for a pattern that names an axis or field that there is not, or more links than places."""
    axes = list(dict.fromkeys(axis for tokenizer in tokenizers.values() for axis in tokenizer.axes))
    n_places = _n_places(tokenizers)
    for i, pattern in enumerate(config.patterns or ()):
        where = f"{stack}.patterns.{i}"
        for axis in pattern.get("window", {}):
            if axis not in axes:
                known = f"there are {', '.join(axes)}" if axes else "there is none"
                raise InputError(f"{where}.window: no field has the axis {axis!r}; {known}{nearest(axis, axes)}")
        for field in pattern.get("global", []):
            if field not in tokenizers:
                known = list(tokenizers)
                raise InputError(
                    f"{where}.global: there is no field {field!r}, but {', '.join(known)}{nearest(field, known)}"
                )
        random, block = pattern.get("random"), pattern.get("block", 1)
        n = random if isinstance(random, int) else 0
        if n_places is not None and n >= -(-n_places // block):
            of = "places" if block == 1 else f"blocks of {block} places"
            raise InputError(
                f"{where}.random: {n} links a token are more than the other {-(-n_places // block) - 1} {of} of a "
                "sample; give fewer, or leave the pattern out to see everything"
            )


def check_compression(
    config: TransformerConfig, related: Sequence[str], stack: str, is_decoder: bool, has_sees: bool
) -> None:
    """Raise InputError for layers over fewer keys that cannot hide what must be hidden.

    related: the fields whose tokens have relations or links. is_decoder: whether there is an encoder beside the stack.
    """
    for i, pattern in enumerate(config.patterns or ()):
        for key in ("compress", "linformer"):
            where = f"{stack}.patterns.{i}.{key}"
            if key in pattern and has_sees:
                raise InputError(f"{where} joins tokens of all fields, so that sees cannot hold; leave one of them out")
            if key in pattern and related:
                raise InputError(
                    f"{where} joins tokens, so that relations between them, as of the field {related[0]!r}, cannot "
                    "hold; leave it out"
                )
        if "linformer" in pattern and is_decoder:
            raise InputError(
                f"{stack}.patterns.{i}.linformer cannot be in a decoder, whose tokens stand one after another; give it "
                "to the encoder, and here take compress"
            )


def _n_places(tokenizers: Mapping[str, Tokenizer]) -> int | None:
    """The most tokens of a sample, where every tokenizer tells the size of its axes."""
    total = 0
    for tokenizer in tokenizers.values():
        if isinstance(tokenizer, LearnedTokens):
            total += tokenizer.n
        elif tokenizer.axes and all(axis in tokenizer.sizes for axis in tokenizer.axes):
            total += math.prod(tokenizer.sizes[axis] for axis in tokenizer.axes)
        else:
            return None
    return total
