"""The data of a mixture: the records of each of its tasks, and training batches of one task a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self, final

import numpy as np
import torch
from lightning import LightningDataModule

from anyformer.choices import Checked
from anyformer.data.loader import Loader
from anyformer.data.source import Source
from anyformer.errors import InputError, nearest
from anyformer.faults import MachineError
from anyformer.tasks.base.examples import Examples
from anyformer.tasks.base.records import Records
from anyformer.tasks.base.task import Task


@final
class Part(Records):
    """The records of one task of a mixture; arguments as of `Records`."""


@dataclass
class Turn:
    """A training batch of one of the tasks."""

    task: str
    """Its name."""
    batch: Examples

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        return replace(self, batch=self.batch.to(device, non_blocking=non_blocking))


@dataclass(frozen=True)
class Turns:
    """Whose turn it is at each step of the optimiser: a pure function of (seed, epoch, step). Made by `plan_turns`.

    Every epoch has the same number of steps of each task, in another sequence; all batches of a step are of one task.
    """

    steps: Mapping[str, int]
    """Of an epoch, by task."""
    accumulate: int
    """Batches of a step."""
    seed: int

    def __len__(self) -> int:
        """Batches of an epoch."""
        return self.accumulate * sum(self.steps.values())

    def epoch(self, epoch: int) -> list[str]:
        """The task of each batch of an epoch."""
        names = np.repeat(list(self.steps), list(self.steps.values()))
        # Of another stream than the order of samples, which is drawn from (seed, epoch).
        drawn = np.random.default_rng((self.seed, epoch, 2)).permutation(names)
        return np.repeat(drawn, self.accumulate).tolist()

    def before(self, epoch: int, offset: int) -> dict[str, int]:
        """How many batches of each task come before a place."""
        begun = self.epoch(epoch)[:offset] if offset else []
        return {name: epoch * self.accumulate * n + begun.count(name) for name, n in self.steps.items()}


def plan_turns(
    sizes: Mapping[str, int],
    *,
    sampling: Mapping[str, float] | None = None,
    temperature: float = 1.0,
    n_batches: int | None = None,
    accumulate: int = 1,
    seed: int = 0,
) -> Turns:
    """How often it is each task's turn.

    sizes: batches of each task's own epoch.
    sampling: shares of the steps, by task; where some tasks are not named, they divide the rest of 1 by their sizes, in
        proportion to size^(1 / temperature) (mT5, Xue et al. 2021, 3.1): 1 goes through all of them at the same rate,
        above it the small ones come more often.
    n_batches: of an epoch, rounded up to whole steps; the sum of the sizes when left out.
    accumulate: batches of a step of the optimiser.
    Every task has at least one step. Raises InputError where an epoch is too short for that.
    """
    sampling = sampling or {}
    rest = {name: size for name, size in sizes.items() if name not in sampling}
    # Of the largest, as powers of the sizes themselves may be too great for a number.
    largest = max(rest.values(), default=1)
    rest = {name: (size / largest) ** (1 / temperature) for name, size in rest.items()}
    left = 1 - sum(sampling.values()) if rest else 0.0
    share = np.array([sampling.get(name, left * rest.get(name, 0) / sum(rest.values() or [1])) for name in sizes])
    n_steps = -(-(sum(sizes.values()) if n_batches is None else n_batches) // accumulate)
    if n_steps < len(sizes):
        raise InputError(
            f"data.n_batches: an epoch of {n_steps} steps is too short for a step of each of the {len(sizes)} tasks"
        )
    exact = n_steps * share / share.sum()
    steps = np.maximum(np.floor(exact).astype(np.int64), 1)
    while steps.sum() != n_steps:
        # Largest remainders; what had to be rounded up to one is taken from those that are furthest above their share.
        change = 1 if steps.sum() < n_steps else -1
        steps[np.argmax(np.where((change > 0) | (steps > 1), change * (exact - steps), -np.inf))] += change
    return Turns(dict(zip(sizes, steps.tolist(), strict=True)), accumulate, seed)


class MixedLoader:
    """Training batches of several tasks as planned, each in a `Turn`; knows its place, and goes on from there.

    The epochs of each task go on by themselves. Where a task's own loader stands follows from the place, so that the
    state is two integers.
    """

    def __init__(self, loaders: Mapping[str, Loader], turns: Turns, ask_epoch: Callable[[], int]) -> None:
        """ask_epoch: says which epoch it is."""
        self.loaders, self.turns, self.ask_epoch = dict(loaders), turns, ask_epoch
        self.epoch, self.offset = 0, 0
        self._begun = False
        self._running: dict[str, Iterator[Examples]] = {}

    def __len__(self) -> int:
        """Batches of an epoch: the same for all."""
        return len(self.turns)

    def __iter__(self) -> Iterator[Turn]:
        # A generator, so that nothing happens before the first batch is asked for: a trainer calls iter() to try it.
        epoch, over = self.ask_epoch(), self._begun or self.offset >= len(self)
        if over or epoch != self.epoch:
            self.epoch, self.offset = epoch, 0
        self._begun = True
        for name, n in self.turns.before(self.epoch, self.offset).items():
            self._go_to(name, n)
        for name in self.turns.epoch(self.epoch)[self.offset :]:
            batch = self._next(name)
            self.offset += 1
            yield Turn(name, batch)

    def _go_to(self, name: str, n: int) -> None:
        """Put the loader of a task to where n batches are behind it."""
        loader = self.loaders[name]
        if name in self._running and loader.epoch * len(loader) + loader.offset == n:
            # It stands there, and its workers may have read ahead.
            return
        self._running.pop(name, None)
        epoch, offset = divmod(n, len(loader))
        loader.load_state_dict({**loader.state_dict(), "epoch": epoch, "offset": offset})

    def _next(self, name: str) -> Examples:
        batch = next(self._running.get(name, iter(())), None)
        if batch is None:
            # Its next epoch, or the one that its place is in.
            self._running[name] = iter(self.loaders[name])
            batch = next(self._running[name])
        return batch

    def state_dict(self) -> dict[str, Any]:
        """The place, in plain types."""
        parts = {
            name: {"n_batches": len(loader), "n_bad": loader.n_bad, "bad": list(loader.bad)}
            for name, loader in self.loaders.items()
        }
        steps = dict(self.turns.steps)
        return {"seed": self.turns.seed, "epoch": self.epoch, "offset": self.offset, "steps": steps, "parts": parts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a place. Raises InputError if it belongs to other data, other batches, shares or another seed."""
        now = self.state_dict()
        before = {name: part["n_batches"] for name, part in state["parts"].items()}
        batches = {name: len(loader) for name, loader in self.loaders.items()}
        for what, one, other in (
            ("seed", state["seed"], now["seed"]),
            ("steps of each task", state["steps"], now["steps"]),
            ("batches of each task", before, batches),
        ):
            if one != other:
                raise InputError(
                    f"cannot go on inside an epoch: the checkpoint was made with {what} {one}, this run has {other}; "
                    "use the same data, batch sizes, sampling, seed and number of processes"
                )
        self.epoch, self.offset, self._begun = state["epoch"], state["offset"], False
        for name, part in state["parts"].items():
            self.loaders[name].n_bad, self.loaders[name].bad = part["n_bad"], list(part["bad"])

    def close(self) -> None:
        """End the workers."""
        self._running.clear()
        for loader in self.loaders.values():
            loader.close()


