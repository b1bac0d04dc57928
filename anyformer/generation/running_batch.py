"""The continuations under way as rows of a model with a cache: one id a row in, logits out.

All that is done once for a batch of prompts, or when rows leave or grow past the context, is here; what is chosen from
the logits is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from anyformer.batch import Batch, FieldTokens, Layout
from anyformer.errors import InputError
from anyformer.generation.options import CommonOptions
from anyformer.generation.prepacked import PackedProducts, PackedWeights, for_inference
from anyformer.model.anyformer import Anyformer
from anyformer.model.attention.cache import Cache
from anyformer.packing import collate
from anyformer.tokens import Sample, TokenSet

Allow = Callable[[list[int]], Sequence[int] | None]
"""Constrained decoding: from the ids of a continuation so far the ids that may follow, None for all."""
Rule = Callable[[Tensor, Sequence[list[int]]], None]
"""What may follow, by what the model says: logits (b, v) become -inf, in place, for what may not follow the ids of each
row."""
SPARE = 16
"""Tokens of padding that a row of a prefill takes on a CPU: about what reading the weights once more would cost."""


class Prior(Protocol):
    """What is added to the score of every row by its next id, at first a row for each prompt; it is led through one
    generation."""

    def score(self) -> Tensor:
        """What each id adds, (rows, v)."""

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows only; one may be kept several times."""

    def copy(self, moves: Sequence[tuple[int, int]]) -> None:
        """Overwrite rows with others of the same prompt, (source, target) each."""

    def advance(self, new: Sequence[int]) -> None:
        """Take in one more id in each row."""


class Scorer(Prior, Protocol):
    """A second opinion on the next id: its scores are log-probabilities, of which `weight` is the share beside those of
    the model, from 0 to 1."""

    weight: float


@dataclass(frozen=True)
class RowModel:
    """What the rows of a generation need of its generator, which says what each is."""

    model: Anyformer
    head: Callable[[Tensor], Tensor]
    field: str
    start: int | None
    decode: Callable[[Sequence[int]], str] | None
    context: int | None
    packed: PackedWeights


