"""How probable a language model finds texts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from anyformer.errors import InputError
from anyformer.generation.config import GenerationConfig
from anyformer.model.anyformer import Anyformer
from anyformer.model.heads import Head
from anyformer.tasks.language.batch import TextChopper
from anyformer.tokenizers.text.text import Text
from anyformer.tokens import Sample, Tokenizer, TokenSet

LOGITS = 2**23
"""Logits that are held at once, about."""


@dataclass(frozen=True)
class TextConfig(GenerationConfig):
    """How a language model goes on with texts, or that it says how probable they are."""

    score: bool = False
    """Instead of going on with a text, say how probable it is: its tokens, the loss in nats a token, the perplexity."""


class Scorer(Protocol):
    """What is needed of the task."""

    tokenizers: Mapping[str, Tokenizer]
    field: str
    context: int
    model: Anyformer
    head: Head

    @property
    def text(self) -> Text: ...

    @property
    def device(self) -> torch.device: ...


@torch.inference_mode()
def score_texts(task: Scorer, texts: Sequence[str]) -> list[dict[str, Any]]:
    """For each text itself, its `tokens`, the mean `loss` of these in nats, and `perplexity`, its exponential.

    The first token is predicted from the end of a text, as in training. A text longer than the context is read in
    windows that lie end to end, each token seeing those before it in its window. Raises InputError for an empty text.
    """
    chopper = TextChopper(task.tokenizers, task.field)
    sums, counts = torch.zeros(len(texts), dtype=torch.float64), torch.zeros(len(texts), dtype=torch.int64)
    at_once = max(LOGITS // task.text.n_ids, task.context)
    for owners, items in _batches(_windows(task, texts), at_once):
        batch = chopper.collate(items).to(task.device)
        hidden = task.model(batch.tokens).flatten(0, 1)[batch.read]
        losses = F.cross_entropy(task.head(hidden).float(), batch.target, reduction="none").double().cpu()
        lengths = torch.tensor([len(item[1]) for item in items])
        sums.index_add_(0, torch.tensor(owners).repeat_interleave(lengths), losses)
        counts.index_add_(0, torch.tensor(owners), lengths)
    means = (sums / counts).tolist()
    return [
        {task.field: text, "tokens": n, "loss": loss, "perplexity": math.exp(min(loss, 700.0))}
        for text, n, loss in zip(texts, counts.tolist(), means, strict=True)
    ]


Item = tuple[Sample, Tensor, Tensor, float]


def _windows(task: Scorer, texts: Sequence[str]) -> Iterator[tuple[int, Item]]:
    """The windows of every text, as a `TextChopper` collates them, with the text's number."""
    for number, ids in enumerate(task.text.encode_batch(list(texts))):
        if not len(ids):
            raise InputError(f"field {task.field!r}: the text is empty, and has no probability")
        whole = torch.cat([torch.tensor([task.text.eos_id]), torch.from_numpy(ids.astype("int64"))])
        for start in range(0, len(ids), task.context):
            part = whole[start : start + task.context + 1]
            place = torch.arange(len(part) - 1)
            yield number, ({task.field: TokenSet(part[:-1], place[:, None], place)}, place, part[1:], 0.0)


def _batches(windows: Iterator[tuple[int, Item]], most: int) -> Iterator[tuple[list[int], list[Item]]]:
    """Windows of at most so many tokens together, padding included."""
    owners: list[int] = []
    items: list[Item] = []
    longest = 0
    for owner, item in windows:
        longest = max(longest, len(item[1]))
        if items and longest * (len(items) + 1) > most:
            yield owners, items
            owners, items, longest = [], [], len(item[1])
        owners.append(owner)
        items.append(item)
    if items:
        yield owners, items
