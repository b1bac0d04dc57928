"""N-gram models of the same ids as a language model's, in the same nats and bits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from anyformer.baselines.report import Line, Outcome
from anyformer.data.source import Source
from anyformer.runs.trials import Trial
from anyformer.tasks.language.language import LanguageModel

ORDERS = 5
MOST_TOKENS = 5_000_000
"""Of the training text, from its beginning."""
INNER = 0.1
"""Of the training text, the end, by which the best is chosen."""
FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""Odd: it keeps all bits of what it multiplies."""


class WittenBell:
    """Probabilities of tokens after contexts, the longer mixed with the shorter (Witten and Bell 1991, method C; Chen
    and Goodman 1998, 2.5): of a context that many different tokens followed, the shorter one has a larger share.
    """

    def __init__(self, contexts: Sequence[np.ndarray], tokens: np.ndarray, n_ids: int) -> None:
        """contexts: from the shortest to the longest the key of the context of each token, (tokens,) uint64 each.
        tokens: (tokens,) int64, below n_ids."""
        self.n_ids = n_ids
        self._levels = [_Level(keys, tokens) for keys in contexts]

    def probabilities(self, contexts: Sequence[np.ndarray], tokens: np.ndarray) -> list[np.ndarray]:
        """Of each token, (tokens,), by the shortest contexts alone, ..., by all."""
        p, found = np.full(len(tokens), 1 / self.n_ids), []
        for level, keys in zip(self._levels, contexts, strict=True):
            pair, total, kinds = level.counts(keys, tokens)
            # Of a context that was never seen the shorter one has all.
            p = np.where(total > 0, (pair + kinds * p) / np.maximum(total + kinds, 1), p)
            found.append(p)
        return found


class _Level:
    """How often tokens come after the contexts of one length."""

    def __init__(self, keys: np.ndarray, tokens: np.ndarray) -> None:
        self._contexts, self._totals = np.unique(keys, return_counts=True)
        place = np.searchsorted(self._contexts, keys)
        self._width = int(tokens.max()) + 1 if len(tokens) else 1
        self._pairs, self._counts = np.unique(place * self._width + tokens, return_counts=True)
        self._kinds = np.bincount(self._pairs // self._width, minlength=len(self._contexts))

    def counts(self, keys: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """How often each token came after its context, that came at all, and how many different tokens after it."""
        place, known = _find(self._contexts, keys)
        pair, seen = _find(self._pairs, place * self._width + np.minimum(tokens, self._width - 1))
        seen &= known & (tokens < self._width)
        return (
            np.where(seen, self._counts[pair], 0),
            np.where(known, self._totals[place], 0),
            np.where(known, self._kinds[place], 0),
        )


def _find(values: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each is among sorted values, and whether it is there."""
    place = np.searchsorted(values, wanted).clip(max=len(values) - 1)
    return place, values[place] == wanted


def preceding(ids: np.ndarray, start: int, order: int = ORDERS) -> list[np.ndarray]:
    """The keys of what stands before each token: of nothing, of one token, ..., of order - 1.

    ids: (tokens,). start: the id that stands before the first, as often as needed.
    """
    key = np.zeros(len(ids), dtype=np.uint64)
    keys, padded = [key], np.concatenate([np.full(order - 1, start), ids]).astype(np.uint64)
    for back in range(1, order):
        before = padded[order - 1 - back : len(padded) - back]
        key = (key + before + np.uint64(back)) * FACTOR
        # All bits of the product, the high ones too, go into the next.
        key ^= key >> np.uint64(29)
        keys.append(key)
    return keys


def ngram_lines(
    task: LanguageModel, sources: Mapping[str, Source], parts: Mapping[str, str]
) -> tuple[list[Line], list[str]]:
    """The n-gram models of 1 to 5 tokens, and what is said of them. parts: what metrics begin with, by the part."""
    eos, notes = task.text.eos_id, []
    streams = {name: task.view(source, name == "train").stream for name, source in sources.items()}
    train = np.asarray(streams["train"].ids[:MOST_TOKENS]).astype(np.int64)
    if len(train) < len(streams["train"]):
        notes.append(f"the first {len(train):,} of the {len(streams['train']):,} training tokens")
    contexts, n_ids = preceding(train, eos), task.text.n_ids
    cut = len(train) - max(int(INNER * len(train)), 1)
    held = WittenBell([keys[:cut] for keys in contexts], train[:cut], n_ids)
    inner = [_nats(p) / len(p) for p in held.probabilities([keys[cut:] for keys in contexts], train[cut:])]
    model, metrics = WittenBell(contexts, train, n_ids), [{} for _ in range(ORDERS)]
    for name, called in parts.items():
        if name not in streams:
            continue
        ids = np.asarray(streams[name].ids).astype(np.int64)
        for order, p in enumerate(model.probabilities(preceding(ids, eos), ids)):
            nats = _nats(p)
            metrics[order] |= {
                f"{called}/loss": nats / len(ids),
                f"{called}/perplexity": math.exp(nats / len(ids)),
                f"{called}/bits_per_byte": nats / (streams[name].n_bytes * math.log(2)),
            }
    lines = [
        Line(
            "",
            task.field,
            f"{order}-gram, Witten-Bell",
            [Outcome(Trial(None, 0), metrics[order - 1], inner[order - 1])],
        )
        for order in range(1, ORDERS + 1)
    ]
    return lines, notes


def _nats(p: np.ndarray) -> float:
    return float(-np.log(p).sum())
