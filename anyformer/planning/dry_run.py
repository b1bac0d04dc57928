"""Planning a run: real batches are looked at and a few steps taken, of which nothing is kept."""

from __future__ import annotations

import copy
import math
import resource
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning import LightningDataModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from anyformer.data.batch_plan import Draw
from anyformer.data.loader import Loader
from anyformer.drawing.token_strips import draw_strips
from anyformer.errors import InputError
from anyformer.faults import writing
from anyformer.optim.optimizer import OptimizerConfig
from anyformer.planning.checks import cautions
from anyformer.planning.parameters import measure
from anyformer.planning.probe import count, drawable, engines, look, sizes, tokens_of, trunk
from anyformer.planning.report import TIMES, Memory, Part, Planned, Step
from anyformer.planning.token_budget import count_budget, stacks
from anyformer.planning.training import Training, how_trained
from anyformer.runs.signals import stopping_at_once
from anyformer.runs.trainer import NEVER_VALIDATED, check_callbacks, listed, make_trainer, quiet
from anyformer.saving.atomic import write_whole
from anyformer.tasks.base.run_length import run_length
from anyformer.tasks.base.task import Task
from anyformer.tasks.start.encoders import open_encoders
from anyformer.tasks.start.opening import hand_over

N_DRAWN = 6
"""Samples in the picture, of all tasks together."""
N_STEPS = 12
"""Batches that are stepped through at most, the first of them unmeasured; as few as 3 where they take long."""
PATIENCE = 10.0
"""Seconds for the batches looked at, for the steps, and for a batch of validation."""
KEPT_OUT = (
    "callbacks", "logger", "plugins", "profiler", "strategy", "num_nodes", "max_time", "default_root_dir",
    "fast_dev_run", "enable_model_summary", "num_sanity_val_steps", "limit_val_batches",
)  # fmt: skip
"""Options of the Trainer that write or talk, that are for several processes, or that would have it validate."""


def plan(task: Task, data: LightningDataModule, picture: str | Path | None = None, **options: Any) -> Planned:
    """Plan a run before anything is trained, by a look at real batches and a few steps on copies of task and data.

    task, data: as for `fit`; they stay as they are.
    picture: the PNG file to draw samples in, as the model sees them; none is drawn when left out.
    options: Lightning's, for the Trainer, as `fit` takes them; those that write or talk are left out.
    Returns the sizes, tokens, parameters, time, memory and warnings: a table as a string, plain values by `plain()`.
    Raises InputError for what `fit` would refuse before its first step; and Stopped, a SystemExit, where SIGTERM or
    SIGINT ended it.
    """
    check_callbacks(listed(options.get("callbacks")))
    task, data = copy.deepcopy(task), copy.deepcopy(data)
    hand_over(task)
    open_encoders(task, task.packages)
    watch = _Watch(picture, task.optimizer)
    # What a step costs once all layers have joined.
    task.optimizer = replace(task.optimizer, unfreeze=None)
    for part in getattr(data, "parts", {"": data}).values():
        # What cannot be used is counted and said with the rest.
        part.on_bad_sample = "skip"
    task.train()
    with quiet(), stopping_at_once():
        trainer = make_trainer(
            {name: value for name, value in options.items() if name not in KEPT_OUT},
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            num_sanity_val_steps=0,
            limit_val_batches=0,
            callbacks=[watch],
        )
        with suppress(_Enough):
            trainer.fit(task, datamodule=data)
    return watch.planned()


class _Enough(Exception):
    """All has been seen."""


class _Member(NamedTuple):
    """A task with its data: the only one of a run, or one of a mixture."""

    task: Task
    data: Any
    """Its `Records`."""
    loader: Loader
    """Of training."""


def _members(task: Task, data: LightningDataModule, loader: Any) -> dict[str, _Member]:
    """By name; '' where there is one alone."""
    if not task.members:
        return {"": _Member(task, data, loader)}
    return {name: _Member(each, data.parts[name], loader.loaders[name]) for name, each in task.members.items()}


class _Taken(NamedTuple):
    """A batch that was stepped through."""

    task: str
    n_samples: int
    n_tokens: int
    times: dict[str, float]
    """Seconds, by `TIMES`."""


