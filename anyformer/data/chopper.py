"""The collate function of a task: record -> item, items -> batch. It runs in the data workers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from anyformer.choices import Checked
from anyformer.data.values import edges_of, is_json, is_missing, parse_json
from anyformer.errors import InputError
from anyformer.links import Link
from anyformer.tokens import Sample, Tokenizer, expand


class LeftOut(InputError):
    """A sample that cannot be learned from through no fault of its own: it is left out and counted, never fatal."""


class Unasked(LeftOut):
    """A sample that has nothing of what a pass of an evaluation is about; nobody needs to hear of it."""


@dataclass(frozen=True)
class Chopper(Checked, ABC):
    """The collate function of a task: record -> item, items -> batch. Of plain values alone, to reach the workers."""

    tokenizers: Mapping[str, Tokenizer]
    """Of the fields that come from the record: strings of one that reads files are file names."""
    dropout: Mapping[str, float] = field(default_factory=dict, kw_only=True)
    """Of each input the share of training samples that it is left out of."""
    without: tuple[str, ...] = field(default=(), kw_only=True)
    """Inputs that are left out of every sample."""
    links: tuple[Link, ...] = field(default=(), kw_only=True)
    """Edges between tokens, from columns of the record."""
    by: str | None = field(default=None, kw_only=True)
    """The column whose value says which group of samples a record belongs to, for metrics by group."""

    @abstractmethod
    def __call__(self, record: Mapping[str, Any], random: np.random.Generator | None = None) -> Any:
        """One item. Raises InputError, with the field's name, for a record that cannot be used."""

    @abstractmethod
    def collate(self, items: Sequence[Any], rows: Sequence[int] | None = None) -> Any:
        """A batch of items; `rows` as in `packing.collate`."""

    def encode(
        self, record: Mapping[str, Any], random: np.random.Generator | None = None, empty_too: bool = False
    ) -> Sample:
        """The token sets of the fields that the record has, without those that are left out.

        empty_too: whether a record may come to no token at all, as an empty text does.
        Raises InputError for a record without any token, or one that cannot be used; Unasked for one whose inputs are
        all left out.
        """
        never = self._meant(self.without)
        dropped, last = self._dropped(random)
        sample = self._cut(record, random, never | dropped)
        if dropped and not _has_tokens(sample):
            # One input always stays, of those that hold anything.
            whole = self._cut(record, random, never)
            present = [name for name, tokens in whole.items() if len(tokens)]
            sample = {name: whole[name] for name in present[int(last * len(present)) :][:1]}
        if _has_tokens(sample) or (sample and empty_too):
            return sample
        given = [name for name in self.tokenizers if record.get(name) is not None]
        if self.without and given:
            raise Unasked(f"the record has nothing but {', '.join(self.without)}")
        held = [name for name in self.tokenizers if name in record]
        empty = f", and nothing is in {', '.join(held)}" if held else ""
        has = ", ".join(record) or "none of them"
        raise InputError(f"a record needs one of the fields {', '.join(self.tokenizers)}; it has {has}{empty}")

    def conditions(
        self, record: Mapping[str, Any], random: np.random.Generator | None = None, empty_too: bool = False
    ) -> Sample:
        """As `encode`, with all tokens at order 0: everything sees everything, and nothing a text that is written."""
        sample = self.encode(record, random, empty_too)
        return {name: tokens.at(0) if tokens.order.any() else tokens for name, tokens in sample.items()}

    def _cut(self, record: Mapping[str, Any], random: np.random.Generator | None, gone: set[str]) -> Sample:
        """The token sets of the fields that the record has and that are not gone."""
        sample: Sample = {}
        for name, tokenizer in self.tokenizers.items():
            if record.get(name) is None or (gone and gone.issuperset(self._parts[name])):
                continue
            try:
                tokens = tokenizer.encode(record[name], random)
            except InputError as error:
                raise InputError(f"field {name!r}: {error}") from error
            parts = {f"{name}.{part}": t for part, t in tokens.items()} if isinstance(tokens, dict) else {name: tokens}
            sample |= {each: part for each, part in parts.items() if each not in gone}
        for link in self.links:
            try:
                _add_link(link, sample, record.get(link.column))
            except InputError as error:
                raise InputError(f"column {link.column!r}: {error}") from error
        return sample

    def _dropped(self, random: np.random.Generator | None) -> tuple[set[str], float]:
        """The fields that chance takes from a training sample, and which one stays where all would go, in 0 ... 1."""
        if random is None or not self.dropout:
            return set(), 0.0
        # Before all other draws, and as many whatever the record has.
        *draws, last = random.random(len(self.dropout) + 1).tolist()
        taken = [name for (name, share), drawn in zip(self.dropout.items(), draws, strict=True) if drawn < share]
        return self._meant(taken), last

    def _meant(self, names: Sequence[str]) -> set[str]:
        """The fields that names mean: all of an input, or one of them."""
        return {each for name in names for each in self._parts.get(name, (name,))}

    @cached_property
    def _parts(self) -> dict[str, tuple[str, ...]]:
        """The fields of each input."""
        return {name: tuple(expand({name: tokenizer})) for name, tokenizer in self.tokenizers.items()}

    def partner(self, n: int, random: np.random.Generator) -> int | None:
        """Which of the n samples of the training part an item is blended with; None: with none."""
        return None

    def mix(self, item: Any, other: Any | None, random: np.random.Generator) -> Any:
        """An item blended with its partner's."""
        return item

    packs: ClassVar[bool] = True
    """Whether `collate` may be given rows."""

    def count(self, record: Mapping[str, Any]) -> int | tuple[int, int]:
        """The number of tokens that the record's fields come to, from headers where formats have them; two numbers
        where two stacks read it."""
        return sum(t.count(record[name]) for name, t in self.tokenizers.items() if record.get(name) is not None)


