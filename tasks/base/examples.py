"""A batch of a task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from anyformer.batch import Batch, map_tensors


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
