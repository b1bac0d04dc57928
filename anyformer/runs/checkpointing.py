"""Taking a run up again exactly where it stopped: the callback that keeps its folder, and stops it on a signal.

A checkpoint is taken between two steps of the optimiser, between two epochs or before a validation, at a moment when
nothing is half done: no gradient waits for its step, all rows are written, all counters agree. Killed at any time, a
run goes on from the last of them and ends with the weights and the rows of a run that was never killed.
"""

from __future__ import annotations

import hashlib
import math
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only

from anyformer.choices import Values
from anyformer.errors import InputError, program, say
from anyformer.parsing.plain import describe, kept_arguments
from anyformer.runs.metrics_file import MetricsFile, write_metrics
from anyformer.runs.reports.classes import write_classes
from anyformer.runs.reports.curves import draw_curves
from anyformer.runs.reports.generated import add_generated
from anyformer.runs.reports.subsets import write_subsets
from anyformer.runs.sample_pictures import draw_first_samples
from anyformer.runs.signals import Signals, Stopped
from anyformer.runs.state.data_fingerprints import data_fingerprints
from anyformer.runs.state.loop_state import (
    add_steps,
    begin_an_epoch,
    go_on_averaging,
    is_within_a_step,
    limits,
    n_batches,
    running_averages,
    settle,
)
from anyformer.runs.state.random_state import generators, set_generators
from anyformer.runs.trainer import OF_A_STEP, check_monitors
from anyformer.saving.atomic import write_whole
from anyformer.saving.fingerprint import changed
from anyformer.saving.manifest import keep_newest
from anyformer.saving.model_folder import save
from anyformer.tasks.base.resume import changes, is_below