class Mixed(Checked, LightningDataModule):
    """The records of the tasks of a `Mixture`, by the tasks' names.

    Each part is what `Records` takes: `parts: {digits: {train: Digits, validation: 0.1, batch_size: 64}, ...}`.

    Args:
        parts: Records of each task, and how large its batches are.
        n_batches: Batches of an epoch of the mixture; as many as the parts' own epochs have in sum when left out.
        seed: Decides the order of samples and their augmentation, and whose turn it is.

    Raises InputError, here or in `setup`, as `Records` does.
    """

    def __init__(self, parts: dict[str, Part], n_batches: int | None = None, seed: int = 0) -> None:
        super().__init__()
        if not parts:
            raise InputError("data.parts must name at least one task, got none")
        if n_batches is not None and n_batches < 1:
            raise InputError(f"data.n_batches must be at least 1, got {n_batches}")
        self.parts: dict[str, Records] = dict(parts)
        for name, part in self.parts.items():
            if part.seed not in (0, seed):
                raise InputError(
                    f"data.parts.{name}.seed: the mixture has one seed for all, seed_everything; give that"
                )
            part.seed = seed
        self.n_batches, self.seed = n_batches, seed
        self.sources: dict[str, dict[str, Source]] = {}
        """By train, validation and test, those of the tasks that have some."""

    def config(self) -> dict[str, Any]:
        """The arguments, to compare another run's with."""
        parts = {name: part.config() for name, part in self.parts.items()}
        return {"parts": parts, "n_batches": self.n_batches, "seed": self.seed}

    def is_free(self, path: str) -> bool:
        """Whether the argument of a dotted path may change when a run goes on."""
        what, _, rest = path.partition(".")
        name, _, argument = rest.partition(".")
        return what == "parts" and name in self.parts and self.parts[name].is_free(argument)

    def holds(self, kind: str) -> bool:
        """Whether a task has records of a kind: train, validation or test."""
        return any(part.holds(kind) for part in self.parts.values())

    def attach(self, task: Task) -> None:
        """Say whose records the parts are. Raises InputError where a task has no part, or a part no task."""
        if not task.members:
            raise InputError(
                f"data: Mixed is for a mixture, and {type(task).__name__} is one task; leave class_path out"
            )
        for name in sorted(self.parts.keys() - task.members.keys()):
            raise InputError(f"data.parts: there is no task {name!r}{nearest(name, task.members)}; give it under tasks")
        for name in sorted(task.members.keys() - self.parts.keys()):
            raise InputError(f"data.parts: the task {name!r} has no records{nearest(name, self.parts)}; give it a part")
        # Metrics, and what is drawn, come in the sequence of the tasks.
        self.parts = {name: self.parts[name] for name in task.members}
        for name, part in self.parts.items():
            part.attach(task.members[name])

    def setup(self, stage: str | None = None) -> None:
        """Fill `sources` with what the stage needs."""
        if self.trainer is not None:
            self.attach(self.trainer.lightning_module)
        wanted = {"validate": "validation", "test": "test"}.get(stage or "fit", "train")
        for name, part in self.parts.items():
            part.trainer = self.trainer
            with named(f"data.parts.{name}"):
                part.find_parts()
            if not part.holds(wanted):
                continue
            with named(f"data.parts.{name}"):
                part.setup(stage)
            for kind, source in part.sources.items():
                self.sources.setdefault(kind, {})[name] = source
        if wanted not in self.sources:
            raise InputError(f"there are no {wanted} records: give one of data.parts a {wanted}")
        if stage == "fit" and "validation" not in self.sources and self.trainer is not None:
            # Lightning warns of an empty list of loaders, and has no other way to say that there is none.
            self.trainer.limit_val_batches = 0

    def train_dataloader(self) -> MixedLoader:
        trainer = self.trainer
        task = trainer.lightning_module
        loaders = {}
        for name, part in self.parts.items():
            with named(f"data.parts.{name}"):
                loaders[name] = part.train_dataloader()
            # Its epochs are not the trainer's.
            loaders[name].ask_epoch = None
        turns = plan_turns(
            {name: len(loader) for name, loader in loaders.items()},
            sampling=task.sampling,
            temperature=task.temperature,
            n_batches=self.n_batches,
            accumulate=trainer.accumulate_grad_batches,
            seed=self.seed,
        )
        # Where the same few batches are to be learned by heart they come in every epoch.
        epochs = trainer.fit_loop.epoch_progress.current
        return MixedLoader(loaders, turns, lambda: 0 if trainer.overfit_batches else epochs.processed)

    def val_dataloader(self) -> list[Loader]:
        return self._evaluating("validation", "val_dataloader")

    def test_dataloader(self) -> list[Loader]:
        return self._evaluating("test", "test_dataloader")

    def _evaluating(self, kind: str, method: str) -> list[Loader]:
        """The loaders of all passes of all tasks that have such records, one after another."""
        loaders: list[Loader] = []
        for name in self.sources[kind]:
            with named(f"data.parts.{name}"):
                own = getattr(self.parts[name], method)()
            loaders += own if isinstance(own, list) else [own]
        return loaders

    def teardown(self, stage: str | None = None) -> None:
        """End the workers."""
        for part in self.parts.values():
            part.teardown(stage)

    def on_exception(self, exception: BaseException) -> None:
        self.teardown()


@contextmanager
def named(place: str) -> Iterator[None]:
    """What is wrong inside, with the part of the config that it is wrong in."""
    try:
        yield
    except MachineError:
        raise
    except InputError as error:
        message = str(error).removeprefix("data.") if place.startswith("data.") else str(error)
        raise type(error)(f"{place}: {message}") from None