def _add_link(link: Link, sample: Sample, value: Any) -> None:
    """Put the edges of a record's column into the token sets, where both fields are there."""
    if not sample.keys() >= {link.source, link.target}:
        return
    sizes = len(sample[link.source]), len(sample[link.target])
    value = parse_json(value) if is_json(value) else value
    if not isinstance(value, list | tuple | np.ndarray) and not is_missing(value):
        raise InputError(f"must hold a list of edges, got {value!r:.60}")
    given = [] if not isinstance(value, list | tuple | np.ndarray) else list(value)
    names = (f"token {{}} of field {link.source!r}", f"token {{}} of field {link.target!r}")
    named, first = edges_of(given, sizes, names), {}
    for i, (start, end, kind) in enumerate(named):
        # Where edges have no direction, one field's are the same either way.
        same = tuple(sorted((start, end))) if link.source == link.target and not link.directed else (start, end)
        if (same, kind) in first:
            raise InputError(f"edge {i}, {given[i]!r:.60}, says again what edge {first[same, kind]} does; give it once")
        first[same, kind] = i
    edges = torch.tensor([(start, end, link.number(kind)) for start, end, kind in named], dtype=torch.int64).view(-1, 3)
    own_way = edges
    if link.edges_only and link.source == link.target:
        own = torch.arange(sizes[0])
        edges = torch.cat([edges, torch.stack([own, own, torch.full_like(own, -1)], 1)])
    _join_links(sample, link.source, link.target, edges)
    if not link.directed:
        # An edge of a token to itself has no other way.
        back = own_way[own_way[:, 0] != own_way[:, 1]] if link.source == link.target else own_way
        _join_links(sample, link.target, link.source, back[:, [1, 0, 2]])


def _join_links(sample: Sample, source: str, target: str, edges: Tensor) -> None:
    links = dict(sample[source].links or {})
    links[target] = torch.cat([links[target], edges]) if target in links else edges
    sample[source] = replace(sample[source], links=links)


def _has_tokens(sample: Sample) -> bool:
    return any(len(tokens) for tokens in sample.values())