class _Watch(Callback):
    """Looks at a training that begins, and breaks it off."""

    def __init__(self, picture: str | Path | None, optimizer: OptimizerConfig) -> None:
        """optimizer: as the task has it."""
        self.picture, self.optimizer = picture, optimizer
        self.began = time.perf_counter()
        self.before = _process_peak()
        self.batches: list[_Taken] = []
        self.shares: dict[str, float] = {}
        """Of the batches of an epoch, by task."""
        self.found: dict[str, Any] = {}

    # Before the first step.

    def on_train_start(self, trainer: Trainer, module: Task) -> None:
        every, is_within_epoch = trainer.val_check_interval, trainer.check_val_every_n_epoch is not None
        has_validation = "validation" in trainer.datamodule.sources
        # Lightning asks this only where there are batches of validation, of which there are none here.
        if has_validation and is_within_epoch and isinstance(every, int) and every > trainer.num_training_batches:
            raise InputError(NEVER_VALIDATED)
        setup_seconds = time.perf_counter() - self.began
        loader = trainer.train_dataloader
        self.shares = {"": 1.0} if not module.members else dict(loader.turns.steps)
        members = _members(module, trainer.datamodule, loader)
        parts, strips, warnings = {}, {}, []
        for name, member in members.items():
            looked = look(member.loader, PATIENCE / len(members))
            budget = count_budget(looked.batches) if looked.batches else None
            told = cautions(
                member.task, member.data.sources["train"], member.loader.samples, budget, looked.bad, looked.n
            )
            warnings += [f"{name}: {warning}" if name else warning for warning in told]
            parts[name] = Part(
                task=type(member.task).__name__,
                records={kind: len(source) for kind, source in member.data.sources.items()},
                sizes=sizes(member.task),
                n_batches=len(member.loader),
                budget=budget,
                trunk=trunk(member.task),
                attention=engines(member.task, looked.examples),
                parameters=measure(member.task, tokens_of(member.task, budget), member.task.conditions),
            )
            if self.picture is not None:
                strips[name] = list(drawable(member.task, member.loader, -(-N_DRAWN // len(members))))
        n_validations = _n_validations(trainer)
        n_steps = -(-trainer.num_training_batches // trainer.accumulate_grad_batches)
        self.found = {
            "parts": parts,
            "n_parameters": sum(parameter.numel() for parameter in module.parameters()),
            "n_steps": run_length(trainer, n_steps),
            "pretraining_steps": _pretraining_steps(module, trainer.datamodule, n_steps),
            "setup_seconds": setup_seconds,
            "n_validations": n_validations,
            "validation_seconds": _time_validation(trainer, members.values()) if n_validations else 0.0,
            "warnings": tuple(warnings),
            "picture": self._draw(members, strips),
            "training": self._training(module),
        }
        module.train()
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(trainer.strategy.root_device)
        self.stepping = self.last = time.perf_counter()

    def _training(self, module: Task) -> tuple[Training, ...]:
        held, module.optimizer = module.optimizer, self.optimizer
        try:
            return tuple(how_trained(module))
        finally:
            module.optimizer = held

    def _draw(self, members: Mapping[str, _Member], strips: Mapping[str, list]) -> str | None:
        tokenizers = {name: dict(member.task.model.tokenizers) for name, member in members.items()}
        image = draw_strips(strips, tokenizers) if any(strips.values()) else None
        if image is None:
            return None
        path = Path(self.picture)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda part: image.save(part, "PNG"))
        return str(path)

    # The steps.

    def _clock(self, trainer: Trainer, name: str) -> None:
        """Give the time since the last call a name."""
        _wait(trainer)
        now = time.perf_counter()
        times = self.batches[-1].times
        times[name] = times.get(name, 0.0) + now - self.last
        self.last = now

    def on_train_batch_start(self, trainer: Trainer, module: Task, batch: Any, batch_index: int) -> None:
        every = stacks(batch)
        n_tokens = sum(len(tokens.index) for part in every for tokens in part.fields.values())
        self.batches.append(_Taken(getattr(batch, "task", ""), every[0].n_samples, n_tokens, {}))
        self._clock(trainer, "read")

    def on_before_backward(self, trainer: Trainer, module: Task, loss: Tensor) -> None:
        self._clock(trainer, "forward")

    def on_after_backward(self, trainer: Trainer, module: Task) -> None:
        self._clock(trainer, "backward")

    def on_train_batch_end(self, trainer: Trainer, module: Task, outputs: Any, batch: Any, batch_index: int) -> None:
        self._clock(trainer, "optimizer")
        n, each = len(self.batches), trainer.accumulate_grad_batches
        # Each task of a mixture has its turn, if it comes in reasonable time.
        wanted = 2 * each * len(self.shares) if len(self.shares) > 1 else max(N_STEPS, each)
        taken = Counter(batch.task for batch in self.batches)
        over = n >= wanted and all(taken[task] >= 2 for task in self.shares)
        over |= n >= max(3, each) and self.last - self.stepping > PATIENCE * len(self.shares)
        if over or n >= trainer.num_training_batches or trainer.global_step == trainer.max_steps:
            self.found |= self._stepped(trainer, module)
            raise _Enough

    def _stepped(self, trainer: Trainer, module: Task) -> dict[str, Any]:
        device = trainer.strategy.root_device
        by_task = {task: [batch for batch in self.batches if batch.task == task] for task in self.shares}
        # The first finds no buffer warm and no worker running, where there is another.
        by_task = {task: taken[min(1, len(taken) - 1) :] for task, taken in by_task.items() if taken}
        total = sum(self.shares[task] for task in by_task)

        def mean(value: Callable[[_Taken], float]) -> float:
            """Of a step, each task as often as its turn comes in the run."""
            of_batch = sum(
                self.shares[task] / total * statistics.fmean(map(value, taken)) for task, taken in by_task.items()
            )
            return trainer.accumulate_grad_batches * of_batch

        step = Step(
            torch.cuda.get_device_name(device) if device.type == "cuda" else _threads(),
            sum(map(len, by_task.values())),
            **{name: mean(lambda batch, name=name: batch.times.get(name, 0.0)) for name in TIMES},
            samples=mean(lambda batch: batch.n_samples),
            tokens=mean(lambda batch: batch.n_tokens),
        )
        parameters = list(module.parameters())
        kept = [
            value for optimizer in trainer.optimizers for state in optimizer.state.values() for value in state.values()
        ]
        kept += module.average.weights.values()
        is_cuda = device.type == "cuda"
        memory = Memory(
            weights=_bytes([*parameters, *module.buffers()]),
            gradients=_bytes(parameter for parameter in parameters if parameter.requires_grad),
            optimizer=_bytes(value for value in kept if isinstance(value, Tensor)),
            before=0 if is_cuda else self.before,
            peak=torch.cuda.max_memory_allocated(device) if is_cuda else _process_peak(),
        )
        return {"step": step, "memory": memory}

    def planned(self) -> Planned:
        if "step" not in self.found:
            raise InputError("no step would be taken: raise trainer.max_epochs, max_steps or limit_train_batches")
        return Planned(**self.found)


def _n_validations(trainer: Trainer) -> int:
    n, each = trainer.num_training_batches, trainer.accumulate_grad_batches
    n_batches, often, every = run_length(trainer, n, each), trainer.check_val_every_n_epoch, trainer.val_check_batch
    if "validation" not in trainer.datamodule.sources or math.isinf(n_batches):
        return 0
    if often is None:
        return int(n_batches // every)
    return int(n_batches // n // often) * max(int(n // every), 1)


def _pretraining_steps(task: Task, data: LightningDataModule, n_steps: int) -> int:
    """Of `pretrain`, if there is one. n_steps: of an epoch of the task's own."""
    if task.pretrain is None:
        return 0
    records = data.pretraining()
    records.attach(task)
    records.setup("fit")
    return task.pretrain.epochs * math.ceil(n_steps * len(records.sources["train"]) / len(data.sources["train"]))


@torch.no_grad()
def _time_validation(trainer: Trainer, members: Iterable[_Member]) -> float:
    """Seconds of a whole validation, by a batch of each pass; by a few samples where that would take long."""
    passes = []
    for member in members:
        if "validation" in member.data.sources:
            loaders = member.data.val_dataloader()
            passes += [(member.task, each) for each in (loaders if isinstance(loaders, list) else [loaders])]
    seconds = 0.0
    for task, loader in passes:
        every = list(loader.plan.epoch(0))
        first = every[0]
        few = min(4, len(first))
        one, several = (_time_evaluation(trainer, task, loader, first[:n]) for n in (1, few))
        # Where a text is written most of the time goes by its tokens, however many samples there are.
        whole = several + max(several - one, 0.0) / max(few - 1, 1) * (len(first) - few)
        if whole <= PATIENCE / len(passes):
            whole = _time_evaluation(trainer, task, loader, first)
        seconds += whole * len(every)
    return seconds


def _time_evaluation(trainer: Trainer, task: Task, loader: Loader, draws: list[Draw]) -> float:
    """Seconds of a batch, those of reading it included."""
    started = time.perf_counter()
    fetched = loader.samples.__getitems__(draws)
    if fetched.batch is None:
        return 0.0
    batch = trainer.strategy.batch_to_device(fetched.batch)
    task.eval()
    task.begin_evaluation()
    with trainer.precision_plugin.val_step_context():
        task.evaluate(batch)
    _wait(trainer)
    task.begin_evaluation()
    return time.perf_counter() - started


def _wait(trainer: Trainer) -> None:
    """Until all that was begun is done."""
    if trainer.strategy.root_device.type == "cuda":
        torch.cuda.synchronize(trainer.strategy.root_device)


# Memory.


def _bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _process_peak() -> int:
    """The most memory that this process has held, in bytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def _threads() -> str:
    return f"the CPU with {count(torch.get_num_threads(), 'thread')}"
