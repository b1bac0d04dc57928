"""How much a YAML may be: its bytes, its depth, and what its aliases come to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

from anyformer.errors import InputError

MAX_BYTES = 2**21
"""Of a config: what is larger is data, and stands in a file of its own."""
MAX_DEPTH = 100
MAX_VALUES = 200_000
"""With every alias written out."""
SHORT = 100
"""Characters in which nothing of the kind can be said, beside a circle."""


def compose(text: str) -> yaml.Node:
    """The nodes of a YAML text. Raises yaml.YAMLError, and InputError for more than a config may be."""
    if len(text) > MAX_BYTES:
        raise InputError(f"it has {len(text):,} characters, and a config at most {MAX_BYTES:,}; put data into files")
    loader = _Composer(text)
    try:
        node = loader.get_single_node()
    finally:
        loader.dispose()
    _Sizes().measure(node, 1)
    return node


class _Composer(yaml.SafeLoader):
    """Stops at the first value that is too deep, where the package's own would go on until Python does."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise InputError(f"line {self.line + 1}: it is nested more than {MAX_DEPTH} deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Sizes:
    """How many values there are below each node, and how deep; each node is looked at once."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[int, int]] = {}
        self.open: set[int] = set()

    def measure(self, node: yaml.Node | None, depth: int) -> tuple[int, int]:
        """Values and levels, the node's own included."""
        if not isinstance(node, yaml.CollectionNode):
            return 1, 1
        line = node.start_mark.line + 1
        if id(node) in self.open:
            raise InputError(f"line {line}: it holds itself, by an alias; write out what is meant")
        if id(node) not in self.known:
            if depth > MAX_DEPTH:
                raise InputError(f"line {line}: it is nested more than {MAX_DEPTH} deep")
            self.open.add(id(node))
            below = [
                self.measure(part, depth + 1)
                for entry in node.value
                for part in (entry if isinstance(entry, tuple) else (entry,))
            ]
            self.open.remove(id(node))
            size, levels = 1 + sum(n for n, _ in below), 1 + max((n for _, n in below), default=0)
            if size > MAX_VALUES:
                raise InputError(
                    f"line {line}: it comes to more than {MAX_VALUES:,} values, its aliases written out; put data "
                    "into files"
                )
            self.known[id(node)] = size, levels
        if depth + self.known[id(node)][1] - 1 > MAX_DEPTH:
            raise InputError(f"line {line}: it is nested more than {MAX_DEPTH} deep")
        return self.known[id(node)]


@contextmanager
def bounded_yaml() -> Iterator[None]:
    """While it lasts, jsonargparse reads no YAML that is more, be it in an option or in a file that a value names."""
    read = get_loader("yaml")

    def load(text: str) -> Any:
        if len(text) > SHORT:
            _check(text)
        return read(text)

    set_loader("yaml", load, (yaml.YAMLError,))
    try:
        yield
    finally:
        set_loader("yaml", read, (yaml.YAMLError,))


@lru_cache(maxsize=64)
def _check(text: str) -> None:
    # The same text comes many times.
    # A text that is no YAML is a value of its own.
    with suppress(yaml.YAMLError):
        compose(text)
