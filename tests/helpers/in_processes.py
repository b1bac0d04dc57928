"""A training of given batches, in as many processes as there are lists of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning
import torch

from anyformer.tasks.base.examples import Examples
from anyformer.tasks.base.task import Task


class Parts:
    """Batches for each process."""

    def __init__(self, *parts: list[Examples]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return len(self.parts[0])

    def __iter__(self) -> Iterator[Examples]:
        return iter(self.parts[torch.distributed.get_rank() if torch.distributed.is_initialized() else 0])


def train_on(task: Task, *parts: list[Examples], **options: Any) -> None:
    """One epoch, in as many processes as there are parts."""
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    if len(parts) > 1:
        options |= {"devices": len(parts), "strategy": "ddp_fork"}
    trainer = lightning.Trainer(accelerator="cpu", max_epochs=1, **quiet, **options)
    trainer.fit(task, Parts(*parts))
