"""How probable a language model finds texts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from anyformer.errors import InputError
from anyformer.generation.config import GenerationConfig
from anyformer.generation.options import split_answers
from anyformer.model.anyformer import Anyformer
from anyformer.model.heads import Head
from anyformer.packing import collate
from anyformer.tasks.language.batch import TextChopper
from anyformer.tasks.language.windows import Pieces, TextWindows
from anyformer.tokenizers.text.corpus import Documents
from anyformer.tokenizers.text.text import Text
from anyformer.tokenizers.text.token_stream import encode_blocks
from anyformer.tokens import Sample, Tokenizer, TokenSet

LOGITS = 2**23
"""Logits that are held at once, about."""

Item = tuple[Sample, Tensor, Tensor, float]
"""A window as a `TextChopper` makes it."""
Owner = TypeVar("Owner")


@dataclass(frozen=True)
class TextConfig(GenerationConfig):
    """How a language model goes on with texts, or that it says how probable they are."""

    score: bool | str = False
    """Instead of going on with a text, say how probable it is: its tokens, the loss in nats a token, the perplexity.
    With texts parted by |, as " yes| no": how probable each of these is behind it, and which is the likeliest."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.score, str):
            split_answers(self.score)
        drawn = self.n_samples > 1 or self.n_beams > 1 or self.temperature or self.stop
        if self.score and (self.constrains or drawn):
            raise InputError("score writes no text, and goes without options of how one is written")


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


@torch.inference_mode()
def score_answers(task: Scorer, prompts: Sequence[Sample], answers: Sequence[str]) -> list[dict[str, float]]:
    """For each prompt by answer the log-probability, in nats, of its tokens behind the prompt, summed.

    prompts: as the model reads them; an empty one begins at the end of a text. Raises InputError for an answer that the
    context does not hold behind its prompt.
    """
    several, scores = task.text.encode_known(answers), []
    for prompt in prompts:
        before = prompt[task.field].content
        before = before if len(before) else torch.tensor([task.text.eos_id])
        contents = [torch.cat([before, torch.from_numpy(ids)]) for ids in several]
        for answer, content in zip(answers, contents, strict=True):
            if len(content) > task.context + 1:
                raise InputError(
                    f"score: {answer!r} and what stands before it have {len(content)} tokens, more than the "
                    f"{task.context} of the model's context; give the last part of the text"
                )
        read = [content[:-1] for content in contents]
        samples = [{task.field: TokenSet(ids, (place := torch.arange(len(ids)))[:, None], place)} for ids in read]
        hidden = task.model(collate(samples, task.model.tokenizers).to(task.device))
        own = {}
        for answer, content, vectors in zip(answers, contents, hidden, strict=True):
            log_p = task.head(vectors[len(before) - 1 : len(content) - 1]).float().log_softmax(1).cpu()
            own[answer] = float(log_p.gather(1, content[len(before) :, None]).sum())
        scores.append(own)
    return scores


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
    number, n, total = 0, 0, 0.0
    for owners, items in _batches(task, _windows(task, texts)):
        losses, _ = _losses(task, items)
        for owner, own in zip(owners, losses.split([len(item[1]) for item in items]), strict=True):
            if owner != number and n:
                yield number, _score(n, total)
                n, total = 0, 0.0
            number, n, total = owner, n + len(own), total + float(own.sum())
    if n:
        yield number, _score(n, total)


def _losses(task: Scorer, items: list[Item]) -> tuple[Tensor, Tensor]:
    """The loss of each target of a batch, and whether it is the likeliest, (targets,) float64 and boolean."""
    batch = TextChopper(task.tokenizers, task.field).collate(items).to(task.device)
    logits = task.head(task.model(batch.tokens).flatten(0, 1)[batch.read]).float()
    losses = F.cross_entropy(logits, batch.target, reduction="none").double().cpu()
    return losses, (logits.argmax(-1) == batch.target).cpu()


@torch.inference_mode()
def score_masked(task: Scorer, chopper: TextChopper, view: TextWindows | Pieces) -> Iterator[dict[str, Any]]:
    """What an evaluation measures of the masked tokens, for each document of a stream as soon as it is known: how many
    are `masked`, how many of these found (`right`), the mean `loss` in nats, and `perplexity`; of no token the last two
    are None.

    A window may hold several documents, and a document lie in several windows: what counts is where a token stands.
    """
    ends, done = view.stream.ends, 0
    masked, right = np.zeros((2, len(ends)), np.int64)
    loss = np.zeros(len(ends))
    # What is masked follows from where a window begins, as in every evaluation.
    windows = ((view[i][task.field], chopper(view[i])) for i in range(len(view)))
    n_before = len(task.text.around[0])
    for spans, items in _batches(task, windows):
        losses, found = _losses(task, items)
        places = [span.start + item[1].numpy() - n_before for span, item in zip(spans, items, strict=True)]
        owners = np.searchsorted(ends, np.concatenate(places), side="right")
        for total, values in ((masked, 1), (right, found.numpy()), (loss, losses.numpy())):
            np.add.at(total, owners, values)
        complete = int(np.searchsorted(ends, spans[-1].start + spans[-1].n, side="right"))
        for n, n_right, total in zip(*(each[done:complete].tolist() for each in (masked, right, loss)), strict=True):
            yield {"masked": n, "right": n_right, **(_mean(total / n) if n else {"loss": None, "perplexity": None})}
        done = complete


def _score(n: int, total: float) -> dict[str, Any]:
    return {"tokens": n, **_mean(total / n)}


def _mean(loss: float) -> dict[str, Any]:
    return {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}


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


def _batches(task: Scorer, windows: Iterator[tuple[Owner, Item]]) -> Iterator[tuple[list[Owner], list[Item]]]:
    """Windows of so many tokens together, padding included, that few enough logits are held at once."""
    most = max(LOGITS // task.text.n_ids, task.context)
    owners: list[Owner] = []
    items: list[Item] = []
    longest = 0
    for owner, item in windows:
        n = len(item[0][task.field])
        longest = max(longest, n)
        if items and longest * (len(items) + 1) > most:
            yield owners, items
            owners, items, longest = [], [], n
        owners.append(owner)
        items.append(item)
    if items:
        yield owners, items
