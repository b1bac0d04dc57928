"""Records as each of several models reads them, whose vocabularies and means may differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from anyformer.data.chopper import Chopper
from anyformer.tasks.base.examples import Examples
from anyformer.tasks.predict.batch import Item, PredictChopper
from anyformer.tasks.targets.aims import Aims


@dataclass
class Readings(Examples):
    """A batch as each of several models reads it."""

    parts: Mapping[int, Aims] = None  # type: ignore[assignment]
    """By the number of the model. What is to be predicted is in the first alone, scaled as that one scales it."""


@dataclass(frozen=True)
class EnsembleChopper(Chopper):
    """Records to items of each model, and to batches of them."""

    choppers: tuple[PredictChopper, ...]
    """Of each model."""

    @cached_property
    def _asked(self) -> list[PredictChopper]:
        """Those of the pass."""
        return [replace(chopper, without=self.without) for chopper in self.choppers]

    def __call__(
        self, record: Mapping[str, Any], random: np.random.Generator | None = None, labelled: bool = True
    ) -> list[Item]:
        first, *others = self._asked
        return [first(record, random, labelled), *(chopper(record, random, labelled=False) for chopper in others)]

    def collate(self, items: Sequence[list[Item]], rows: Sequence[int] | None = None) -> Readings:
        parts = {i: chopper.collate([item[i] for item in items], rows) for i, chopper in enumerate(self.choppers)}
        return Readings(parts[0].tokens, torch.zeros(0), parts=parts)

    def count(self, record: Mapping[str, Any]) -> int:
        """Of the model that cuts it into most."""
        return max(chopper.count(record) for chopper in self.choppers)
