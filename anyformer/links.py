"""Links: edges between tokens of one sample that a column of its record gives, within a field or between two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from anyformer.errors import InputError, nearest

LinkConfig = TypedDict(
    "LinkConfig",
    {"column": str, "from": str, "to": str, "kinds": list[str], "edges_only": bool, "directed": bool},
    total=False,
)
"""Edges from a column of the record.

column: a list of edges a record, [i, j] or [i, j, kind]: token i of the one field looks at token j of the other.
from, to: the fields; they may be the same.
kinds: names of the kinds, each with a learned bias per head; when left out edges have none in the column, and all one.
edges_only: whether tokens of the one field look at those of the other along these alone; not when left out.
directed: whether they lead one way, as they do when left out. If not, token j looks at token i too.
"""
NEEDED = ("column", "from", "to")


@dataclass(frozen=True)
class Link:
    """One of the links of a model."""

    column: str
    source: str
    """The field whose tokens look."""
    target: str
    kinds: tuple[str, ...]
    edges_only: bool
    directed: bool
    first: int
    """The number of its first kind among those of all links."""

    @property
    def n_kinds(self) -> int:
        return max(len(self.kinds), 1)

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Which field looks at which along them."""
        return ((self.source, self.target), *(() if self.directed else ((self.target, self.source),)))

    def number(self, kind: str) -> int:
        """Of a kind, among those of all links; "" is none. Raises InputError for one that is not known."""
        known = self.kinds or ("",)
        if kind not in known:
            there = f"there are {', '.join(known)}{nearest(kind, known)}" if self.kinds else "no kinds are given"
            said = f"no kind {kind!r} is known" if kind else "an edge has no kind"
            raise InputError(f"{said}; {there}, see kinds of fields.links")
        return self.first + known.index(kind)


def make_links(given: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> tuple[Link, ...]:
    """The links of a config. fields: names of the inputs. Raises InputError for what is missing or unknown."""
    links, first, allowed = [], 0, list(LinkConfig.__annotations__)
    for i, each in enumerate(given):
        where = f"fields.links.{i}"
        for unknown in each.keys() - {*allowed}:
            raise InputError(f"{where} has no {unknown!r}, but {', '.join(allowed)}{nearest(unknown, allowed)}")
        for name in NEEDED:
            if not each.get(name):
                raise InputError(f"{where} must name a column and the fields, {', '.join(NEEDED)}, and lacks {name!r}")
        for end in ("from", "to"):
            if each[end] not in fields:
                known = f"there are {', '.join(fields)}{nearest(each[end], fields)}"
                raise InputError(f"{where}.{end}: there is no field {each[end]!r} among the inputs; {known}")
        kinds = tuple(each.get("kinds", ()))
        if len({*kinds}) < len(kinds) or not all(kinds):
            raise InputError(f"{where}.kinds must be different names, got {list(kinds)}")
        links.append(
            Link(
                each["column"],
                each["from"],
                each["to"],
                kinds,
                each.get("edges_only", False),
                each.get("directed", True),
                first,
            )
        )
        first += links[-1].n_kinds
    return tuple(links)
