"""Making Lightning's Trainer of a user's options, and leaving out its chatter."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lightning import Trainer

from anyformer.errors import InputError

NEVER_VALIDATED = (
    "trainer.val_check_interval is more than the batches of an epoch; lower it, or give "
    "trainer.check_val_every_n_epoch: null to count across epochs"
)
DEFAULTS = {"log_every_n_steps": 10, "enable_model_summary": False}
"""Where they differ from Lightning's."""


def make_trainer(options: Mapping[str, Any], **ours: Any) -> Trainer:
    """A Trainer with a user's options, and ours before those.

    Raises InputError for options that Lightning refuses.
    """
    try:
        return Trainer(**DEFAULTS | given(options) | ours)
    except (TypeError, ValueError) as error:
        raise InputError(f"the trainer's options cannot be used: {error}") from None


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that say something: None is what the Trainer has by default, but for one.

    `check_val_every_n_epoch: null` lets val_check_interval run across epochs.
    """
    return {name: value for name, value in options.items() if value is not None or name == "check_val_every_n_epoch"}


NOISE = (
    ".*does not have many workers.*",
    ".*smaller than the logging interval.*",
    ".*treespec, LeafSpec.*",
    ".*GPU available but not used.*",
    # Our tasks sum over all processes themselves.
    ".*sync_dist=True.*",
    ".*lr_scheduler.step.*before.*optimizer.step.*",
)
"""Warnings that tell a user nothing to act on."""


@contextmanager
def quiet() -> Iterator[None]:
    """Without the chatter of Lightning (tips, devices found, restored paths); warnings to act on stay."""
    levels = {
        "lightning.fabric": logging.WARNING,
        "lightning.pytorch": logging.WARNING,
        # What a user asked for.
        "lightning.pytorch.callbacks": logging.INFO,
        "lightning.pytorch.profilers": logging.INFO,
    }
    held = {name: logging.getLogger(name).level for name in levels}
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    try:
        with warnings.catch_warnings():
            for pattern in NOISE:
                warnings.filterwarnings("ignore", pattern)
            yield
    finally:
        for name, level in held.items():
            logging.getLogger(name).setLevel(level)
