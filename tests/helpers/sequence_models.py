"""Encoder-decoders of ours beside those of transformers: the same batch through both, and one option set wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from anyformer.batch import Batch
from anyformer.packing import collate
from anyformer.tasks.sequence.sequence import SequenceToSequence
from anyformer.tasks.sequence.target import written
from anyformer.tokens import TokenSet
from tests.helpers.transformers_folders import padded
from tests.helpers.witnesses import error, redraw


def source_batch(task: SequenceToSequence, sources: Sequence[TokenSet]) -> Batch:
    (name,) = task.inputs
    return collate([{name: source} for source in sources], task.model.tokenizers)


def logits(task: SequenceToSequence, sources: Sequence[TokenSet], targets: Sequence[Sequence[int]]) -> Tensor:
    """Of all ids at every place of the targets, the first of which is the start: (places, v)."""
    batch = collate([{task.target: written(ids, [])} for ids in targets], task.model.tokenizers)
    return task.head(task.model(batch, source_batch(task, sources))[batch.layout.segment > 0])


def their_logits(theirs: nn.Module, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> Tensor:
    """The same of a model that reads texts, in padded batches."""
    written_ids = padded(targets)
    decoder = {f"decoder_{name}": value for name, value in written_ids.items()}
    return theirs(**padded(sources), **decoder).logits[written_ids["attention_mask"].bool()]


def otherwise(task: SequenceToSequence, **wrong: dict[str, Any]) -> SequenceToSequence:
    """A copy of a task with options set otherwise, by the field or the part of the task, and the same weights."""
    parts = {name: getattr(task, name) for name in ("transformer", "encoder", "embedding", "output")}
    other = SequenceToSequence(
        {name: replace(tokenizer, **wrong.get(name, {})) for name, tokenizer in task.tokenizers.items()},
        target=task.target,
        shared_vocabulary=task.shared_vocabulary,
        start=task.start,
        **{name: replace(part, **wrong.get(name, {})) for name, part in parts.items()},
    )
    other.build()
    # What only the other has must not be so small that it would pass unseen.
    redraw(other)
    own = task.state_dict()
    with torch.no_grad():
        for name, tensor in other.state_dict().items():
            if name in own and own[name].shape == tensor.shape:
                tensor.copy_(own[name])
    return other.eval()


def difference(
    task: SequenceToSequence, sources: Sequence[TokenSet], targets: Sequence[Sequence[int]], **wrong: dict[str, Any]
) -> float:
    """How far the logits move when options are set wrong, in standard deviations."""
    with torch.no_grad():
        return error(logits(otherwise(task, **wrong), sources, targets), logits(task, sources, targets))