SAFE_VALIDATION = 10.0
"""Seconds that a stop may wait for a validation to end; a longer one has a checkpoint before it."""
REDRAW = 30.0
"""Seconds between two drawings of the curves."""


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Saving(Values):
    """When checkpoints are saved, beside the end of every epoch."""

    every_n_minutes: float | None = 10.0
    """After this many minutes since the last; never, when null."""
    every_n_steps: int | None = None
    """After this many steps of the optimiser since the last; never, when null."""
    keep: int = 2
    """How many are kept, the newest; `anyformer average RUN --weights` takes their mean."""

    def __post_init__(self) -> None:
        if self.keep < 2:
            raise InputError(f"checkpoints.keep must be at least 2, as the newest may come to harm, got {self.keep}")
        for name in ("every_n_minutes", "every_n_steps"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise InputError(f"checkpoints.{name} must be above 0, or null for never, got {value}")


class RunCallback(Callback):
    """Keeps a run folder: checkpoints, the best model, metrics; and puts a resumed run back to where it was.

    It must be the first callback, so that what it saves at the start of a batch or an epoch is the state before the
    other callbacks have seen it.
    """

    def __init__(
        self,
        run: Path,
        rows: MetricsFile,
        saving: Saving,
        settings: Mapping[str, Any],
        resuming: bool = False,
        config: str | None = None,
        part_of: Path | None = None,
    ) -> None:
        """
        settings: the options of the trainer, the data and the checkpoints, as `describe` gives them.
        config: the text that a resumed run's config.yaml gets, once its checkpoint has been found to fit.
        part_of: the run that is to be resumed, where this is a part of it.
        """
        self.resumable = part_of or run
        self.run, self.rows, self.saving, self.settings = run, rows, saving, settings
        self.resuming, self.config = resuming, config
        self.signals = Signals()
        self.best: dict[str, Any] = {}
        """The value of the task's metric in the best model, and its step."""
        self._resumed: dict[str, Any] = {}
        self._data: dict[str, Any] | None = None
        self._before: dict[str, Any] = {}
        """The settings of the checkpoint."""
        self._made: list[tuple[Callback, Any, dict[str, Any]]] = []
        """The other callbacks as they were made: what describes them, and their arguments."""
        self._point: str | None = None
        self._place: Any = None
        self._validated = self._safe = False
        self._saved_step = 0
        self._ended = self._one_more = False
        self._saved_at = self._drawn_at = self._validation_began = time.monotonic()
        self._validation_seconds = float("inf")

    # Going on.

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        self.signals.listen()
        self._made = [(c, describe(c), dict(kept_arguments(c).values())) for c in trainer.callbacks if c is not self]

    def on_load_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if "anyformer" not in checkpoint:
            raise InputError(f"{self.run}: its checkpoint is none that anyformer saved for a run; train again")
        self._resumed = dict(checkpoint["anyformer"])
        self.rows.check(self._resumed["metrics"])
        self._before = checkpoint.get("settings", {})
        differing = [*(f"model.{change}" for change in module.changed), *self._changes(trainer)]
        # Last: another option that divides the records says more than that they are others.
        self._check_data(trainer, module)
        self.best = dict(self._resumed["best"])
        if trainer.is_global_zero:
            self._say_changes(differing, checkpoint.get("config_sha256"))
        ended, now = self._resumed.get("ended"), limits(trainer)
        if ended is not None and not any(limit > ended[name] for name, limit in now.items()):
            # It came to its end, perhaps before its limits; so it does not begin again.
            trainer.should_stop = True
        if self._resumed["point"] == "validation" and checkpoint["global_step"] == trainer.max_steps:
            # Else Lightning would not even begin, and leave out the last validation.
            add_steps(trainer, 1)
            self._one_more = True

    def _check_data(self, trainer: Trainer, module: LightningModule) -> None:
        """Raise InputError where the records are not those that the run was trained on."""
        for name, now in self._data_of(trainer, module).items():
            before = self._resumed.get("data", {}).get(name)
            if before is not None and (what := changed(before, now)):
                raise InputError(
                    f"data.{name} is not what {self.run} was trained on: {what}; resume with the same data, or train "
                    "again with another --run_dir"
                )

    def _data_of(self, trainer: Trainer, module: LightningModule) -> dict[str, Any]:
        """The fingerprints of the records of training and validation, taken once: a run's data stays."""
        if self._data is None:
            self._data = data_fingerprints(module, trainer.datamodule)
        return self._data

    def _changes(self, trainer: Trainer) -> list[str]:
        """How what is no model differs from the checkpoint's. Raises InputError for what may not."""
        found, free = [], {"data": getattr(trainer.datamodule, "is_free", None)}
        for what, now in self.settings.items():
            before = self._before.get(what, {})
            is_free = free.get(what) or (lambda path: not is_below(path, *OF_A_STEP))
            found += changes(before, now, is_free, path=f"{what}.")
        return found

    def _say_changes(self, differing: list[str], digest: str | None) -> None:
        path = self.run / "config.yaml"
        if digest is not None and path.exists() and _sha256(path.read_text(encoding="utf-8")) != digest:
            say(f"{path} is not what it was at the checkpoint; what differs is said, and the rest is as before")
        if differing:
            say(f"{self.run} goes on with other options: {', '.join(differing)}")

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        # Callbacks have taken back their state, and with it some of their arguments: those that are others now count.
        before = self._before.get("trainer", {}).get("callbacks", [])
        for callback, description, arguments in self._made:
            if self._resumed and description not in before:
                vars(callback).update(arguments)

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        if self.resuming:
            self._take_up()
        draw_first_samples(self.run, trainer.train_dataloader, module, again=not self.resuming)
        self._saved_step = trainer.global_step
        if not trainer.enable_validation:
            check_monitors(trainer, module)
        # Lightning has put a handler of its own in front, which would exit with 0 and save nothing.
        self.signals.listen()
        if self._resumed.get("point") == "epoch":
            begin_an_epoch(trainer)

    @rank_zero_only
    def _take_up(self) -> None:
        """Change what the folder holds, now that all has been loaded."""
        if self.config is not None:
            write_whole(self.run / "config.yaml", self.config)
        if self._resumed:
            self.rows.load_state_dict(self._resumed["metrics"])
        else:
            self.rows.begin()

    def _restore(self, point: str, trainer: Trainer) -> bool:
        """Put the generators back, if the run goes on from this point."""
        if self._resumed.get("point") != point:
            return False
        self._resumed["point"] = None
        ranks = self._resumed["generators"]
        if len(ranks) == trainer.world_size:
            set_generators(ranks[trainer.global_rank])
        return True

    # The moments at which nothing is half done.

    def on_sanity_check_end(self, trainer: Trainer, module: LightningModule) -> None:
        check_monitors(trainer, module)

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        if not self._restore("epoch", trainer) and trainer.global_step:
            self._save("epoch", trainer)

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, batch_index: int) -> None:
        # In the middle of a step there are gradients, which no checkpoint holds.
        stepped = batch_index and batch_index % trainer.accumulate_grad_batches == 0
        if not self._restore("batch", trainer) and stepped and self._is_due(trainer):
            self._save("batch", trainer)
        self._validated = False

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self._validated = True
        self._validation_began = time.monotonic()
        self._safe = self._restore("validation", trainer)
        if self._one_more:
            add_steps(trainer, -1)
            self._one_more = False
            module.set_rates()
        if self._safe or is_within_a_step(trainer):
            return
        if self._agree(trainer, self._validation_seconds > SAFE_VALIDATION or self._signalled):
            self._save("validation", trainer)
            self._safe = True

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        if self.best.get("value") is None:
            # Without validation the last model is the best.
            self._keep_model(module, None)
        self._report(trainer, module, last=True)
        self._ended = True
        self._save("epoch", trainer)

    # Between them.

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        # By the start of the next batch the loader will have gone one further.
        loader = trainer.train_dataloader
        self._place = loader.state_dict() if hasattr(loader, "state_dict") else None
        if running := self._resumed.get("running"):
            go_on_averaging(trainer, running)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        # Means of the epoch that no batch since the checkpoint has added to.
        for kept in self._resumed.pop("running", {}).values():
            count = kept["count"]
            module.log(kept["name"], kept["value"] if count is None else kept["value"] / count, batch_size=1)

    def on_validation_batch_end(self, trainer: Trainer, module: LightningModule, *batch: Any) -> None:
        if self._safe and not trainer.sanity_checking and self._agree(trainer, self._signalled):
            raise self.stopped()

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self._validation_seconds = time.monotonic() - self._validation_began
        self._safe = False
        name, best = module.metric
        if name not in trainer.callback_metrics:
            raise InputError(f"the best model is chosen by {name!r}, but validation logged no such metric")
        value, before = trainer.callback_metrics[name].item(), self.best.get("value")
        # Of equals the later: it has learned for longer, and a small validation part makes many equals.
        if before is None or math.isnan(before) or (value >= before if best == "max" else value <= before):
            self._keep_model(module, value)
            self._write_classes(module)
        self._add_generated(trainer, module)
        self._report(trainer, module)

    @rank_zero_only
    def _write_classes(self, module: LightningModule) -> None:
        write_classes(self.run, module, "validation")

    @rank_zero_only
    def _add_generated(self, trainer: Trainer, module: LightningModule) -> None:
        add_generated(self.run, self.rows.last.get("step", 0), trainer.current_epoch, module.generated)

    @rank_zero_only
    def _write_model(self, module: LightningModule) -> None:
        save(module, self.run / "model")

    def _keep_model(self, module: LightningModule, value: float | None) -> None:
        self._write_model(module)
        self.best = {"value": value, "step": self.rows.last.get("step", 0), "name": module.metric[0]}

    @rank_zero_only
    def _report(self, trainer: Trainer, module: LightningModule, last: bool = False) -> None:
        """Write metrics.json, and now and then the pictures."""
        metrics = dict(self.rows.last)
        if self.best and self.best["value"] is not None:
            metrics |= {f"best/{self.best['name']}": self.best["value"], "best/step": self.best["step"]}
        write_metrics(self.run, metrics)
        if last or time.monotonic() - self._drawn_at > REDRAW:
            try:
                draw_curves(self.run, module.grouped_by)
                if last:
                    write_subsets(self.run, module.grouped_by)
                module.draw(self.run)
                module.expert_use.draw(self.run)
            except OSError as error:
                # A drawing is not worth a run.
                say(f"{self.run}: the pictures could not be drawn: {error}")
            self._drawn_at = time.monotonic()

    # Saving.

    @property
    def _signalled(self) -> bool:
        return self.signals.received is not None

    def _agree(self, trainer: Trainer, wanted: bool) -> bool:
        """Whether any process wants it, for then all must do it at the same place."""
        return trainer.strategy.reduce_boolean_decision(wanted, all=False) if trainer.world_size > 1 else wanted

    def _is_due(self, trainer: Trainer) -> bool:
        minutes, steps = self.saving.every_n_minutes, self.saving.every_n_steps
        by_time = minutes is not None and time.monotonic() - self._saved_at > 60 * minutes
        by_steps = steps is not None and trainer.global_step - self._saved_step >= steps
        return self._agree(trainer, by_time or by_steps or self._signalled)

    @property
    def advice(self) -> str:
        """How to go on after a stop; nothing where nothing is kept, as of a few batches that are tried."""
        if self.settings.get("trainer", {}).get("fast_dev_run"):
            return ""
        return f"; go on with: {program()} fit --resume {self.resumable}"

    def stopped(self) -> Stopped:
        number = self.signals.received or signal.SIGTERM
        say(f"stopped{self.advice}")
        return Stopped(128 + number)

    def _save(self, point: str, trainer: Trainer) -> None:
        """Save a checkpoint; and end the run, where a signal asked for it."""
        self._point = point
        folder = self.run / "checkpoints"
        trainer.save_checkpoint(folder / f"batch-{n_batches(trainer):08d}-{point}.ckpt")
        if trainer.is_global_zero:
            keep_newest(folder, self.saving.keep)
        self._point, self._saved_step, self._saved_at = None, trainer.global_step, time.monotonic()
        if self._agree(trainer, self._signalled):
            raise self.stopped()

    def on_save_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._point is None:
            return  # The checkpoint of another callback.
        ranks = [generators()]
        if trainer.world_size > 1:
            ranks *= trainer.world_size
            torch.distributed.all_gather_object(ranks, generators())
        checkpoint["anyformer"] = {
            "point": self._point,
            "best": dict(self.best),
            "metrics": self.rows.state_dict(),
            "data": self._data_of(trainer, module),
            "generators": ranks,
            "running": running_averages(trainer),
            "ended": limits(trainer) if self._ended else None,
        }
        checkpoint["settings"] = self.settings
        checkpoint["config_sha256"] = None if self.config is None else _sha256(self.config)
        settle(checkpoint, self._point, self._place, self._validated)
