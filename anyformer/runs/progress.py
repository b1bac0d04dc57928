"""What a run says while it trains: a line for each epoch and validation, whether or not there is a terminal; and why it
ended."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, Timer
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.utilities import rank_zero_only

from anyformer.errors import say
from anyformer.runs.reports.generated import generated_lines
from anyformer.runs.state.loop_state import limits
from anyformer.tasks.base.run_length import epochs_and_steps, run_length


def has_bar() -> bool:
    """Whether there is a terminal, or a notebook, on which a bar moves."""
    return sys.stdout.isatty() or "ipykernel" in sys.modules


class Lines(Callback):
    """Writes a line after each validation, and after each epoch without one: above the bar where there is one, and
    flushed, so that a file or a pipe has it at once."""

    def __init__(self, best: Callable[[], float | None], shown: bool = True) -> None:
        """best: gives the value of the task's metric in the best model so far. shown: else it but counts the steps."""
        self.best, self.shown = best, shown
        self.n_steps = 0
        """Of the optimiser, that this training has taken."""
        self._validated = False

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._began = self._last = time.monotonic()
        self._first, self._samples, self._validating = trainer.global_step, 0, 0.0

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, i: int) -> None:
        # The other processes take about as many.
        self._samples += len(getattr(batch, "samples", ())) * trainer.world_size
        self.n_steps = trainer.global_step - self._first

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._validated = False

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._paused = time.monotonic()

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self._validating = time.monotonic() - self._paused
        self._validated = True
        self._write(trainer, module)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        # Lightning validates at the end of an epoch before it calls this.
        if not self._validated:
            self._write(trainer, module)

    @rank_zero_only
    def _write(self, trainer: Trainer, module: LightningModule) -> None:
        if not self.shown:
            return
        line = "  ".join([*self._place(trainer), *self._metrics(trainer, module), *self._pace(trainer)])
        show_lines(trainer, [line, *(generated_lines(module.generated) if self._validated else ())])

    def end(self, trainer: Trainer, epochs: str = "trainer.max_epochs") -> None:
        """Say why the training has ended. epochs: the option that says how many there are."""
        if not self.n_steps:
            say(why_ended(trainer, 0, epochs))
        elif self.shown:
            print(why_ended(trainer, self.n_steps, epochs), flush=True)

    def _place(self, trainer: Trainer) -> list[str]:
        epochs, _ = epochs_and_steps(trainer)
        of = "" if math.isinf(epochs) else f"/{epochs:.0f}"
        whole = _steps(trainer)
        return [
            f"epoch {trainer.current_epoch + 1}{of}",
            f"step {trainer.global_step:,}{'' if math.isinf(whole) else f'/{whole:,.0f}'}",
        ]

    def _metrics(self, trainer: Trainer, module: LightningModule) -> list[str]:
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
        chosen, told = module.metric[0], []
        for name, value in metrics.items():
            # Those of parts and subsets, which may be many, are in metrics.csv.
            is_new = name.startswith("val/") and self._validated and (name.count("/") == 1 or name == chosen)
            if name == "train/loss" or is_new:
                best = self.best() if name == chosen else None
                told.append(f"{name} {value:.4g}{'' if best is None else f' (best {best:.4g})'}")
        return told

    def _pace(self, trainer: Trainer) -> list[str]:
        """Since the last line, validation left out; and what is left, at the pace of this process so far."""
        now = time.monotonic()
        seconds, done = now - self._last - self._validating, self.n_steps
        told = [f"{self._samples / seconds:,.0f} samples/s"] if self._samples and seconds > 0 else []
        self._last, self._samples, self._validating = now, 0, 0.0
        left = (now - self._began) * (_steps(trainer) - trainer.global_step) / done if done else math.inf
        return told if math.isinf(left) or left <= 0 else [*told, f"{duration(max(left, 1.0))} left"]


def show_lines(trainer: Trainer, lines: Iterable[str]) -> None:
    """Print lines, above the bar where there is one, and at once."""
    console = getattr(getattr(trainer.progress_bar_callback, "progress", None), "console", None)
    for line in lines:
        if console is None:
            print(line, flush=True)
        else:
            console.print(line, highlight=False, markup=False)


def _steps(trainer: Trainer) -> float:
    """Of the whole run."""
    return run_length(trainer, math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches))


def why_ended(trainer: Trainer, n_steps: int, epochs: str = "trainer.max_epochs") -> str:
    """Why a training came to its end, in a line. n_steps: how many it has taken since it was begun or gone on with.
    epochs: the option that says how many there are."""
    most = limits(trainer)
    for callback in trainer.callbacks:
        # One that was stopped before and has trained on since keeps that reason.
        stops = isinstance(callback, EarlyStopping) and trainer.current_epoch - callback.stopped_epoch <= 1
        if stops and callback.stopping_reason is not EarlyStoppingReason.NOT_STOPPED:
            why = f"ended early, after epoch {trainer.current_epoch}, by EarlyStopping: {_reason(callback)}"
            return why if n_steps else f"nothing was trained: it {why}; raise {epochs} to train on"
        if isinstance(callback, Timer) and (callback.time_remaining() or 0.0) <= 0 < most["max_time"] < math.inf:
            limit = f"trainer.max_time of {duration(most['max_time'])}"
            if not n_steps:
                return f"nothing was trained: the {limit} is used up; give a longer one, or null to train on"
            return f"ended by the {limit}, at step {trainer.global_step:,}; fit --resume with a longer one trains on"
    for option, n, done in (
        ("trainer.max_steps", most["max_steps"], trainer.global_step),
        (epochs, most["max_epochs"], trainer.current_epoch),
    ):
        if done >= n:
            of = f"{n:,.0f} {'step' if option.endswith('steps') else 'epoch'}{'' if n == 1 else 's'}"
            if n_steps:
                return f"ended after {of} ({option})"
            return f"nothing was trained: {of} {'is' if n == 1 else 'are'} behind it ({option}); raise that to train on"
    if not n_steps:
        return f"nothing was trained: it came to its end in epoch {trainer.current_epoch}; raise {epochs} to train on"
    return f"ended early, in epoch {trainer.current_epoch} at step {trainer.global_step:,}, by a callback"


def _reason(callback: EarlyStopping) -> str:
    if callback.stopping_reason is EarlyStoppingReason.PATIENCE_EXHAUSTED:
        return f"{callback.monitor} was not better for {callback.wait_count} validations"
    return (callback.stopping_reason_message or str(callback.stopping_reason)).strip().rstrip(".")


def duration(seconds: float) -> str:
    """
    >>> duration(0.0123), duration(75), duration(7320)
    ('12.3 ms', '1 min 15 s', '2 h 2 min')
    """
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
