"""A batch of a task, and what is generated of a record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from anyformer.batch import Batch, map_tensors


class Generated(NamedTuple):
    """What a model generates of a record that stays the same from validation to validation."""

    text: str
    """What was generated; of a language model with its prompt."""
    reference: str | None = None
    """What should have come out; None where there is no such, as of a text that is gone on with."""
    name: str = ""
    """Of the target or the task, where there are several."""
    record: str = ""
    """Where the record comes from."""

    def as_row(self) -> dict[str, Any]:
        """As a line of a file: what says something."""
        texts = {"continuation": self.text} if self.reference is None else {"hypothesis": self.text}
        about = {"name": self.name, "record": self.record, "reference": self.reference}
        return {name: value for name, value in about.items() if value} | texts


@dataclass
class Examples:
    """A batch of a task: the tokens, what is to be predicted, and where the samples come from."""

    tokens: Batch
    target: Tensor
    """(b,) or whatever shape the task predicts"""
    samples: tuple[str, ...] = ()
    """Names of the records, for messages."""
    groups: tuple[str, ...] = ()
    """In evaluation the group of each sample, "" for none, where metrics are given by group; else ()."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        return map_tensors(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        return map_tensors(self, Tensor.pin_memory)
