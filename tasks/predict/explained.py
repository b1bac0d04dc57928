"""What is explained of a prediction: a number of the head of one target, as it follows from a sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from anyformer.batch import Batch
from anyformer.errors import InputError, suggest
from anyformer.explaining.asked import Asked
from anyformer.packing import collate
from anyformer.tasks.explain.explainer import Question, Wanted, chosen_answer
from anyformer.tokens import Sample


class OfPrediction(Asked):
    """How much a prediction is for an answer, or how near it comes to a true value."""

    def __init__(self, task: Any, name: str, answer: str, rather_than: str | None = None, true: Tensor | None = None):
        """task: a `Predict`. true: as the target's `value` gives it; the number is then the negative loss."""
        head = task.head(name)
        what = f"the negative loss of {name}" if true is not None else head.explained_as(answer, rather_than)
        super().__init__(task.model, what, "" if true is not None else head.explained_in)
        self.task, self.name, self.answer, self.rather_than, self.true = task, name, answer, rather_than, true
        self.own = frozenset(task.own_tokens)
        self.needed = frozenset({task.first_field} - {None})
        self.fields = task.model.tokenizers

    def _to_double(self) -> None:
        self.task.double()

    def lay(self, samples: Sequence[Sample]) -> tuple[Batch, None]:
        return collate(samples, self.fields), None

    def score(self, hidden: Tensor, batch: Batch) -> Tensor:
        outputs = self.outputs(hidden, batch)
        head = self.task.head(self.name)
        if self.true is None:
            return head.explained(outputs, self.answer, self.rather_than)
        true = self.true[None].to(outputs.device)
        return -torch.stack([head.loss(own[None], true)[0] for own in outputs])

    def outputs(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Of the head, (samples, ...)."""
        head = self.task.head(self.name)
        return head.calibrated(head(self.task.pool(hidden, batch)))


def prediction_question(task: Any, record: Mapping[str, Any], wanted: Wanted) -> Question:
    """As `Explainer.question`, of a `Predict`."""
    target, answer, rather_than, truth = wanted
    known = [name for name in task.targets if task.head(name).choices]
    if target is not None and target not in task.targets:
        raise InputError(f"target: there is no {target!r}{suggest(target, task.targets)}")
    if target is None and len(known) > 1:
        raise InputError(f"target: the model has {', '.join(known)}; say which is to be explained")
    name = target or next(iter(known), next(iter(task.targets)))
    head = task.head(name)
    if not head.choices:
        kind = type(task.targets[name]).__name__
        raise InputError(f"target: {name!r} is a {kind}, which explain does not know; name another")
    answer = chosen_answer(answer, head.choices, "answer")
    rather_than = chosen_answer(rather_than, head.choices, "rather_than")
    chopper = task.chopper(training=False)
    sample = chopper.conditions(record) | chopper.own_tokens
    asked = OfPrediction(task, name, answer or head.choices[0])
    if answer is None:
        batch, _ = asked.lay([sample])
        batch = batch.to(task.device)
        answer = head.given_answer(asked.outputs(task.model(batch), batch).detach())
    if answer == rather_than:
        raise InputError(f"rather_than: {rather_than!r} is the answer that is explained; give another")
    if not truth:
        return Question(OfPrediction(task, name, answer, rather_than), sample, answer)
    true = task.targets[name].value(name, record)
    if true is None:
        raise InputError(f"field {name!r} must hold the true value, and the record has none")
    return Question(OfPrediction(task, name, answer, true=true), sample, answer)
