"""Patterns of attention, and the rule under them as a loop in plain Python, which knows nothing of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from anyformer.model.attention.patterns import Drawn
from anyformer.model.learned_tokens import LearnedTokens
from anyformer.tokens import Sample, Tokenizer, TokenSet
from tests.helpers.witnesses import Ids, Vectors, count, draw_ids

TEXT, PICTURE, CLASS = Ids(11, ("word",), 4096), Vectors(3, ("row", "column"), (64, 64)), LearnedTokens()
FIELDS: dict[str, Tokenizer] = {"text": TEXT, "picture": PICTURE, "class": CLASS}

PATTERNS: dict[str, dict[str, Any]] = {
    "window": {"window": {"word": 3}},
    "neighbourhood": {"window": {"row": 1, "column": 2}},
    "window and global field": {"window": {"word": 2, "row": 0, "column": 1}, "global": ["class"]},
    "window and first tokens": {"window": {"word": 1}, "global": {"text": 2}},
    "global alone": {"global": {"class": None, "text": 1}},
    "random": {"random": 2},
    "window, global and random": {"window": {"word": 2}, "global": ["class"], "random": 1, "seed": 5},
    "blocks": {"window": {"word": 1}, "random": 1, "block": 4},
    "table": {"window": {"word": 0}, "random": [[3], [0, 2], [], [1]], "block": 2},
}


def text(n: int, start: int = 1) -> TokenSet:
    return count(TEXT.encode(draw_ids(n)), start)


def picture(n_rows: int, n_columns: int) -> TokenSet:
    return PICTURE.encode(torch.randn(n_rows, n_columns, 3))


def samples(scale: int = 1) -> list[Sample]:
    """A prefix and a text behind it, a text alone, a bidirectional text, and a picture with words."""
    return [
        {"picture": picture(2, 3 * scale), "text": text(7 * scale), "class": CLASS.encode().at(7 * scale + 1)},
        {"text": text(9 * scale, 0)},
        {"text": text(5 * scale).at(0), "class": CLASS.encode()},
        {"picture": picture(3 * scale, 4), "text": TEXT.encode(draw_ids(4))},
    ]


def by_hand(sample: Sample, pattern: Mapping[str, Any], layer: int = 0) -> torch.Tensor:
    """Which token of a sample sees which: (n, n) boolean, in the sequence of its row."""
    tokens = []
    for name, part in sample.items():
        for i in range(len(part)):
            where = dict(zip(FIELDS[name].axes, part.position[i].tolist(), strict=True))
            rank = (int(part.order[i]), list(FIELDS).index(name), tuple(where.values()), i)
            tokens.append((rank, name, where, i))
    tokens.sort(key=lambda token: token[0])
    nth: dict[str, int] = {}
    listed = []
    for rank, name, where, _ in tokens:
        nth[name] = nth.get(name, -1) + 1
        listed.append((rank[0], name, where, nth[name]))
    n, block = len(listed), pattern.get("block", 1)
    first = pattern.get("global", [])
    first = first if isinstance(first, dict) else dict.fromkeys(first)

    def is_global(token: tuple) -> bool:
        return token[1] in first and (first[token[1]] is None or token[3] < first[token[1]])

    def links(place: int) -> list[int]:
        random = pattern.get("random", 0)
        if isinstance(random, list):
            return random[place] if place < len(random) else []
        return Drawn(random, pattern.get("seed", 0), layer).targets(torch.tensor(place)).tolist() if random else []

    seen = torch.zeros(n, n, dtype=torch.bool)
    for i, query in enumerate(listed):
        for j, key in enumerate(listed):
            if key[0] > query[0]:
                continue
            near = "window" in pattern
            for axis, width in pattern.get("window", {}).items():
                if axis in query[2] and axis in key[2]:
                    near &= abs(query[2][axis] // block - key[2][axis] // block) <= width
            linked = j // block in links(i // block)
            if not isinstance(pattern.get("random"), list):
                linked |= i // block in links(j // block)
            if "random" in pattern or "window" not in pattern:
                near |= i // block == j // block
            seen[i, j] = near or linked or is_global(query) or is_global(key)
    return seen
