"""Runs: training into a run folder, going on with one that stopped, testing it, and its best model alone.

    config.yaml    samples.png    sees.png    metrics.csv    metrics.json    curves.png    checkpoints/    model/

A run of a task that is pretrained has that run in `pretrained/`.

The command line and Python come through the same functions.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from lightning import LightningDataModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from anyformer.errors import InputError, program, say
from anyformer.faults import MachineError, machine_faults, writing
from anyformer.parsing.instantiate import instantiate
from anyformer.parsing.plain import describe
from anyformer.runs.checkpoint_io import Checkpoints
from anyformer.runs.checkpointing import RunCallback, Saving
from anyformer.runs.metrics_file import MetricsFile, has_rows, read_metrics, write_metrics
from anyformer.runs.progress import Lines, has_bar
from anyformer.runs.reports.beginning import Beginning
from anyformer.runs.reports.calibration import calibrate
from anyformer.runs.reports.classes import write_classes
from anyformer.runs.reports.subsets import write_subsets
from anyformer.runs.signals import STOPS, Stopped, handlers_kept, passed_on, stopping_at_once
from anyformer.runs.state.loop_state import starts_processes
from anyformer.runs.state.random_state import generators, set_generators
from anyformer.runs.trainer import (
    NEVER_VALIDATED,
    check_callbacks,
    describe_options,
    given,
    listed,
    make_trainer,
    quiet,
    unknown_metric,
)
from anyformer.saving.atomic import write_whole
from anyformer.saving.manifest import begin_checkpoints, has_checkpoints, newest
from anyformer.saving.model_folder import load, misfit, model_folder, read_weights
from anyformer.saving.run_folder import holds_trials, run_folder
from anyformer.saving.run_lock import locked
from anyformer.tasks.base.records import Records
from anyformer.tasks.base.task import Task
from anyformer.tasks.mixture.data import Mixed
from anyformer.tasks.start.encoders import has_unopened, open_encoders
from anyformer.tasks.start.opening import hand_over

PRETRAINED = "pretrained"
"""The folder of the run of `pretrain`, in that of the whole run."""
OF_PRETRAINING = (
    *("accelerator", "strategy", "devices", "num_nodes", "precision", "deterministic", "benchmark"),
    *("accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm", "log_every_n_steps"),
    *("limit_train_batches", "limit_val_batches", "enable_progress_bar", "fast_dev_run", "max_time"),
)
"""The trainer's options that are those of `pretrain` too."""
ALONE = {"devices": 1}
"""The options of a Trainer that works in this process alone."""


def fit(
    task: Task,
    data: LightningDataModule,
    run_dir: str | Path,
    *,
    resume: bool = False,
    config: str | None = None,
    saving: Saving = Saving(),
    **options: Any,
) -> dict[str, float]:
    """Train a task on data into a run folder, and test its best model if there are test records.

    Afterwards the task has the best model's weights.

    run_dir: a folder that holds no run yet; or, with `resume`, the one that holds the run to go on with.
    config: the text of config.yaml, if the run has one; a resumed run's is written once its checkpoint has been loaded.
    options: Lightning's, for the Trainer: max_epochs, callbacks, logger, ...
    A run that came to its end is resumed without training, unless it may now train for longer: it is tested again.
    With `fast_dev_run` a few batches are tried, and nothing is kept: there is no run folder.
    With several processes nothing is tested, because each would test a part and count some samples twice: `evaluate`
    or `anyformer test` does it afterwards, in one. What is calibrated is so by all of them.
    Returns the last metrics by name, as metrics.json has them.
    Raises InputError if the folder holds another run or another process trains there, or its checkpoints cannot be used
    for this task; and Stopped, a SystemExit, where SIGTERM or SIGINT ended it. MachineError, an InputError, where the
    machine gave no room or memory or a data worker died; the checkpoints are then those from before.
    """
    run = run_folder(run_dir)
    # Before there is a folder.
    check_callbacks(listed(options.get("callbacks")))
    if options.get("fast_dev_run"):
        if resume:
            raise InputError("trainer.fast_dev_run tries a few batches and keeps nothing; resume without it")
        with TemporaryDirectory() as folder:
            return _fit(task, data, Path(folder), False, config, saving, options)
    if resume:
        _check_resumable(run)
    if rank_zero_only.rank != 0:
        # Of several processes the first holds the folder for all.
        return _fit(task, data, run, resume, config, saving, options)
    with locked(run):
        return _fit(task, data, run, resume, config, saving, options)


