"""Options that override a config, as they stand on the command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from anyformer.errors import InputError


def options_in(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The options and their values, of what overrides a config; "" where there is no value."""
    rest = list(args)
    while rest:
        first = rest.pop(0)
        if not first.startswith("--"):
            raise InputError(f"{first!r} stands alone: a config is given by --config FILE, and a value by --KEY=VALUE")
        name, equals, value = first[2:].partition("=")
        if not equals and rest and not rest[0].startswith("--"):
            value = rest.pop(0)
        yield name.removesuffix("+"), value
