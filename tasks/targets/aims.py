"""Batches with what is to be predicted in them, and where each prediction is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from anyformer.batch import Batch
from anyformer.tasks.base.examples import Examples
from anyformer.tokens import Sample


@dataclass(frozen=True)
class Aim:
    """What one target predicts in a batch. Of t predictions:"""

    read: Tensor
    """(t,) int64: where; the number of the sample, or a place in the flattened (rows * length) layout, as the target's
    `of_samples` says."""
    values: Tensor
    """(t, ...): what."""
    sample: Tensor
    """(t,) int64: the sample that it belongs to."""


@dataclass
class Aims(Examples):
    """A batch, and what is to be predicted in it."""

    aims: Mapping[str, Aim] = None  # type: ignore[assignment]
    """By target."""
    whole: Batch | None = None
    """In evaluation, where inputs are masked and there are other targets: the batch with nothing masked, of which those
    are read."""
    views: Mapping[int, Batch] = None  # type: ignore[assignment]
    """In evaluation and use, where predictions are averaged over views of a sample, the batches of the others, with
    nothing masked. The model reads one after another, so that they take no more memory than one."""
    prompts: tuple[Sample, ...] = ()
    """In evaluation and use, where texts are written: the inputs of each sample, with nothing masked."""
    references: Mapping[str, Mapping[int, str]] = None  # type: ignore[assignment]
    """In evaluation, by target that is written, the texts of the samples that have one."""
    sources: tuple[Mapping[str, Any], ...] = ()
    """In evaluation, where texts are written: the inputs of each sample as they stand in the records."""