class Rows:
    """The continuations under way as rows of a model with a cache: ids in, logits out."""

    def __init__(
        self,
        of: RowModel,
        prompts: Sequence[Sample],
        options: CommonOptions,
        conditions: Batch | None = None,
        allow: Allow | None = None,
        numbers: Sequence[int] | None = None,
        memory: Tensor | None = None,
        second: Scorer | None = None,
        prior: Prior | None = None,
        rule: Rule | None = None,
    ) -> None:
        """As in `Generator.generate`."""
        self.of, self.options, self.allow, self.rule = of, options, allow, rule
        self.numbers = range(len(prompts)) if numbers is None else numbers
        self.conditions, self.memory, self.second, self.prior = conditions, memory, second, prior
        if conditions is not None and (not conditions.one_per_row or conditions.n_samples != len(prompts)):
            raise InputError(
                f"conditions must be a row for each of the {len(prompts)} prompts, got {conditions.n_samples} samples "
                f"in {conditions.shape[0]} rows"
            )
        self.samples = [self._opened(i, sample) for i, sample in enumerate(prompts)]
        self.prompt_ids = [sample[of.field].content.tolist() for sample in self.samples]
        self.device = next(of.model.parameters()).device
        self.model = for_inference(of.model, of.packed)
        self.cache = Cache()

    def _opened(self, i: int, sample: Sample) -> Sample:
        """A prompt with the start token where it has none, checked."""
        name, context = self.of.field, self.of.context
        tokens = sample.get(name)
        if tokens is None or not len(tokens):
            if self.of.start is None:
                raise InputError(f"prompt {i} has no token of field {name!r} and there is no start token; give some")
            return self._with(sample, [self.of.start])
        if context is not None and tokens.position.numel() and int(tokens.position.max()) >= context:
            raise InputError(
                f"prompt {i} reaches place {int(tokens.position.max()) + 1} of field {name!r}, and the model can place "
                f"{context}: cut it shorter"
            )
        return sample

    def _with(self, sample: Sample, ids: Sequence[int]) -> Sample:
        """A sample whose field holds these ids alone, from position 0, behind all other fields."""
        name = self.of.field
        others = (part for other, part in sample.items() if other != name and len(part))
        first = 1 + max((int(part.order.max()) for part in others), default=-1)
        place = torch.arange(len(ids))
        position = place[:, None] if self.of.model.tokenizers[name].axes else None
        return {**sample, name: TokenSet(torch.tensor(ids), position, first + place)}

    def begin(self, n_each: int = 1) -> Tensor:
        """The logits after the prompts, each continued in n_each rows, (prompts * n_each, v)."""
        logits = self._prefill()
        # What all rows of a prompt have in common.
        self.shared = len(self.cache)
        self.history = None
        if self.options.repetition_penalty != 1:
            ids = [sample[self.of.field].content for sample in self.samples]
            width = max(map(len, ids))
            # An id that is named again is penalised once, so the rows are filled up with their first.
            self.history = torch.stack([torch.cat([each, each[:1].expand(width - len(each))]) for each in ids])
            self.history = self.history.to(self.device)
        if self.options.stop_ids:
            self._closed(self.options.stop_ids, logits, "stop_ids")
        self.closed = None
        if self.options.allowed is not None:
            self.closed = self._closed(self.options.allowed, logits)
        if self.options.suppressed:
            closed = ~self._closed(self.options.suppressed, logits, "suppressed")
            self.closed = closed if self.closed is None else self.closed | closed
        self.closed_first = None
        if self.options.suppressed_first:
            self.closed_first = ~self._closed(self.options.suppressed_first, logits, "suppressed_first")
        if n_each > 1:
            self.select([i for i in range(len(self.samples)) for _ in range(n_each)], sharing=n_each)
            logits = logits.repeat_interleave(n_each, 0)
        return logits

    def _closed(self, allowed: Sequence[int], logits: Tensor, name: str = "allowed") -> Tensor:
        """Which ids are not among those, (v,)."""
        v = logits.shape[1]
        if not len(allowed) or min(allowed) < 0 or max(allowed) >= v:
            raise InputError(f"{name} must name ids from 0 to {v - 1}, got {sorted(set(allowed))[:9] or 'none'}")
        closed = torch.ones(v, dtype=torch.bool, device=logits.device)
        closed[torch.tensor(sorted(set(allowed)), device=logits.device)] = False
        return closed

    def restrict(self, logits: Tensor, ids: Sequence[list[int]]) -> Tensor:
        """Logits (b, v) under the repetition penalty, -inf for what is not allowed after the ids of each row.

        With a second scorer, or a prior, what is returned are scores, the model's of log-probabilities: see
        `are_scores`. What is given is changed: on a CPU another array of this size costs more than what is done with
        it.
        """
        if self.history is not None:
            logits = penalize(logits, self.history, self.options.repetition_penalty)
        if self.closed is not None:
            logits.masked_fill_(self.closed, -torch.inf)
        if self.closed_first is not None and not ids[0]:
            logits.masked_fill_(self.closed_first, -torch.inf)
        if self.allow is not None:
            for i, own in enumerate(ids):
                follow = self.allow(own)
                if follow is not None:
                    logits[i].masked_fill_(self._closed(follow, logits), -torch.inf)
        if self.rule is not None:
            self.rule(logits, ids)
        if self.second is not None:
            share = self.second.weight
            logits = (1 - share) * logits.log_softmax(1) + share * self.second.score().to(logits.dtype)
        if self.prior is not None:
            own = logits if self.second is not None else logits.log_softmax(1)
            logits = own + self.prior.score().to(logits)
        return logits

    @property
    def are_scores(self) -> bool:
        """Whether `restrict` gives scores, which add up over a text as they are; else logits."""
        return self.second is not None or self.prior is not None

    @property
    def _scorers(self) -> list[Prior]:
        return [each for each in (self.second, self.prior) if each is not None]

    def select(self, rows: Sequence[int], sharing: int = 1) -> None:
        """Keep these rows only; one may be kept several times. sharing: of each prompt come so many, one after
        another."""
        index = torch.tensor(rows, device=self.device)
        for scorer in self._scorers:
            scorer.select(rows)
        self.cache.select(index, sharing)
        self.samples, self.ids, self.places, self.orders = (
            [each[i] for i in rows] for each in (self.samples, self.ids, self.places, self.orders)
        )
        self.ids = [list(each) for each in self.ids]
        if self.history is not None:
            self.history = self.history[index]
        self._lay()

    def copy(self, moves: Sequence[tuple[int, int]]) -> None:
        """Overwrite rows with others of the same prompt, (source, target) each."""
        sources, targets = [source for source, _ in moves], [target for _, target in moves]
        self.cache.copy(sources, targets, self.shared)
        for scorer in self._scorers:
            scorer.copy(moves)
        for source, target in moves:
            self.ids[target] = list(self.ids[source])
        if self.history is not None and moves:
            self.history[targets] = self.history[sources]

    def advance(self, new: Sequence[int]) -> Tensor:
        """The logits after one more id in each row, (b, v)."""
        for own, token in zip(self.ids, new, strict=True):
            own.append(token)
        for scorer in self._scorers:
            scorer.advance(new)
        if self.history is not None:
            self.history = torch.cat([self.history, torch.tensor(new, device=self.device)[:, None]], 1)
        context = self.of.context
        if context is not None and max(self.places) >= context:
            # Rows with room keep everything, so that what a row becomes does not hang on the rows beside it.
            n_kept = context + 1 - context // 2
            kept = [
                own[-n_kept:] if place >= context else own for own, place in zip(self.ids, self.places, strict=True)
            ]
            self.samples = [self._with(sample, own) for sample, own in zip(self.samples, kept, strict=True)]
            self.cache.restart()
            self.shared = 0
            return self._prefill()
        batch = self._next(new)
        hidden = self.model(batch, cache=self.cache)
        self.model.forget(batch, self.cache)
        self.places = [place + 1 for place in self.places]
        self.orders = [order + 1 for order in self.orders]
        with PackedProducts(self.of.packed):
            return self.of.head(hidden[:, -1])

    def _prefill(self) -> Tensor:
        """The logits after the samples as they stand, each read in one pass."""
        name, tokenizers = self.of.field, self.of.model.tokenizers
        conditions, self.conditions = self.conditions, None
        memory, self.memory = self.memory, None
        if conditions is not None:
            conditions = conditions.to(self.device)
        groups, caches, hidden = self._groups(), [], []
        for group in groups:
            batch = collate([self.samples[i] for i in group], tokenizers)
            ends = (batch.layout.segment > 0).sum(1, keepdim=True) - 1
            caches.append(self.cache if len(groups) == 1 else Cache())
            batch, ends = batch.to(self.device), ends.to(self.device)
            hidden.append(self.model(batch, conditions, caches[-1], ends, memory)[:, -1])
        last = torch.cat(hidden)
        if len(groups) > 1:
            back = torch.tensor([i for group in groups for i in group], device=self.device).argsort()
            self.cache, last = Cache.join(caches), last[back]
            self.cache.select(back)
        self.ids = [sample[name].content.tolist() for sample in self.samples]
        self.orders = [1 + max(int(part.order.max()) for part in each.values() if len(part)) for each in self.samples]
        self.places = [
            int(tokens.position.max()) + 1 if tokens.position.numel() else len(tokens)
            for tokens in (sample[name] for sample in self.samples)
        ]
        self._lay()
        with PackedProducts(self.of.packed):
            return self.of.head(last)

    def _groups(self) -> list[list[int]]:
        """The rows that are prefilled together: on a CPU only rows of like length, so that no padding is computed."""
        rows = range(len(self.samples))
        if self.device.type != "cpu" or self.model.encoder is not None:
            return [list(rows)]
        lengths = [sum(map(len, sample.values())) for sample in self.samples]
        groups: list[list[int]] = []
        for i in sorted(rows, key=lambda i: -lengths[i]):
            if groups and lengths[groups[-1][0]] - lengths[i] <= SPARE:
                groups[-1].append(i)
            else:
                groups.append([i])
        return groups if len(groups) > 1 else [list(rows)]

    def _lay(self) -> None:
        """What stays the same in the batches of one new token a row, on the device."""
        b, names = len(self.ids), list(self.of.model.tokenizers)
        ones = torch.ones(b, 1, dtype=torch.int64, device=self.device)
        self._ones, self._field = ones, ones * names.index(self.of.field)
        self._index = torch.arange(b, device=self.device)
        # Counted on in place; the cache copies what it keeps.
        self._position = torch.tensor(self.places, device=self.device)[:, None]
        self._order = torch.tensor(self.orders, device=self.device)[:, None]
        self._axes = len(self.of.model.tokenizers[self.of.field].axes)

    def _next(self, new: Sequence[int]) -> Batch:
        """A batch of one new token a row, as `collate` would lay it."""
        tokens = FieldTokens(
            content=torch.tensor(new, device=self.device),
            position=self._position[:, : self._axes].clone(),
            index=self._index,
            sample=self._index,
            extents=((1,),) * len(new),
            reach=(max(self.places),) * self._axes,
        )
        batch = Batch(
            fields={self.of.field: tokens},
            layout=Layout(self._ones, self._order.clone(), self._field),
            n_samples=len(new),
            kind="everything",
            n_per_row=1,
            padded=False,
            orders=(min(self.orders), max(self.orders)),
        )
        self._position += 1
        self._order += 1
        return batch


def penalize(logits: Tensor, history: Tensor, penalty: float) -> Tensor:
    """The repetition penalty on the ids of history (b, n), of which some may be there twice; logits: (b, v)."""
    seen = logits.gather(1, history)
    return logits.scatter(1, history, torch.where(seen > 0, seen / penalty, seen * penalty))
