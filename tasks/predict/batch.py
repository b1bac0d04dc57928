"""Records with what is to be predicted of them: in tokens, and in batches that say where each target is read."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch

from anyformer.errors import InputError
from anyformer.packing import collate
from anyformer.tasks.targets.aims import Aims
from anyformer.tasks.targets.pooling import ReadChopper
from anyformer.tasks.targets.target import Target
from anyformer.tokens import Sample, Tokenizer, expand


class Item(NamedTuple):
    """A record in tokens."""

    sample: Sample
    """With the class token and registers, and with what is masked marked."""
    values: Mapping[str, Any] = {}
    """By target, what is to be predicted; those that the record does not have are not there."""
    source: Mapping[str, Any] = {}
    """In evaluation, where texts are written, the inputs as they stand in the record."""
    views: tuple[Sample, ...] = ()
    """In evaluation and use, where predictions are averaged over views, the others of the record."""


@dataclass(frozen=True)
class PredictChopper(ReadChopper):
    """Records to items and batches of them."""

    targets: Mapping[str, Target]
    training: bool = False
    views: int = field(default=1, kw_only=True)
    """Of each record in evaluation and use: itself, and others as training would draw them."""

    def __call__(
        self, record: Mapping[str, Any], random: np.random.Generator | None = None, labelled: bool = True
    ) -> Item:
        sample = self.conditions(record, random)
        views = self._other_views(record, sample)
        if self._masked:
            n_present = sum(len(tokens) > 0 for tokens in sample.values())
            # In the sequence of the config, as one stream of chance serves all.
            for name in self._masked:
                if name in sample:
                    target, tokenizer = self.targets[name], self.inputs[name]
                    sample[name] = target.hide(name, sample[name], tokenizer, random, alone=n_present == 1)
        values = {}
        if labelled:
            found = {name: target.value(name, record) for name, target in self.targets.items()}
            values = {name: value for name, value in found.items() if value is not None}
            if not values and not self._has_masked(record):
                columns = [each for name, target in self.targets.items() for each in target.columns_of(name)]
                which = f"field {columns[0]!r}" if len(columns) == 1 else f"one of the fields {', '.join(columns)}"
                raise InputError(f"{which} must hold what is to be predicted, but the record has none")
        is_shown = labelled and not self.training and self._generated
        source = {n: record[n] for n in self.tokenizers if record.get(n) is not None} if is_shown else {}
        return Item(sample | self.own_tokens, values, source, views)

    def _other_views(self, record: Mapping[str, Any], sample: Sample) -> tuple[Sample, ...]:
        """The record as training would augment it, with nothing masked and no input dropped.

        What is drawn is a function of its content alone, so that it is the same in every evaluation and use.
        """
        if self.training or self.views == 1:
            return ()
        content = zlib.crc32(b"".join(tokens.content.numpy().tobytes() for tokens in sample.values()))
        generators = (np.random.default_rng((content, i)) for i in range(1, self.views))
        return tuple(self._whole.conditions(record, random) | self.own_tokens for random in generators)

    @cached_property
    def _whole(self) -> PredictChopper:
        return replace(self, dropout={})

    def _has_masked(self, record: Mapping[str, Any]) -> bool:
        return any(record.get(name.partition(".")[0], record.get(name)) is not None for name in self._masked)

    @cached_property
    def inputs(self) -> dict[str, Tokenizer]:
        """By field of the model."""
        return expand(self.tokenizers)

    @cached_property
    def _masked(self) -> list[str]:
        return [name for name, target in self.targets.items() if target.hides]

    @cached_property
    def _generated(self) -> dict[str, Tokenizer]:
        return generated(self.targets)

    @cached_property
    def fields(self) -> dict[str, Tokenizer]:
        """Of all fields, in the model's sequence."""
        return expand({**self.tokenizers, **self.own, **self._generated})

    def count(self, record: Mapping[str, Any]) -> int:
        return super().count(record) + sum(target.count(name, record) for name, target in self.targets.items())

    def collate(self, items: Sequence[Item], rows: Sequence[int] | None = None) -> Aims:
        samples = [
            item.sample | {n: self.targets[n].tokens(item.values[n]) for n in self._generated if n in item.values}
            for item in items
        ]
        tokens = collate(samples, self.fields, rows)
        aims = {
            name: target.aim(name, [item.values.get(name) for item in items], tokens)
            for name, target in self.targets.items()
        }
        others = range(0 if self.training else self.views - 1)
        views = {i: collate([item.views[i] for item in items], self.fields, rows) for i in others}
        whole, prompts, references, sources = None, (), {}, ()
        if not self.training:
            if self._masked and len(self._masked) < len(self.targets):
                whole = collate([_unmasked(sample) for sample in samples], self.fields, rows)
            if self._generated:
                prompts = tuple(_unmasked(item.sample) for item in items)
                sources = tuple(item.source for item in items)
                references = {
                    name: {i: target.words(item.values[name]) for i, item in enumerate(items) if name in item.values}
                    for name, target in self.targets.items()
                    if name in self._generated
                }
        return Aims(
            tokens,
            torch.zeros(0),
            aims=aims,
            views=views,
            whole=whole,
            prompts=prompts,
            references=references,
            sources=sources,
        )


def generated(targets: Mapping[str, Target]) -> dict[str, Tokenizer]:
    """The tokenizers of what is generated, as the model has them, by target."""
    return {name: tokenizer for name, target in targets.items() if (tokenizer := target.generated) is not None}


def _unmasked(sample: Sample) -> Sample:
    return {name: tokens if tokens.masked is None else replace(tokens, masked=None) for name, tokens in sample.items()}
