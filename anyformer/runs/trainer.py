"""Making Lightning's Trainer of a user's options, and leaving out its chatter."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins import MixedPrecision, Precision
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from anyformer.errors import InputError, nearest
from anyformer.parsing.plain import describe
from anyformer.reference.callbacks import refusal
from anyformer.tasks.base.task import Task

NEVER_VALIDATED = (
    "trainer.val_check_interval is more than the batches of an epoch; lower it, or give "
    "trainer.check_val_every_n_epoch: null to count across epochs"
)
DEFAULTS = {"log_every_n_steps": 10, "enable_model_summary": False}
"""Where they differ from Lightning's."""
OF_A_STEP = ("accumulate_grad_batches", "overfit_batches")
"""Options of the Trainer that decide which samples make up a step, and stay as they are when a run goes on."""


def make_trainer(options: Mapping[str, Any], **ours: Any) -> Trainer:
    """A Trainer with a user's options, and ours before those.

    Raises InputError for options that Lightning refuses, and for those that a run here cannot honour.
    """
    every = DEFAULTS | given(options) | ours
    check_callbacks(listed(every.get("callbacks")))
    try:
        trainer = Trainer(**every)
    except (TypeError, ValueError, ImportError, MisconfigurationException) as error:
        raise InputError(f"the trainer's options cannot be used: {error}") from None
    strategy = trainer.strategy
    if not isinstance(strategy, SingleDeviceStrategy | DDPStrategy) or isinstance(strategy, DeepSpeedStrategy):
        raise InputError(
            f"trainer.strategy: {type(strategy).__name__} shares out the weights, and a model is saved whole here; use "
            "ddp, ddp_spawn, ddp_fork or ddp_notebook"
        )
    if type(trainer.precision_plugin) not in (Precision, MixedPrecision):
        raise InputError(
            f"trainer.precision={trainer.precision} keeps the weights themselves in another precision, in which they "
            "are neither averaged nor saved here; use bf16-mixed or 32-true"
        )
    return trainer


def check_callbacks(callbacks: Iterable[Callback]) -> None:
    """Raise InputError for a callback that cannot do here what it promises."""
    for callback in callbacks:
        names = [cls.__name__ for cls in type(callback).__mro__ if cls.__module__.startswith("lightning.")]
        if why := refusal(names):
            raise InputError(f"trainer.callbacks: {type(callback).__name__} {why}")


def check_monitors(trainer: Trainer, task: Task) -> None:
    """Raise InputError for a callback that waits for a metric which there will not be.

    It is called after the sanity check, which has logged what a validation logs.
    """
    named = {f"{name}/": member for name, member in task.members.items()} or {"": task}
    known = ["train/loss", *(f"train/{name}loss" for name in named if name), *trainer.callback_metrics]
    known += [f"val/{name}{late}" for name, each in named.items() for late in each.late_metrics]
    grouped = tuple(f"val/{name}{each.fields.by}_" for name, each in named.items() if each.fields.by)
    for callback in trainer.callbacks:
        monitor = getattr(callback, "monitor", None)
        if monitor is not None and monitor not in known and not monitor.startswith(grouped):
            raise InputError(f"trainer.callbacks: {unknown_metric(type(callback).__name__, monitor, known)}")


def unknown_metric(callback: str, monitor: str, known: Iterable[str]) -> str:
    known = sorted(set(known))
    near = nearest(monitor, known, 1)
    return f"{callback} monitors {monitor!r}, which is no metric of this run{near}; there are {', '.join(known)}"


def listed(value: Any) -> list[Any]:
    """An option of the Trainer that is one thing, a list of things, or a yes or no."""
    if value is None or isinstance(value, bool):
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def describe_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the Trainer with those that it has by default, to compare another run's with."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(Trainer).parameters.items()}
    objects = {name: listed(options.get(name)) for name in ("callbacks", "logger", "plugins")}
    return describe(defaults | DEFAULTS | given(options) | objects)


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
    # A resume says itself what has changed.
    ".*callbacks used to create the checkpoint need to be provided.*",
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