def _fit(
    task: Task,
    data: LightningDataModule,
    run: Path,
    resume: bool,
    config: str | None,
    saving: Saving,
    options: dict[str, Any],
    part_of: Path | None = None,
) -> dict[str, float]:
    """part_of: the run that one of `pretrain` belongs to."""
    if task.calibrates and not holds(data, "validation"):
        raise InputError("calibrate: it is fitted on the validation records; give data.validation, or leave it out")
    if task.calibrates and options.get("limit_val_batches") == 0:
        raise InputError(
            "calibrate: it is fitted on the validation records, which trainer.limit_val_batches: 0 leaves out; raise "
            "that, or leave calibrate out"
        )
    rows, checkpoint, is_first = MetricsFile(run), None, rank_zero_only.rank == 0
    if resume:
        checkpoint = newest(run / "checkpoints", say, mends=is_first)
        if checkpoint is None:
            _begin_again(task, run, config, is_first)
    elif is_first:
        _prepare(run)
        if config is not None:
            write_whole(run / "config.yaml", config)
        rows.begin()
    if task.pretrain is not None:
        _pretrain(task, data, run, resume, checkpoint is None, saving, options)
    if checkpoint is None:
        hand_over(task)
        open_encoders(task, task.packages)
    else:
        # What it was started from need not be there any more.
        task.has_started = True
        if task.model is None and ((task.pretrained or task.init_from) is not None or has_unopened(task)):
            task.inherit_from(instantiate(Checkpoints().load_checkpoint(checkpoint)["config"], task.packages))
    settings = {"trainer": describe_options(options), "checkpoints": describe(saving)}
    if isinstance(data, Records | Mixed):
        settings["data"] = data.config()
    run_callback = RunCallback(run, rows, saving, settings, resume, config, part_of)
    options = given(options)
    callbacks, loggers, plugins = (listed(options.pop(name, None)) for name in ("callbacks", "logger", "plugins"))
    if not any(isinstance(callback, Checkpoint) for callback in callbacks):
        options["enable_checkpointing"] = False
    if checkpoint is not None:
        options["num_sanity_val_steps"] = 0
    lines = Lines(lambda: run_callback.best.get("value"), shown=options.get("enable_progress_bar") is not False)
    if not has_bar() and not any(isinstance(callback, ProgressBar) for callback in callbacks):
        options.setdefault("enable_progress_bar", False)
    # One that was loaded or has predicted comes in evaluation mode, and Lightning would leave its dropout off.
    task.train()
    with quiet():
        trainer = make_trainer(
            options,
            default_root_dir=run,
            callbacks=[run_callback, *([Beginning(run)] if lines.shown else ()), lines, *callbacks],
            logger=[rows, *loggers],
            plugins=[Checkpoints(), *plugins],
        )
        try:
            with handlers_kept(), machine_faults():
                _train(trainer, task, data, checkpoint)
                if run_callback.signals.received:
                    raise run_callback.stopped()
        except MachineError as error:
            if (run / "checkpoints").is_dir() and (advice := run_callback.advice):
                raise MachineError(f"{error}{advice.replace('; ', '; then ', 1)}") from error
            raise
        except (RuntimeError, ValueError) as error:
            if str(error).startswith("Early stopping conditioned"):
                monitor = re.findall("`(.+?)`", str(error))[0]
                known = unknown_metric("EarlyStopping", monitor, trainer.callback_metrics)
                raise InputError(f"trainer.callbacks: {known}, where it looks; validate as often") from None
            if "`val_check_interval`" in str(error):
                raise InputError(NEVER_VALIDATED) from None
            if checkpoint is not None and (wrong := misfit(error)):
                raise InputError(
                    f"{checkpoint} is of another model: {wrong}; resume with the model of {run / 'config.yaml'}, "
                    "or train this one with another --run_dir"
                ) from None
            raise
        except ModuleNotFoundError as error:
            raise InputError(f"the trainer's options cannot be used: {error}") from None
        except SIGTERMException:
            # The signal came before the first batch, when there was nothing to save.
            raise Stopped(128 + signal.SIGTERM) from None
        tells = is_first and not options.get("fast_dev_run") and not starts_processes(trainer)
        if tells and (lines.n_steps or part_of is None):
            lines.end(trainer, "trainer.max_epochs" if part_of is None else "pretrain.epochs")
        if options.get("fast_dev_run"):
            return {name: value.item() for name, value in trainer.callback_metrics.items()}
        if starts_processes(trainer):
            # Nothing comes back from them but what is in the folder.
            trained = load(run, unsafe_imports=task.packages)
            for name in trained._modules:
                # None before it was built, which would hide the module.
                vars(task).pop(name, None)
            vars(task).update(vars(trained))
        else:
            read_weights(task, model_folder(run))
        if task.calibrates:
            processes = _processes(trainer, options)
            calibrate(task, run, lambda folder: _evaluate(task, data, "validate", folder, options, processes))
            trainer.strategy.barrier()
        if trainer.world_size > 1:
            if trainer.is_global_zero and holds(data, "test"):
                say(f"not tested, because {trainer.world_size} processes trained; test with: {program()} test {run}")
        elif holds(data, "test") and options.get("limit_test_batches") != 0:
            write_metrics(run, evaluate(task, data, "test", run, **options))
            write_subsets(run, task.grouped_by)
    return read_metrics(run)


