"""The state of Lightning's loops: all that leans on its private parts, read in release 2.6.6."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.strategies.launchers.multiprocessing import _MultiProcessingLauncher

from anyformer.tasks.base.run_length import epochs_and_steps


def limits(trainer: Trainer) -> dict[str, float]:
    """How far the trainer may train."""
    durations = [callback._duration for callback in trainer.callbacks if isinstance(callback, Timer)]
    seconds = next(iter(durations), None)
    epochs, steps = epochs_and_steps(trainer)
    return {"max_epochs": epochs, "max_steps": steps, "max_time": math.inf if seconds is None else seconds}


def starts_processes(trainer: Trainer) -> bool:
    """Whether others train than this process, which starts them and waits (ddp_spawn, ddp_fork, ddp_notebook)."""
    return isinstance(trainer.strategy.launcher, _MultiProcessingLauncher)


def n_batches(trainer: Trainer) -> int:
    """Batches trained so far, of all epochs."""
    return trainer.fit_loop.epoch_loop.batch_progress.total.processed


def is_within_a_step(trainer: Trainer) -> bool:
    """Whether gradients wait for more batches before the optimiser takes its step."""
    return trainer.fit_loop.epoch_loop._should_accumulate()


def add_steps(trainer: Trainer, n: int) -> None:
    """Let the run take so many steps more, or fewer."""
    trainer.fit_loop.epoch_loop.max_steps += n


def begin_an_epoch(trainer: Trainer) -> None:
    """Go on with a new epoch; Lightning takes every resumed run that is limited by max_steps to be inside one."""
    trainer.fit_loop.epoch_loop.restarting = False
    trainer.fit_loop._restarting = False


def settle(checkpoint: dict[str, Any], point: str, place: Any, validated: bool) -> None:
    """Write the counters of the loops into a checkpoint as they stand at rest, so that it goes on right there.

    A hook runs while something has been announced and not yet done. Lightning guesses from the counters where a
    checkpoint comes from; its guess is right for the ones written here.
    """
    loops = checkpoint["loops"]["fit_loop"]
    batches, epochs = loops["epoch_loop.batch_progress"], loops["epoch_progress"]
    if point == "batch":
        for count in (batches["total"], batches["current"]):
            count["ready"] = count["completed"]
        loops["state_dict"]["combined_loader"] = [] if place is None else [place]
        if validated:
            # Lightning leaves out the validation that follows this batch, and counts the batch once more as it does.
            loops["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1
    elif point == "epoch":
        for count in (epochs["total"], epochs["current"]):
            count |= dict.fromkeys(count, count["completed"])
        # The next epoch begins with a place of its own.
        loops["state_dict"].pop("combined_loader", None)
    else:
        validation = loops["epoch_loop.val_loop.batch_progress"]
        n = validation["total"]["completed"]
        # A validation that has been begun, no batch of which has been seen: Lightning runs it first.
        validation["total"] |= {"ready": n + 1, "started": n + 1, "processed": n, "completed": n}
        validation["current"] |= dict.fromkeys(validation["current"], 0)
        validation["is_last_batch"] = False


def running_averages(trainer: Trainer) -> dict[str, Any]:
    """What the batches of this epoch have added up to, of metrics that are logged for the epoch."""
    return {
        key: {"name": r.meta.forked_name(False), "value": r.value, "count": getattr(r, "cumulated_batch_size", None)}
        for key, r in trainer.fit_loop.epoch_loop._results.items()
        if r.is_tensor and r.meta.on_epoch and not r.has_reset
    }


def go_on_averaging(trainer: Trainer, running: dict[str, Any]) -> None:
    """Add what was added up before the checkpoint to what is logged since."""
    results = trainer.fit_loop.epoch_loop._results
    for key in running.keys() & results.keys():
        result, kept = results[key], running.pop(key)
        before = kept["value"].to(result.value.device)
        if result.meta.is_max_reduction or result.meta.is_min_reduction:
            result.value = result.meta.reduce_fx(torch.stack([before, result.value]))
        else:
            result.value = before + result.value
        if kept["count"] is not None:
            result.cumulated_batch_size = kept["count"].to(result.value.device) + result.cumulated_batch_size
        result._computed = None
