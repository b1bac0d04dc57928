"""A run of a second: one block, with dropout, augmentation, two optimisers in one and a moving average to get wrong."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning import seed_everything

from anyformer.model.config import TransformerConfig
from anyformer.optim.optimizer import OptimizerConfig
from anyformer.runs.checkpointing import Saving
from anyformer.runs.fit import fit
from anyformer.tasks.base.records import Records
from anyformer.tasks.classify.classify import Classify
from anyformer.tokenizers.image.augmentation import Augmentation
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.image.sources import Digits
from anyformer.tokenizers.mixing import Mixing

BATCHES = 6
"""Of an epoch."""
EPOCHS = 2
AUGMENT = Augmentation(shift=1.0, policy="trivial")


def small_options(d_model: int = 16) -> dict[str, Any]:
    return {
        "tokenizers": {"image": ImagePatches(size=(8, 8), patch=4, channels=1, augment=AUGMENT)},
        "transformer": TransformerConfig(d_model=d_model, depth=1, n_heads=2, dropout=0.1),
        "optimizer": OptimizerConfig("muon", lr=0.01, ema=0.9),
        "mix": Mixing(mixup=0.5, cutmix=1.0, chance=0.5),
    }


def small_task(d_model: int = 16) -> Classify:
    return Classify(**small_options(d_model))


def small_data(n_workers: int = 0) -> Records:
    return Records(Digits(), 0.1, 0.1, batch_size=240, n_workers=n_workers)


def small_fit(
    run: Path, *, n_workers: int = 0, task: Classify | None = None, data: Records | None = None, **options: Any
) -> dict[str, float]:
    seed_everything(0, verbose=False)
    options = {
        "max_epochs": EPOCHS,
        "log_every_n_steps": 1,
        "saving": Saving(every_n_steps=2),
        "enable_progress_bar": False,
    } | options
    return fit(
        task or small_task(),
        data or small_data(n_workers),
        run,
        accelerator="cpu",
        **options,
    )


def in_a_fork(work: Callable[[], Any]) -> int:
    """Do some work in a fork of this process, where torch is warm; returns its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            work()
            code = 0
        except SystemExit as stop:
            code = stop.code
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
