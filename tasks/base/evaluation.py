"""The passes of an evaluation one after another, and the metrics of each: of all samples, by group, and by task."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from anyformer.data.chopper import Chopper
from anyformer.errors import InputError
from anyformer.tasks.base.examples import Examples

Groups = dict[tuple[str, str], tuple[float, int]]
"""By group and name of the score its sum, and of how many samples."""


class Evaluated(Protocol):
    """What an evaluation asks of a task; see `Task`, which has all of it."""

    trainer: Any

    @property
    def metric(self) -> tuple[str, str]: ...

    def score(self, value: float) -> float: ...

    def passes(self) -> list[tuple[str, Chopper]]: ...

    def begin_evaluation(self) -> None: ...

    def evaluate(self, batch: Examples) -> Mapping[str, Tensor] | None: ...

    def report(self, stage: str) -> Mapping[str, Tensor | float]: ...


class Evaluation:
    """Takes in the batches of an evaluation, pass after pass; made when it begins."""

    def __init__(self, task: Evaluated, stage: str, n_loaders: int) -> None:
        """
        stage: "val" or "test", which the names of the metrics begin with.
        n_loaders: how many the data has for the task.
        """
        self.task, self.stage = task, stage
        self.passes = task.passes()
        self.metrics: dict[str, Tensor | float] = {}
        if n_loaders != len(self.passes):
            raise InputError(
                f"fields.without needs a loader for each of its {len(self.passes)} passes, as Records gives them, "
                f"got {n_loaders} from the data"
            )
        self._begin(0)

    def _begin(self, number: int) -> None:
        self.number, self.n_batches = number, 0
        self.groups: Groups = defaultdict(lambda: (0.0, 0))
        self.task.begin_evaluation()

    def take(self, batch: Examples | None, number: int) -> None:
        """Take in a batch of the pass of this number; None is one of which nothing is left in this process."""
        self._close(number)
        if batch is None:
            return
        self.n_batches += 1
        scores = self.task.evaluate(batch)
        if scores is None or not batch.groups:
            return
        for name, score in scores.items():
            for group, value in zip(batch.groups, score.tolist(), strict=True):
                # What has no score (a target that the record lacks) is not a number.
                if group and not math.isnan(value):
                    total, n = self.groups[group, name]
                    self.groups[group, name] = total + value, n + 1

    def end(self) -> dict[str, Tensor | float]:
        """The metrics of all passes, by their full names: `val/without_image/kind_sum/accuracy`."""
        self._close(len(self.passes))
        return self.metrics

    def _close(self, number: int) -> None:
        """Report the passes before this one. All processes come here for all of them, in the same sequence."""
        while self.number < number:
            n_batches, groups = self._of_all_ranks()
            prefix, chopper = self.passes[self.number]
            is_last = self.number == len(self.passes) - 1
            if n_batches or is_last:
                found = dict(self.task.report(self.stage))
                found |= {f"{chopper.by}_{g}/{name}": total / n for (g, name), (total, n) in sorted(groups.items())}
                self.metrics |= {f"{self.stage}/{prefix}{name}": value for name, value in found.items()}
            if is_last:
                self.number += 1
            else:
                self._begin(self.number + 1)

    def _of_all_ranks(self) -> tuple[int, Groups]:
        """The number of batches and the sums of the groups, of all processes together."""
        n_batches, groups = self.n_batches, dict(self.groups)
        world = self.task.trainer.world_size
        if world > 1:
            ranks = [None] * world
            torch.distributed.all_gather_object(ranks, (n_batches, groups))
            n_batches, groups = sum(n for n, _ in ranks), {}
            for _, own in ranks:
                for key, (total, n) in own.items():
                    before = groups.get(key, (0.0, 0))
                    groups[key] = before[0] + total, before[1] + n
        return n_batches, groups


class Evaluations:
    """The evaluations of several tasks, whose loaders follow one another."""

    def __init__(self, tasks: Mapping[str, Evaluated], stage: str) -> None:
        """stage: "val" or "test", which the names of the metrics begin with."""
        self.tasks, self.stage = tasks, stage
        self.parts = {name: Evaluation(task, stage, len(task.passes())) for name, task in tasks.items()}
        self.places = [(part, number) for part in self.parts.values() for number in range(len(part.passes))]

    def take(self, batch: Examples | None, number: int) -> None:
        """Take in a batch of the loader of this number."""
        part, own = self.places[number]
        part.take(batch, own)

    def end(self) -> dict[str, Tensor | float]:
        """The metrics of all tasks, `val/digits/accuracy`, and `val/score`, the mean of their metrics as `Task.score`
        has them."""
        metrics, scores = {}, []
        for name, part in self.parts.items():
            found, task = part.end(), self.tasks[name]
            metrics |= {of_task(figure, name): value for figure, value in found.items()}
            metric = task.metric[0].replace("val/", f"{self.stage}/", 1)
            if metric in found:
                scores.append(task.score(float(found[metric])))
        return metrics | ({f"{self.stage}/score": sum(scores) / len(scores)} if scores else {})


def of_task(metric: str, task: str) -> str:
    """The name of a metric of one of several tasks.

    >>> of_task("val/accuracy", "digits")
    'val/digits/accuracy'
    """
    stage, _, name = metric.partition("/")
    return f"{stage}/{task}/{name}"
