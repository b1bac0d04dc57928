"""Records with what is to be predicted of them: in tokens, and in batches that say where each target is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch

from anyformer.batch import Batch
from anyformer.errors import InputError
from anyformer.packing import collate
from anyformer.tasks.base.examples import Examples
from anyformer.tasks.targets.masked import Masked
from anyformer.tasks.targets.pooling import ReadChopper
from anyformer.tasks.targets.target import Aim, Target
from anyformer.tasks.targets.text import Written
from anyformer.tokens import Sample, Tokenizer, expand


class Item(NamedTuple):
    """A record in tokens."""

    sample: Sample
    """With the class token and registers, and with what is masked marked."""
    values: Mapping[str, Any] = {}
    """By target, what is to be predicted; those that the record does not have are not there."""
    source: Mapping[str, Any] = {}
    """In evaluation, where texts are written, the inputs as they stand in the record."""


@dataclass
class Aims(Examples):
    """A batch, and what is to be predicted in it."""

    aims: Mapping[str, Aim] = None  # type: ignore[assignment]
    """By target."""
    whole: Batch | None = None
    """In evaluation, where inputs are masked and there are other targets: the batch with nothing masked, of which those
    are read."""
    prompts: tuple[Sample, ...] = ()
    """In evaluation and use, where texts are written: the inputs of each sample, with nothing masked."""
    references: Mapping[str, Mapping[int, str]] = None  # type: ignore[assignment]
    """In evaluation, by target that is written, the texts of the samples that have one."""
    sources: tuple[Mapping[str, Any], ...] = ()
    """In evaluation, where texts are written: the inputs of each sample as they stand in the records."""


@dataclass(frozen=True)
class PredictChopper(ReadChopper):
    """Records to items and batches of them."""

    targets: Mapping[str, Target]
    training: bool = False

    def __call__(
        self, record: Mapping[str, Any], random: np.random.Generator | None = None, labelled: bool = True
    ) -> Item:
        sample = self.conditions(record, random)
        masked = self._masked
        if masked:
            n_present = sum(len(tokens) > 0 for tokens in sample.values())
            # In the sequence of the config, as one stream of chance serves all.
            for name, target in masked.items():
                if name in sample:
                    sample[name] = target.hide(name, sample[name], self.inputs[name], random, alone=n_present == 1)
        values = {}
        if labelled:
            found = {name: target.value(name, record) for name, target in self.targets.items() if name not in masked}
            values = {name: value for name, value in found.items() if value is not None}
            if not values and not self._has_masked(record):
                columns = [each for name, target in self.targets.items() for each in target.columns_of(name)]
                which = f"field {columns[0]!r}" if len(columns) == 1 else f"one of the fields {', '.join(columns)}"
                raise InputError(f"{which} must hold what is to be predicted, but the record has none; leave it out")
        is_shown = labelled and not self.training and self._written
        source = {n: record[n] for n in self.tokenizers if record.get(n) is not None} if is_shown else {}
        return Item(sample | self.own_tokens, values, source)

    def _has_masked(self, record: Mapping[str, Any]) -> bool:
        return any(record.get(name.partition(".")[0], record.get(name)) is not None for name in self._masked)

    @cached_property
    def inputs(self) -> dict[str, Tokenizer]:
        """By field of the model."""
        return expand(self.tokenizers)

    @cached_property
    def _masked(self) -> dict[str, Masked]:
        return {name: target for name, target in self.targets.items() if isinstance(target, Masked)}

    @cached_property
    def _written(self) -> dict[str, Written]:
        return {name: target for name, target in self.targets.items() if isinstance(target, Written)}

    @cached_property
    def fields(self) -> dict[str, Tokenizer]:
        """Of all fields, in the model's sequence."""
        texts = {name: target.cut for name, target in self._written.items()}
        return expand({**self.tokenizers, **self.own, **texts})

    def count(self, record: Mapping[str, Any]) -> int:
        return super().count(record) + sum(target.count(name, record) for name, target in self.targets.items())

    def collate(self, items: Sequence[Item], rows: Sequence[int] | None = None) -> Aims:
        samples = [
            item.sample
            | {name: t.tokens(item.values[name]) for name, t in self._written.items() if name in item.values}
            for item in items
        ]
        tokens = collate(samples, self.fields, rows)
        aims = {
            name: target.aim(name, [item.values.get(name) for item in items], tokens)
            for name, target in self.targets.items()
        }
        whole, prompts, references, sources = None, (), {}, ()
        if not self.training:
            if self._masked and len(self._masked) < len(self.targets):
                whole = collate([_unmasked(sample) for sample in samples], self.fields, rows)
            if self._written:
                prompts = tuple(_unmasked(item.sample) for item in items)
                sources = tuple(item.source for item in items)
                references = {
                    name: {i: item.values[name].reference for i, item in enumerate(items) if name in item.values}
                    for name in self._written
                }
        return Aims(
            tokens,
            torch.zeros(0),
            aims=aims,
            whole=whole,
            prompts=prompts,
            references=references,
            sources=sources,
        )


def _unmasked(sample: Sample) -> Sample:
    return {name: tokens if tokens.masked is None else replace(tokens, masked=None) for name, tokens in sample.items()}