def _processes(trainer: Trainer, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a Trainer that evaluates in the processes that have trained and are still here."""
    if trainer.world_size == 1 or starts_processes(trainer):
        return ALONE
    # Loaders that do not share out the records themselves hand every process all of them, and none twice as often.
    shared = {name: options[name] for name in ("devices", "num_nodes") if name in options}
    return {"strategy": "ddp", "use_distributed_sampler": False, **shared}


def _train(trainer: Trainer, task: Task, data: LightningDataModule, checkpoint: Path | None) -> None:
    """Train; what ends a run in processes that the trainer has started ends it here as it would in this one."""
    if not starts_processes(trainer):
        trainer.fit(task, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        return
    received: list[int] = []
    try:
        with passed_on(lambda: trainer.strategy.launcher.procs, received):
            trainer.fit(task, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except ProcessExitedException as error:
        if received or error.exit_code - 128 in STOPS:
            raise Stopped(128 + received[0] if received else error.exit_code) from None
        raise
    except ProcessRaisedException as error:
        *_, (kind, message) = re.findall(r"^([\w.]+): (.*(?:\n(?![\w.]+: ).*)*)", str(error), re.MULTILINE) or [
            ("", "")
        ]
        if kind.endswith((".InputError", ".MachineError", ".WriteError")):
            raise (InputError if kind.endswith(".InputError") else MachineError)(message.strip()) from None
        raise RuntimeError(message.strip() or str(error)) from error


def _prepare(run: Path) -> None:
    """Make the folder. What broke off before anything was learned is no run, and is written over."""
    if holds_trials(run):
        raise InputError(f"{run} holds the runs of several folds or seeds; choose another --run_dir for one run")
    if _has_learned(run) or _has_learned(run / PRETRAINED):
        raise InputError(f"{run} already holds a run; go on with fit --resume {run}, or choose another --run_dir")
    with writing(run):
        run.mkdir(parents=True, exist_ok=True)
        begin_checkpoints(run / "checkpoints")


def _begin_again(task: Task, run: Path, config: str | None, is_first: bool) -> None:
    """Where a run is gone on with that had no checkpoint yet of its own: it is as if it began now, but for what was
    pretrained."""
    is_pretrained = _has_learned(run / PRETRAINED)
    if is_pretrained and task.pretrain is None:
        raise InputError(
            f"{run} was being pretrained, and its config has no pretrain any more; resume with it, or train again with "
            "another --run_dir"
        )
    if is_first and config is not None:
        write_whole(run / "config.yaml", config)
    if is_first and not is_pretrained:
        say(f"{run} has no checkpoint yet: starting from the beginning")


def _has_learned(run: Path) -> bool:
    has_model = any((run / name).exists() for name in ("model", "model.old"))
    return has_model or has_checkpoints(run / "checkpoints") or has_rows(run / "metrics.csv")


def _pretrain(
    task: Task,
    data: LightningDataModule,
    run: Path,
    resume: bool,
    begins: bool,
    saving: Saving,
    options: dict[str, Any],
) -> None:
    """Train the task of `pretrain`, or go on with that, into a run of its own, which the task will start from.

    begins: whether the task's own training is still to begin.
    """
    folder = run / PRETRAINED
    if not isinstance(data, Records):
        raise InputError(f"model.pretrain takes its records from data of Records, got {type(data).__name__}")
    if begins:
        if task.model is not None:
            raise InputError("model.pretrain is for a task that has not been fitted; make it anew")
        # So that the task begins with the same numbers drawn, whether or not this is interrupted.
        state = generators()
        if not resume:
            # What is wrong with the records of the task itself is said before hours of pretraining.
            records = data.copy()
            records.attach(task)
            records.setup("fit")
            deepcopy(task).fit_tokenizers(records.sources["train"])
        of_stage = {name: value for name, value in options.items() if name in OF_PRETRAINING}
        has_begun = resume and (folder / "metrics.csv").exists()
        if rank_zero_only.rank == 0:
            say(f"pretraining into {folder}: filling in what is hidden of {', '.join(task.pretrain.masked)}")
        stage = {"max_epochs": task.pretrain.epochs, **of_stage}
        _fit(task.pretraining(), data.pretraining(), folder, has_begun, None, saving, stage, run)
        set_generators(state)
        if rank_zero_only.rank == 0:
            say(f"training into {run}, from the best weights of {folder}")
    if not options.get("fast_dev_run"):
        task.pretrained = str(folder)


def _check_resumable(run: Path) -> None:
    """Raise InputError where a folder holds no run, or one of which something is lost."""
    if holds_trials(run):
        raise InputError(f"{run} holds the runs of several folds or seeds; choose another --run_dir for one run")
    if not (run / "metrics.csv").exists():
        if has_checkpoints(run / "checkpoints"):
            raise InputError(
                f"{run / 'metrics.csv'} is missing; copy the run anew, or train again with another --run_dir"
            )
        raise InputError(f"{run} holds no run to resume; start one with fit --config ... --run_dir {run}")
    # Of which nothing is used, but what is in it would be lost when it is written.
    read_metrics(run)


def holds(data: LightningDataModule, kind: Literal["validation", "test"]) -> bool:
    """Whether there are records to validate or test on."""
    if isinstance(data, Records | Mixed):
        return data.holds(kind)
    return is_overridden(f"{kind[:3] if kind == 'validation' else kind}_dataloader", data)


def evaluate(
    task: Task,
    data: LightningDataModule,
    stage: Literal["test", "validate"] = "test",
    run_dir: str | Path | None = None,
    **options: Any,
) -> dict[str, float]:
    """Test or validate a task, in one process; returns the metrics by name.

    task: fitted, or of `load`. data: as for `fit`; an evaluation takes its test or validation records.
    stage: on which records. run_dir: where the task draws its pictures, if anywhere.
    options: Lightning's, for the Trainer; those that are for training only are left out.
    Raises InputError for another stage, for data without such records and for options that Lightning refuses; and
    Stopped, a SystemExit, where SIGTERM or SIGINT ended it.
    """
    return _evaluate(task, data, stage, run_dir, options, ALONE)


def _evaluate(
    task: Task,
    data: LightningDataModule,
    stage: Literal["test", "validate"],
    run_dir: str | Path | None,
    options: Mapping[str, Any],
    processes: Mapping[str, Any],
) -> dict[str, float]:
    """processes: the options that say in which; the first draws for all."""
    if stage not in ("test", "validate"):
        raise InputError(f"stage must be test or validate, got {stage!r}")
    limit = "limit_test_batches" if stage == "test" else "limit_val_batches"
    if options.get(limit) == 0:
        raise InputError(f"trainer.{limit}: 0 leaves out all records, and there is nothing to evaluate; raise it")
    wanted = ("accelerator", "precision", "enable_progress_bar", "limit_test_batches", "limit_val_batches")
    with quiet(), stopping_at_once():
        trainer = make_trainer(
            {"enable_progress_bar": has_bar()} | {name: value for name, value in options.items() if name in wanted},
            logger=False,
            enable_checkpointing=False,
            default_root_dir=run_dir,
            **processes,
        )
        # One for each loader, of which each holds what was logged at the end.
        with machine_faults():
            metrics = getattr(trainer, stage)(task, datamodule=data, verbose=False)[-1]
    draws = type(task).draw is not Task.draw or task.expert_use.shares
    if run_dir is not None and trainer.is_global_zero and draws:
        with writing(run_dir):
            Path(run_dir).mkdir(exist_ok=True)
        task.draw(Path(run_dir))
        task.expert_use.draw(Path(run_dir))
        write_classes(Path(run_dir), task, "test" if stage == "test" else "validation")
    return dict(metrics)
