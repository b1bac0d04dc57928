"""Pairs of inputs and a text: records in tokens, and batches in which a token is read for the one that follows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from anyformer.batch import Batch
from anyformer.data.chopper import Chopper, LeftOut
from anyformer.data.values import is_missing
from anyformer.errors import InputError
from anyformer.model.losses.ctc import needed_frames
from anyformer.packing import collate
from anyformer.tasks.base.examples import Examples
from anyformer.tasks.sequence.target import read_target, written
from anyformer.tokenizers.text.text import Text
from anyformer.tokens import Sample, Tokenizer, expand

Architecture = Literal["encoder_decoder", "decoder", "encoder"]


class Pair(NamedTuple):
    """A record in tokens."""

    sample: Sample
    """The inputs."""
    ids: np.ndarray | None = None
    """The target; None where there is none to learn from."""
    reference: str = ""
    """The target as it stands in the record."""
    source: Mapping[str, Any] = {}
    """The inputs as they stand in the record, where somebody is to see them."""


@dataclass
class Pairs(Examples):
    """A batch of pairs. Of n samples:"""

    inputs: Batch | None = None
    """What is read before a word is written, by the encoder or a decoder alone; None where `tokens` are that."""
    read: Tensor = None  # type: ignore[assignment]
    """(targets,) int64, where in the flattened (rows * length) layout each target is predicted"""
    ids: Tensor = None  # type: ignore[assignment]
    """(total,) int64, the ids of all texts, for CTC"""
    n_ids: tuple[int, ...] = ()
    """Of each sample."""
    n_frames: tuple[int, ...] = ()
    """Tokens of the field that CTC reads, of each sample."""
    n_heard: int = 0
    """Ids of the texts that have a path through their frames."""
    prompts: tuple[Sample, ...] = ()
    """What a decoder alone reads of each sample, for decoding."""
    references: tuple[str, ...] = ()
    """The text of each sample."""
    sources: tuple[Mapping[str, Any], ...] = ()
    """The inputs of each as they stand in the records."""


@dataclass(frozen=True)
class PairChopper(Chopper):
    """Records to pairs of inputs and target ids, and batches of them."""

    target: str
    text: Text
    start: tuple[int, ...]
    """Ids that stand before the target."""
    architecture: Architecture
    ctc_field: str | None = None
    training: bool = False
    allow_empty: bool = False
    """Whether a record whose target is empty is learnt as silence."""

    @property
    def packs(self) -> bool:  # type: ignore[override]
        # In validation every sample is decoded in a row of its own.
        return self.training

    @cached_property
    def fields(self) -> dict[str, Tokenizer]:
        """Of all fields, in the model's sequence."""
        own = {} if self.architecture == "encoder" else {self.target: self.text}
        return expand({**self.tokenizers, **own})

    def __call__(
        self, record: Mapping[str, Any], random: np.random.Generator | None = None, labelled: bool = True
    ) -> Pair:
        sample = self.conditions(record, random, empty_too=not labelled)
        if self.architecture == "encoder" and self.ctc_field not in sample:
            raise InputError(f"field {self.ctc_field!r} must hold what is read, but it is missing or empty")
        if not labelled:
            return Pair(sample)
        ids = self._ids(record)
        source = {} if self.training else {n: record[n] for n in self.tokenizers if record.get(n) is not None}
        pair = Pair(sample, ids, "" if is_missing(record[self.target]) else record[self.target], source)
        if self.training and self.ctc_field in sample and not self._fits(pair):
            raise LeftOut(
                f"field {self.target!r}: the text needs {needed_frames(ids.tolist())} frames, and field "
                f"{self.ctc_field!r} has {len(sample[self.ctc_field])}"
            )
        return pair

    def _fits(self, pair: Pair) -> bool:
        """Whether the ids have a path through the frames that CTC reads."""
        return len(pair.sample.get(self.ctc_field, ())) >= needed_frames(pair.ids.tolist())

    def _ids(self, record: Mapping[str, Any]) -> np.ndarray:
        return read_target(record, self.target, self.text, len(self.start), self.allow_empty)

    def count(self, record: Mapping[str, Any]) -> int | tuple[int, int]:
        n_inputs, n_target = super().count(record), len(self.start) + len(self._ids(record))
        if self.architecture == "encoder_decoder":
            return n_inputs, n_target
        return n_inputs + (n_target if self.architecture == "decoder" else 0)

    def collate(self, items: Sequence[Pair], rows: Sequence[int] | None = None) -> Pairs:
        samples = [item.sample for item in items]
        n_frames = tuple(len(sample.get(self.ctc_field, ())) for sample in samples)
        is_decoder = self.architecture == "decoder"
        prompts = tuple(samples) if is_decoder and not self.training else ()
        # What CTC reads of a prefix is in the rows with the targets too, where there are any.
        inputs = (
            None if is_decoder and (self.training or self.ctc_field is None) else collate(samples, self.fields, rows)
        )
        if items[0].ids is None:
            tokens = collate(samples, self.fields, rows) if inputs is None else inputs
            return Pairs(tokens, torch.zeros(0), n_frames=n_frames, prompts=prompts)
        n_ids = tuple(len(item.ids) for item in items)
        ids = torch.from_numpy(np.concatenate([item.ids for item in items]))
        read = None
        if self.architecture == "encoder":
            tokens, inputs, target = inputs, None, ids
        else:
            texts = [{self.target: written(item.ids, self.start)} for item in items]
            before = samples if is_decoder else [{}] * len(items)
            tokens = collate([{**b, **text} for b, text in zip(before, texts, strict=True)], self.fields, rows)
            end = torch.tensor([self.text.eos_id])
            target = torch.cat([part for own in ids.split(n_ids) for part in (own, end)])
            # Of the tokens that are fed, all from the last of the start on are read, each for the one that follows.
            n_before = len(self.start) - 1
            place = tokens.fields[self.target].index.split([n_before + n + 1 for n in n_ids])
            read = torch.cat([own[n_before:] for own in place])
        return Pairs(
            tokens,
            target,
            inputs=inputs,
            read=read,
            ids=ids,
            n_ids=n_ids,
            n_frames=n_frames,
            # Silence is a target too: blanks alone.
            n_heard=sum(max(n, 1) for item, n in zip(items, n_ids, strict=True) if self.ctc_field and self._fits(item)),
            prompts=prompts,
            references=() if self.training else tuple(item.reference for item in items),
            sources=() if self.training else tuple(item.source for item in items),
        )
