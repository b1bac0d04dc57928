"""How probable a language model finds texts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from anyformer.errors import InputError
from anyformer.generation.config import GenerationConfig
from anyformer.model.anyformer import Anyformer
from anyformer.model.heads import Head
from anyformer.tasks.language.batch import TextChopper
from anyformer.tokenizers.text.corpus import Documents
from anyformer.tokenizers.text.text import Text
from anyformer.tokenizers.text.token_stream import encode_blocks
from anyformer.tokens import Sample, Tokenizer, TokenSet

LOGITS = 2**23
"""Logits that are held at once, about."""


@dataclass(frozen=True)
class TextConfig(GenerationConfig):
    """How a language model goes on with texts, or that it says how probable they are."""

    score: bool = False
    """Instead of going on with a text, say how probable it is: its tokens, the loss in nats a token, the perplexity."""


@dataclass(frozen=True)
class Document:
    """A file that is one text of a corpus, and may be larger than memory."""

    corpus: Documents
    number: int

    def blocks(self) -> Iterator[tuple[str, bool]]:
        """Its text, block by block, and whether it ends there."""
        return self.corpus.blocks(self.number, self.number + 1)


def whole_text(given: Any) -> Any:
    """What a record holds as its text, a document read whole."""
    return given.corpus[given.number]["text"] if isinstance(given, Document) else given


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


def score_texts(task: Scorer, texts: Sequence[str | Document]) -> list[dict[str, Any]]:
    """For each text itself, its `tokens`, the mean `loss` of these in nats, and `perplexity`, its exponential.

    The first token is predicted from the end of a text, as in training. A text longer than the context is read in
    windows that lie end to end, each token seeing those before it in its window. Of a document a few windows are held
    at once, and its text is not among the results. Raises InputError for an empty text.
    """
    named = [{task.field: text} if isinstance(text, str) else {} for text in texts]
    return [named[i] | score for i, score in score_ids(task, (_encode(task, text) for text in texts))]


def _encode(task: Scorer, text: str | Document) -> Iterator[np.ndarray]:
    is_empty = True
    for ids in encode_blocks([(text, True)] if isinstance(text, str) else text.blocks(), task.text.encode_batch):
        is_empty = is_empty and not len(ids)
        yield ids
    if is_empty:
        raise InputError(f"field {task.field!r}: the text is empty, and has no probability")


@torch.inference_mode()
def score_ids(task: Scorer, texts: Iterable[Iterable[np.ndarray]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The same of texts as ids, any number of arrays (n,) each, of which a few windows are held at once: the number of
    each text that is not empty, and its score as soon as it is known."""
    chopper, at_once = TextChopper(task.tokenizers, task.field), max(LOGITS // task.text.n_ids, task.context)
    number, n, total = 0, 0, 0.0
    for owners, items in _batches(_windows(task, texts), at_once):
        batch = chopper.collate(items).to(task.device)
        hidden = task.model(batch.tokens).flatten(0, 1)[batch.read]
        losses = F.cross_entropy(task.head(hidden).float(), batch.target, reduction="none").double().cpu()
        for owner, own in zip(owners, losses.split([len(item[1]) for item in items]), strict=True):
            if owner != number and n:
                yield number, _score(n, total / n)
                n, total = 0, 0.0
            number, n, total = owner, n + len(own), total + float(own.sum())
    if n:
        yield number, _score(n, total / n)


def _score(n: int, loss: float) -> dict[str, Any]:
    return {"tokens": n, "loss": loss, "perplexity": math.exp(min(loss, 700.0))}


Item = tuple[Sample, Tensor, Tensor, float]


def _windows(task: Scorer, texts: Iterable[Iterable[np.ndarray]]) -> Iterator[tuple[int, Item]]:
    """The windows of every text, as a `TextChopper` collates them, with the text's number."""
    for number, parts in enumerate(texts):
        before = np.array([task.text.eos_id])
        for own in _cut(parts, task.context):
            part = torch.from_numpy(np.concatenate([before, own]))
            place, before = torch.arange(len(own)), own[-1:]
            yield number, ({task.field: TokenSet(part[:-1], place[:, None], place)}, place, part[1:], 0.0)


def _cut(parts: Iterable[np.ndarray], length: int) -> Iterator[np.ndarray]:
    """The ids of a text in windows of a length, (length,) int64, the last one shorter."""
    own = np.zeros(0, np.int64)
    for ids in parts:
        start = 0
        while start < len(ids):
            # Ids on the disk are read here, a window at a time.
            more = ids[start : start + length - len(own)]
            start += len(more)
            own = np.concatenate([own, more]).astype(np.int64)
            if len(own) == length:
                yield own
                own = own[:0]
    if len(own):
        yield own


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
