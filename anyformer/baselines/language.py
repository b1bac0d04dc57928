"""N-gram models of the same ids as a language model's, of the next or of those that are masked, in the same metrics."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import NamedTuple

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
MASKED = ("1-gram", "token before", "tokens before and after")
MOST_GUESSES = 20_000_000
"""Masked places times ids, each of which is tried there to find the likeliest; of more places a sample is taken."""
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


def masked_lines(
    task: LanguageModel, sources: Mapping[str, Source], parts: Mapping[str, str]
) -> tuple[list[Line], list[str]]:
    """Models of the tokens that the task masks, by no other, by the one before, and by those before and after as the
    task's own model sees them: one that is masked too was never seen in training, and the shorter context has its say.

    parts: what metrics begin with, by the part.
    """
    views, notes = {name: task.view(source, False) for name, source in sources.items()}, []
    own = views["train"]
    train = np.asarray(own.stream.ids[:MOST_TOKENS]).astype(np.int64)
    if len(train) < len(own.stream):
        notes.append(f"the first {len(train):,} of the {len(own.stream):,} training tokens")
    cut = len(train) - max(int(INNER * len(train)), 1)
    begin, end = (bisect_left(range(len(own)), at, key=lambda i: own[i][task.field].start) for at in (cut, len(train)))
    inner = _masked_metrics(task, train[:cut], _masked(task, own, range(begin, end), "training", []))
    metrics: list[dict[str, float]] = [{} for _ in MASKED]
    for name, called in parts.items():
        if name in views:
            found = _masked_metrics(task, train, _masked(task, views[name], range(len(views[name])), name, notes))
            for so_far, values in zip(metrics, found, strict=True):
                so_far |= {f"{called}/{metric}": value for metric, value in values.items()}
    lines = [
        Line("", task.field, f"{name}, Witten-Bell", [Outcome(Trial(None, 0), values, of_inner.get("loss"))])
        for name, values, of_inner in zip(MASKED, metrics, inner, strict=True)
    ]
    return lines, notes


class _Masked(NamedTuple):
    """Masked tokens, (tokens,) int64 each."""

    tokens: np.ndarray
    before: np.ndarray
    """The id that is seen before it; n_ids where there is none."""
    after: np.ndarray


def _masked(task: LanguageModel, view: Source, stretches: range, part: str, notes: list[str]) -> _Masked:
    """Those of some stretches of a text, in evaluation; of so many that the likeliest of all ids are soon found."""
    n_ids, chop = task.text.n_ids, task.chopper(False)
    a_stretch = max(task.masking.share * len(view.stream) / len(view), 1)
    most = max(int(MOST_GUESSES / n_ids / a_stretch), 1)
    if most < len(stretches):
        notes.append(f"a sample of {most:,} of the {len(stretches):,} {part} stretches")
        stretches = [stretches[i] for i in np.linspace(0, len(stretches) - 1, most).astype(int)]
    found = [np.zeros((3, 0), dtype=np.int64)]
    for i in stretches:
        sample, places, tokens, _ = chop(view[i])
        seen = np.pad(sample[task.field].content.numpy(), 1, constant_values=n_ids)
        found.append(np.stack([tokens.numpy(), seen[places.numpy()], seen[places.numpy() + 2]]))
    return _Masked(*np.hstack(found))


def _neighbours(before: np.ndarray, after: np.ndarray, n_ids: int) -> list[np.ndarray]:
    """The keys of the contexts: nothing, the token before, and those before and after."""
    return [np.zeros_like(before), before, before * (n_ids + 1) + after]


def _masked_metrics(task: LanguageModel, train: np.ndarray, masked: _Masked) -> list[dict[str, float]]:
    """Of each model what the task reports of masked tokens; nothing where none is."""
    n_ids, n = task.text.n_ids, len(masked.tokens)
    if not n:
        return [{} for _ in MASKED]
    around = np.pad(train, 1, constant_values=n_ids)
    model = WittenBell(_neighbours(around[:-2], around[2:], n_ids), train, n_ids)
    contexts = _neighbours(masked.before, masked.after, n_ids)
    loss = [_nats(p) / n for p in model.probabilities(contexts, masked.tokens)]
    right = np.zeros(len(MASKED))
    for start in range(0, n, 256):
        tokens = masked.tokens[start : start + 256]
        every = [np.repeat(keys[start : start + 256], n_ids) for keys in contexts]
        of_each = model.probabilities(every, np.tile(np.arange(n_ids), len(tokens)))
        right += [(p.reshape(-1, n_ids).argmax(1) == tokens).sum() for p in of_each]
    return [
        {"loss": nats, "perplexity": math.exp(nats), "accuracy": found / n}
        for nats, found in zip(loss, right.tolist(), strict=True)
    ]


def _nats(p: np.ndarray) -> float:
    return float(-np.log(p).sum())
