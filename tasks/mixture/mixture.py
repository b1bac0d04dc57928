"""Mixtures: several tasks, each with its own data, targets and metrics, that share one transformer in one run."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from anyformer.data.source import Source
from anyformer.errors import InputError, nearest
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.optim.optimizer import OptimizerConfig
from anyformer.parsing.plain import plain
from anyformer.tasks.base.evaluation import Evaluations, of_task
from anyformer.tasks.base.examples import Generated
from anyformer.tasks.base.resume import is_below
from anyformer.tasks.base.task import NOT_SAVED, Task
from anyformer.tasks.mixture.data import Mixed, Turn, named
from anyformer.tasks.mixture.shared_fields import (
    OF_ALL,
    check_tasks,
    check_tokenizers,
    learn_shared,
    named_fields,
)
from anyformer.tasks.mixture.shared_weights import check_heads, tie
from anyformer.tokens import expand
from anyformer.weights.tensors import Report, take


class Mixture(Task):
    """Several tasks that share one transformer; each step of the optimiser learns from a batch of one of them.

    A field of one name in several tasks is one field, with one tokenizer, one lift and one type vector; tables of
    positions belong to fields. Class tokens and heads are a task's own, and so are the fields that a task finds itself
    (`Decide`). What is shared stands under `model` among the parameters, by the name that it has in a task alone.

    `tasks` has every task by its name, as it would be alone, with the weights that it shares.
    """

    finds_fields: ClassVar[bool] = True

    def __init__(
        self,
        tasks: dict[str, Task],
        transformer: TransformerConfig = TransformerConfig(),
        encoder: TransformerConfig | None = None,
        embedding: EmbeddingConfig = EmbeddingConfig(),
        optimizer: OptimizerConfig = OptimizerConfig(),
        weights: dict[str, float] | None = None,
        sampling: dict[str, float] | None = None,
        temperature: float = 1.0,
        share_heads: dict[str, str] | None = None,
        choose: str | None = None,
        init_from: str | None = None,
        freeze: list[str] | None = None,
    ) -> None:
        """
        Args:
            tasks: by name, each as it is written in a config of its own, without what is given here for all of them.
            transformer: sizes of the transformer that all share; rotary axes that only some tasks have are fine.
            encoder: sizes of the second transformer, where tasks have an encoder before a decoder, if not those of the
                first; such tasks share it too.
            embedding: how content, type and position become a token, in all tasks.
            optimizer: the optimiser and its learning rate over the run.
            weights: of the tasks' losses; 1 where a task is not named. The logged `train/TASK/loss` is without it.
            sampling: shares of the steps, by task; tasks that are not named divide the rest by their sizes.
            temperature: how sizes, in batches of a task's own epoch, become shares: in proportion to
                size^(1 / temperature). 1 goes through all data at the same rate; the higher, the more even.
            share_heads: by task the one whose head it uses, as in {spoken_digits: digits}; both predict the same.
            choose: the task whose metric chooses the best model; when left out the mean of all tasks' metrics, each
                turned so that more is better and 1 is perfect.
            init_from: the weights that training starts from: a run folder of a mixture, or of one of the tasks.
            freeze: patterns of names of parameters that are not trained, as `model.transformer.blocks.[0-3].*`.
        """
        super().__init__({}, transformer, embedding, optimizer, init_from, freeze)
        check_tasks(tasks)
        self.encoder, self.weights, self.sampling, self.temperature = encoder, weights, sampling, temperature
        self.share_heads, self.choose = share_heads, choose
        self.tasks = nn.ModuleDict(tasks)
        self._turn = ""
        self._losses: dict[str, Tensor] = {}
        self._check()
        check_tokenizers(tasks)
        self._hand_out()

    def _check(self) -> None:
        """Raise InputError for names that are no task's, and numbers that contradict each other."""
        tasks, weights, sampling = self.tasks, self.weights or {}, self.sampling or {}
        heads = self.share_heads or {}
        for option, names in (
            ("weights", weights),
            ("sampling", sampling),
            ("share_heads", {*heads, *heads.values()}),
            ("choose", [] if self.choose is None else [self.choose]),
        ):
            for name in names:
                if name not in tasks:
                    raise InputError(
                        f"{option}: there is no task {name!r}; there are {', '.join(tasks)}{nearest(name, tasks)}"
                    )
        for option, numbers in (("weights", weights), ("sampling", sampling)):
            for name, number in numbers.items():
                if not 0 < number < math.inf:
                    raise InputError(f"{option}.{name} must be a number above 0, got {number}")
        if sampling and len(sampling) < len(tasks) and sum(sampling.values()) >= 1:
            raise InputError(f"sampling: {', '.join(sampling)} have {sum(sampling.values()):g} of 1, none is left")
        if not 0 < self.temperature < math.inf:
            raise InputError(f"temperature must be a number above 0, got {self.temperature}")
        for name, owner in heads.items():
            if owner in heads:
                raise InputError(f"share_heads: {owner} uses the head of {heads[owner]} itself; name that one")
            if type(tasks[name]) is not type(tasks[owner]):
                kinds = " and ".join(type(tasks[each]).__name__ for each in (name, owner))
                raise InputError(f"share_heads: {name} cannot use the head of {owner}, as they are {kinds}")
        if self.encoder is not None and not any(task.has_encoder for task in tasks.values()):
            raise InputError("encoder: no task has an encoder before a decoder; leave it out")

    def _hand_out(self) -> None:
        """Give the tasks what they have in common; of the embedding what goes with their fields."""
        own = {}
        for name, task in self.tasks.items():
            own[name] = [tokenizer.axes for tokenizer in expand(task.read_fields).values()]
        every = tuple(dict.fromkeys(axis for fields in own.values() for axes in fields for axis in axes))
        for name, task in self.tasks.items():
            task.transformer, task.optimizer = self.transformer, self.optimizer
            if task.has_encoder:
                task.encoder = self.encoder
            placed = self.embedding.positions
            if placed is not None and own[name]:
                fields = own[name] + [tokenizer.axes for tokenizer in task.own_tokens.values()]
                placed = [each for each in placed if any(set(each.axes) <= set(axes) for axes in fields)]
            task.embedding = replace(self.embedding, axes=every, positions=placed)

    # What it says of itself.

    @property
    def metric(self) -> tuple[str, str]:
        if self.choose is None:
            return "val/score", "max"
        name, best = self.tasks[self.choose].metric
        return of_task(name, self.choose), best

    @property
    def inference_args(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(
            f"tasks.{name}.init_args.{each}" for name, task in self.tasks.items() for each in task.inference_args
        )

    def use_as(self, other: Mixture) -> None:  # type: ignore[override]
        for name, task in self.tasks.items():
            task.use_as(other.tasks[name])

    @property
    def members(self) -> Mapping[str, Task]:
        return self.tasks  # type: ignore[return-value]

    @property
    def inputs(self) -> list[str]:
        return []

    def closing(self) -> str | None:
        said = {name: task.closing() for name, task in self.tasks.items()}
        return "\n\n".join(f"{name}: {text}" for name, text in said.items() if text is not None) or None

    def by_class(self) -> dict[str, list[dict[str, Any]]]:
        return {
            f"{name}/{target}": rows for name, task in self.tasks.items() for target, rows in task.by_class().items()
        }

    def generate_examples(self) -> list[Generated]:
        return [
            each._replace(name=f"{name}/{each.name}" if each.name else name)
            for name, task in self.tasks.items()
            for each in task.generate_examples()
        ]

    def draw(self, folder: Path) -> None:
        """Draw the pictures of each task into a folder of its name."""
        for name, task in self.tasks.items():
            if type(task).draw is not Task.draw:
                (folder / name).mkdir(exist_ok=True)
                task.draw(folder / name)

    def config(self) -> dict[str, Any]:
        names = [name for name in inspect.signature(type(self)).parameters if name not in (*NOT_SAVED, "tasks")]
        tasks = {name: task.config() for name, task in self.tasks.items()}
        for task in tasks.values():
            for name in OF_ALL:
                task["init_args"].pop(name, None)
        found = super().config()
        return found | {"init_args": {"tasks": tasks} | {name: plain(getattr(self, name)) for name in names}}

    # Made and kept

    def setup(self, stage: str) -> None:
        if not isinstance(self.trainer.datamodule, Mixed):
            raise InputError("data: a mixture has records for each of its tasks; give class_path: Mixed with parts")
        for task in self.tasks.values():
            task.trainer = self.trainer
        super().setup(stage)

    def fit_tokenizers(self, source: Mapping[str, Source]) -> None:  # type: ignore[override]
        """source: the training records of each task."""
        learn_shared(self.tasks, source)
        for name, task in self.tasks.items():
            with named(f"tasks.{name}"):
                task.fit_tokenizers(source[name])
        check_tokenizers(self.tasks)

    def build(self) -> None:
        self._hand_out()
        for name, task in self.tasks.items():
            if task.model is None:
                with named(f"tasks.{name}"):
                    task.build()
        check_heads(self.tasks, self.share_heads or {})
        tasks = self.tasks
        del self.tasks
        self.model = tie(tasks, self.share_heads or {})
        # Behind it, so that what is shared has its name there.
        self.tasks = tasks

    def inherit_from(self, other: Task) -> None:
        every = (other.members or {"": other}).values()
        fields = {name: tokenizer for task in every for name, tokenizer in named_fields(task).items()}
        for name, task in self.tasks.items():
            if not task.finds_fields:
                task.inherit(fields)
            # As with weights: from the task of its name, or from a single task of its kind.
            elif type(before := other.members.get(name) if other.members else other) is type(task):
                task.inherit(before.learnt)

    def take_over(self, other: Task, source: str) -> Report:
        """Take the weights of each task of a mixture into that of its name; of a single task into those of its kind,
        or, where there is none, its transformer alone."""
        pairs = [(name, other.members[name]) for name in self.tasks if name in other.members]
        if not other.members:
            pairs = [(name, other) for name, task in self.tasks.items() if type(task) is type(other)]
        reports = {name: self.tasks[name].take_over(theirs, source) for name, theirs in pairs}
        if not pairs:
            inner = next(iter(other.members.values()), other)
            stacks = {n: t for n, t in inner.state_dict().items() if n.startswith("model.transformer.")}
            name, task = next(iter(self.tasks.items()))
            reports = {name: take(task, stacks, source)}
        parts = {
            what: tuple(f"tasks.{name}.{each}" for name, report in reports.items() for each in getattr(report, what))
            for what in ("taken", "resized", "fresh", "unused", "partial")
        }
        notes = tuple(f"tasks.{name}: {note}" for name, report in reports.items() for note in report.notes)
        return Report(source, **parts, notes=notes)

    @property
    def packages(self) -> list[str]:
        return sorted({package for task in self.tasks.values() for package in task.packages} | {*super().packages})

    def best_weights(self) -> dict[str, Tensor]:
        """What is shared once, under its first name."""
        return {name: value for name, value in super().best_weights().items() if name not in self._repeated}

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        repeated = {name: weights[first] for name, first in self._repeated.items() if first in weights}
        super().load_weights({**weights, **repeated})

    @property
    def _repeated(self) -> dict[str, str]:
        """Further names of parameters that have another name before."""
        first = {parameter: name for name, parameter in self.named_parameters()}
        every = self.named_parameters(remove_duplicate=False)
        return {name: first[parameter] for name, parameter in every if first[parameter] != name}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["losses"] = dict(self._losses)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        before = checkpoint["config"]["init_args"].get("tasks")
        if before is not None and before.keys() != self.tasks.keys():
            raise InputError(
                f"the checkpoint is of the tasks {', '.join(before)}, this run is of {', '.join(self.tasks)}; resume "
                "with the config of its run, or train with another --run_dir"
            )
        super().on_load_checkpoint(checkpoint)
        for name, task in self.tasks.items():
            with named(f"tasks.{name}"):
                task.on_load_checkpoint({"config": before[name]})
        self._losses = dict(checkpoint["losses"])

    def is_free(self, path: str) -> bool:
        # Its tasks say of their own.
        return is_below(path, "tasks") or super().is_free(path)

    # Steps

    @property
    def models(self) -> list[Anyformer]:
        return [task.model for task in self.tasks.values()]

    def loss(self, batch: Turn) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        loss, n_targets = self.tasks[batch.task].loss(batch.batch)
        return (self.weights or {}).get(batch.task, 1.0) * loss, n_targets

    def training_step(self, batch: Turn, batch_index: int) -> Tensor:  # type: ignore[override]
        loss, mean = self._counted(batch, batch.batch.samples)
        self._turn = batch.task
        # The last of each task, so that every row has them all, and has them too where a run was taken up again.
        self._losses[batch.task] = mean / (self.weights or {}).get(batch.task, 1.0)
        for name, value in self._losses.items():
            self.log(f"train/{name}/loss", value, prog_bar=True, on_step=True, on_epoch=False)
        if self.trainer.world_size > 1:
            # Processes wait for the gradient of every parameter; those of the other tasks' have none again afterwards.
            loss = loss + sum(0 * parameter.sum() for parameter in self._others())
        return loss

    def _others(self) -> list[nn.Parameter]:
        """The parameters that the task whose turn it is has no part in."""
        own = set(self.tasks[self._turn].parameters())
        return [parameter for parameter in self.parameters() if parameter.requires_grad and parameter not in own]

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.trainer.world_size > 1:
            for parameter in self._others():
                parameter.grad = None
        super().on_before_optimizer_step(optimizer)

    # Metrics

    def _evaluating(self, stage: str) -> Evaluations:
        kind = "test" if stage == "test" else "validation"
        return Evaluations({name: self.tasks[name] for name in self.trainer.datamodule.sources[kind]}, stage)
