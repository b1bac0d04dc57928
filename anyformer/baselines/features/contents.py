"""The tokens of any field in statistics, for kinds of data that no other features are known of."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix, hstack

from anyformer.baselines.features.features import Features, Imputer, Matrix
from anyformer.tokens import Tokenizer, TokenSet

MOST_IDS = 5000
"""Ids that are counted at most: the most frequent of the training records."""
EDGES = -1
"""Stands in the place of the number of an id where kinds of edges are counted."""
WIDE = 256
"""Numbers of a token, above which the least and the most of each say more than is wanted."""


class Described(NamedTuple):
    numbers: np.ndarray
    """(columns,) float, NaN where the record has no token of a field."""
    ids: Counter[tuple[str, int, int]]
    """How often each id comes: (field, which of a token's ids, id); and each kind of edges: (field, EDGES, kind)."""


class TokenStatistics(Features):
    """Of tokens of numbers the mean, the deviation, the least and the most of each over the tokens; of ids how often
    each comes, and each kind of edges; and how many tokens there are. Where a record holds several fields, of each of
    them."""

    def read(self, value: Any) -> Any:
        # What the data decides is known once all records are.
        return value if self._learns else describe(self.tokenizer, value)

    @property
    def _learns(self) -> bool:
        return type(self.tokenizer).fit is not Tokenizer.fit

    def _described(self, kept: Sequence[Any]) -> list[Described]:
        return [describe(self._fitted, value) for value in kept] if self._learns else list(kept)

    def fit(self, kept: Sequence[Any]) -> None:
        self._fitted = self.tokenizer.fit(kept)
        described = self._described(kept)
        self._imputer = Imputer([each.numbers for each in described])
        counts = Counter[tuple[str, int, int]]()
        for each in described:
            counts.update(each.ids.keys())
        self._places = {key: place for place, (key, _) in enumerate(counts.most_common(MOST_IDS))}

    def transform(self, kept: Sequence[Any]) -> Matrix:
        described = self._described(kept)
        numbers = self._imputer([each.numbers for each in described])
        if not self._places:
            return numbers
        found = [
            (row, self._places[key], math.log1p(n))
            for row, each in enumerate(described)
            for key, n in each.ids.items()
            if key in self._places
        ]
        rows, places, values = zip(*found, strict=True) if found else ((), (), ())
        ids = csr_matrix((values, (rows, places)), shape=(len(described), len(self._places)))
        return csr_matrix(hstack([csr_matrix(numbers), ids]))


def describe(tokenizer: Tokenizer, value: Any) -> Described:
    """What the tokens of a value come to."""
    tokens = tokenizer.encode(value)
    fields = tokens if isinstance(tokens, dict) else {"": tokens}
    numbers, ids = [], Counter[tuple[str, int, int]]()
    for name, part in (tokenizer.parts or {"": tokenizer}).items():
        found = fields.get(name) or part.empty()
        numbers.append(_statistics(found))
        if len(found) and not found.content.is_floating_point():
            rows = found.content.reshape(len(found.content), -1).tolist()
            ids.update((name, place, number) for row in rows for place, number in enumerate(row))
        if found.edges is not None:
            ids.update((name, EDGES, kind) for kind in found.edges[:, 2].tolist())
    return Described(np.concatenate(numbers), ids)


def _statistics(tokens: TokenSet) -> np.ndarray:
    """How many tokens there are, and of numbers what they are on the average and at most."""
    length = [math.log1p(len(tokens))]
    if not tokens.content.is_floating_point():
        return np.array(length)
    content = tokens.content.double().numpy()
    content = content.reshape(len(content), math.prod(content.shape[1:]))
    names = ("mean", "std") if content.shape[1] > WIDE else ("mean", "std", "min", "max")
    if not len(content):
        return np.concatenate([length, np.full(len(names) * content.shape[1], np.nan)])
    return np.concatenate([length, *(getattr(content, name)(0) for name in names)])
