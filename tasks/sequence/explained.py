"""What is explained of a text that is written: the probability of the whole, of each of its tokens, or why it parts
from another text where it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anyformer.batch import Batch
from anyformer.errors import InputError
from anyformer.explaining.asked import Asked
from anyformer.tasks.explain.explainer import Question, Wanted
from anyformer.tasks.sequence.batch import Pair
from anyformer.tasks.sequence.target import read_target
from anyformer.tokens import Sample

END = "(end)"


class OfText(Asked):
    """The log-probability of a text; of each token its log-odds. With another text the logit of the first token in
    which they differ against that of the other (Yin & Neubig 2022)."""

    def __init__(self, task: Any, ids: Sequence[int], other: Sequence[int] | None = None) -> None:
        """task: a `SequenceToSequence` with a decoder. ids, other: of the texts, without start and end."""
        self.ids = np.asarray(ids, dtype=np.int64)
        self.task, self.chopper = task, task.chopper(training=False)
        self.targets = [*self.ids.tolist(), task.text.eos_id]
        self.pieces = [*_pieces(task, self.ids), END]
        self.other: tuple[int, int] | None = None
        """Where another text parts from this one, and the id that stands there."""
        what = f"the log-probability of {task.text.decode(self.ids)!r}"
        if other is not None:
            others = [*map(int, other), task.text.eos_id]
            place = next(i for i, (a, b) in enumerate(zip(self.targets, others, strict=False)) if a != b)
            self.other = place, others[place]
            instead = END if others[place] == task.text.eos_id else _pieces(task, others[place : place + 1])[0]
            what = f"the log-odds of {self.pieces[place]!r} against {instead!r} as token {place + 1}"
        super().__init__(task.model, what, "nats")
        self.written = task.target

    def _to_double(self) -> None:
        self.task.double()

    def lay(self, samples: Sequence[Sample]) -> tuple[Batch, Batch | None]:
        pairs = [Pair({name: own for name, own in each.items() if name != self.written}, self.ids) for each in samples]
        return self.task.model_inputs(self.chopper.collate(pairs))

    def score(self, hidden: Tensor, batch: Batch) -> Tensor:
        logits = self._logits(hidden, batch)
        if self.other is not None:
            return self._apart(logits)
        p = logits.log_softmax(-1)
        return p[:, torch.arange(len(self.targets)), self.targets].sum(1)

    def _apart(self, logits: Tensor) -> Tensor:
        place, instead = self.other
        return logits[:, place, self.targets[place]] - logits[:, place, instead]

    def _logits(self, hidden: Tensor, batch: Batch) -> Tensor:
        """(samples, targets, v): of each token that is written, and of the end."""
        place = batch.fields[self.written].index.view(batch.n_samples, -1)[:, len(self.chopper.start) - 1 :]
        return self.task.head(hidden.flatten(0, 1)[place])

    def parts(self, hidden: Tensor, batch: Batch) -> list[tuple[str, Tensor]]:
        logits = self._logits(hidden, batch)
        if self.other is not None:
            return [(self.pieces[self.other[0]], self._apart(logits)[0])]
        found = []
        for place, (name, target) in enumerate(zip(self.pieces, self.targets, strict=True)):
            own = logits[0, place]
            is_other = torch.ones(len(own), dtype=torch.bool, device=own.device)
            is_other[target] = False
            found.append((name, own[target] - own[is_other].logsumexp(0)))
        return found


def _pieces(task: Any, ids: Sequence[int]) -> list[str]:
    return [task.text.decode([int(i)]) for i in ids]


def text_question(task: Any, record: Mapping[str, Any], wanted: Wanted) -> Question:
    """As `Explainer.question`, of a `SequenceToSequence`."""
    target, answer, rather_than, truth = wanted
    if task.architecture == "encoder":
        raise InputError("explain needs a decoder that writes the text; an encoder with CTC alone has none")
    if target not in (None, task.target):
        raise InputError(f"target: there is no {target!r}; the model writes {task.target}")
    sample = task.chopper(training=False).conditions(record, empty_too=True)
    if truth:
        ids = read_target(record, task.target, task.text, len(task.start_ids), task.allow_empty)
    elif answer is None:
        pair = task.chopper(training=False).collate([Pair(sample)]).to(task.device)
        with torch.inference_mode():
            (ids,) = task.write(pair, task.decoding)
    else:
        ids = _ids(task, answer, "answer")
    other = None if rather_than is None else _ids(task, rather_than, "rather_than")
    if other is not None and list(other) == list(ids):
        raise InputError(f"rather_than: {rather_than!r} is the answer that is explained; give another")
    asked = OfText(task, ids, other)
    return Question(asked, sample, task.text.decode(ids).strip(), 1 if other is not None else len(asked.targets))


def _ids(task: Any, text: str, option: str) -> np.ndarray:
    try:
        return read_target({task.target: text}, task.target, task.text, len(task.start_ids), allow_empty=True)
    except InputError as error:
        raise InputError(f"{option}: {error}") from None
