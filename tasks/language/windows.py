"""Windows of a text: the spans that samples of a language model are made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from anyformer.data.source import Source
from anyformer.tokenizers.text.token_stream import TokenStream


class Span(NamedTuple):
    """A stretch of a stream of ids."""

    stream: TokenStream
    start: int
    n: int


@dataclass(frozen=True, eq=False)
class TextWindows(Source):
    """A stream of ids in stretches of a length that lie end to end, the last one shorter."""

    stream: TokenStream
    field: str
    length: int

    def __len__(self) -> int:
        return -(-len(self.stream) // self.length)

    def __getitem__(self, i: int) -> dict[str, Any]:
        start = range(len(self))[i] * self.length
        return {self.field: Span(self.stream, start, min(self.length, len(self.stream) - start))}

    def name(self, i: int) -> str:
        return f"the corpus from token {i * self.length}"


@dataclass(frozen=True, eq=False)
class Pieces(Source):
    """The documents of a stream, those that are longer cut into pieces of a length."""

    stream: TokenStream
    field: str
    length: int

    @cached_property
    def _bounds(self) -> tuple[np.ndarray, np.ndarray]:
        ends = np.asarray(self.stream.ends)
        starts = np.concatenate([[0], ends[:-1]])
        counts = -(-(ends - starts) // self.length)
        first = np.repeat(starts, counts)
        number = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
        start = first + number * self.length
        return start, np.minimum(start + self.length, np.repeat(ends, counts)) - start

    def __len__(self) -> int:
        return len(self._bounds[0])

    def __getitem__(self, i: int) -> dict[str, Any]:
        start, n = self._bounds
        return {self.field: Span(self.stream, int(start[i]), int(n[i]))}

    def name(self, i: int) -> str:
        return f"the corpus from token {self._bounds[0][i]}"
