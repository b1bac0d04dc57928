"""The length of a run, as the options of the trainer say it."""

from __future__ import annotations

import math

from lightning import Trainer


def epochs_and_steps(trainer: Trainer) -> tuple[float, float]:
    """Epochs and steps of the optimiser at most; infinite where the trainer has no limit."""
    epochs, steps = (math.inf if n is None or n < 0 else n for n in (trainer.max_epochs, trainer.max_steps))
    return epochs, steps


def run_length(trainer: Trainer, of_epoch: float, of_step: int = 1) -> float:
    """How long a run is, in whatever an epoch has `of_epoch` of and a step `of_step`: steps, or batches."""
    epochs, steps = epochs_and_steps(trainer)
    # An epoch may have none, and none times infinity is no number.
    return min(epochs if math.isinf(epochs) else epochs * of_epoch, steps * of_step)
