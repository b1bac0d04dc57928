"""Batches of a language model: inputs, targets, and what is masked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anyformer.choices import Values
from anyformer.data.chopper import Chopper
from anyformer.errors import InputError
from anyformer.packing import collate
from anyformer.tasks.base.examples import Examples
from anyformer.tokenizers.text.text import Text
from anyformer.tokens import Sample, TokenSet


@dataclass(frozen=True)
class Masking(Values):
    """Which tokens a masked language model has to find (BERT, Devlin et al. 2019, 3.1)."""

    share: float = 0.15
    """Of all tokens."""
    replaced: float = 0.8
    """Of those: by the mask token."""
    redrawn: float = 0.1
    """Of those: by any token. The others stay as they are."""
    whole_words: bool = False
    """Whether all tokens of a word are chosen, or none."""

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise InputError(f"masking.share must lie between 0 and 1, got {self.share}")
        if min(self.replaced, self.redrawn) < 0 or self.replaced + self.redrawn > 1:
            raise InputError(
                f"masking.replaced and redrawn must not be negative, and at most 1 in sum, got {self.replaced} and "
                f"{self.redrawn}"
            )


@dataclass
class TextExamples(Examples):
    """Examples whose targets are read at places of the rows."""

    read: Tensor = None  # type: ignore[assignment]
    """(targets,) int64, where in the flattened (rows * length) layout each target is predicted"""
    n_bytes: float = 0.0
    """UTF-8 bytes of the text that the targets stand for."""


@dataclass(frozen=True)
class TextChopper(Chopper):
    """Stretches of ids to (sample, places to read within it, targets, bytes), and batches of them."""

    field: str
    jitter: int = 0
    """In training, stretches begin up to so many tokens later."""
    masking: Masking | None = None
    """None: each token is predicted from those before it."""

    @property
    def text(self) -> Text:
        return self.tokenizers[self.field]  # type: ignore[return-value]

    def __call__(
        self, record: Mapping[str, Any], random: np.random.Generator | None = None
    ) -> tuple[Sample, Tensor, Tensor, float]:
        stream, start, n = record[self.field]
        if random is not None and self.jitter:
            start = min(start + int(random.integers(self.jitter)), max(len(stream) - self.jitter, 0))
            n = min(self.jitter, len(stream) - start)
        n_bytes = n * stream.n_bytes / len(stream)
        if self.masking is None:
            # Before the first token of all stands the end of a text, as before the first of every other document.
            before = stream.window(start - 1, 1) if start else torch.tensor([self.text.eos_id])
            ids = torch.cat([before, stream.window(start, n)])
            place = torch.arange(n)
            return {self.field: TokenSet(ids[:-1], place[:, None], place)}, place, ids[1:], n_bytes
        if random is None:
            random = np.random.default_rng((0, start))
        ids = stream.window(start, n)
        place, seen = self._mask(ids, random)
        before, after = self.text.around
        if after and ids[-len(after) :].tolist() == after:
            # The stream ends a document in what is put after a text.
            after = []
        seen = torch.cat([torch.tensor(before, dtype=torch.int64), seen, torch.tensor(after, dtype=torch.int64)])
        return {self.field: TokenSet(seen, torch.arange(len(seen))[:, None])}, place + len(before), ids[place], n_bytes

    def _mask(self, ids: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """The places to predict, and the ids as the model sees them."""
        masking, text = self.masking, self.text
        units = text.words(ids).numpy() if masking.whole_words else np.arange(len(ids))
        open_to = ~np.isin(ids.numpy(), text.special_ids)
        able = np.unique(units[open_to])
        n = max(round(masking.share * len(able)), 1)
        chosen = open_to & np.isin(units, random.permutation(able)[:n])
        place = torch.from_numpy(np.flatnonzero(chosen))
        fate = torch.from_numpy(random.random(len(place)))
        ordinary = np.setdiff1d(np.arange(text.n_ids), text.special_ids)
        drawn = torch.from_numpy(random.choice(ordinary, len(place)))
        new = torch.where(fate < masking.replaced + masking.redrawn, drawn, ids[place])
        new = torch.where(fate < masking.replaced, text.mask_id, new)
        return place, ids.scatter(0, place, new)

    def count(self, record: Mapping[str, Any]) -> int:
        return record[self.field].n + sum(map(len, self.text.around))

    def collate(
        self, items: Sequence[tuple[Sample, Tensor, Tensor, float]], rows: Sequence[int] | None = None
    ) -> TextExamples:
        samples, places, targets, n_bytes = zip(*items, strict=True)
        tokens = collate(samples, self.tokenizers, rows)
        ends = np.cumsum([len(sample[self.field]) for sample in samples])
        starts = torch.from_numpy(np.repeat([0, *ends[:-1]], [len(place) for place in places]))
        read = tokens.fields[self.field].index[starts + torch.cat(places)]
        return TextExamples(tokens, torch.cat(targets), read=read, n_bytes=sum(n_bytes))
