"""The rows of a table, whatever holds them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from anyformer.errors import InputError, nearest


class Rows(ABC):
    """Rows by number, read when they are asked for."""

    path: str

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, i: int) -> dict[str, Any]:
        """The values of row i, 0 <= i < len, by column. None, or left out, where there is none."""

    @abstractmethod
    def select(self, names: Sequence[str], start: int, stop: int) -> Iterator[tuple[Any, ...]]:
        """The values of these columns in rows start to stop, and of others nothing where the format allows it."""

    @abstractmethod
    def columns(self) -> Collection[str]:
        """The names of all columns in their sequence."""

    def require(self, names: Collection[str]) -> None:
        """Raise InputError for a column that is not there."""
        there = self.columns() if names else ()
        for name in names:
            if name not in there:
                raise no_column(self.path, name, there)


def no_column(place: str, name: str, names: Collection[str]) -> InputError:
    """What to raise for a column that is not among those of a place."""
    return InputError(f"{place}: no column {name!r}; there are {', '.join(names)}{nearest(name, names)}")


def check_names(place: str, names: Sequence[str]) -> None:
    """Raise InputError for columns of one name, of which all but one would be lost."""
    for name in dict.fromkeys(names):
        found = [str(column) for column, other in enumerate(names, start=1) if other == name]
        if len(found) > 1:
            which = "" if name else f" (columns {', '.join(found)})"
            raise InputError(f"{place}: several columns are called {name!r}{which}; give each a name of its own")


def check_parts(files: Sequence[str], names: Sequence[Collection[str]]) -> None:
    """Raise InputError where the files of one table have other columns than each other, in whatever sequence.

    names: the columns of each file.
    """
    for file, own in zip(files, names, strict=True):
        lost = [name for name in names[0] if name not in own]
        more = [name for name in own if name not in names[0]]
        if lost or more:
            wrong = [
                f"{verb} {', '.join(map(repr, found))}" for verb, found in (("lacks", lost), ("has", more)) if found
            ]
            raise InputError(
                f"{file}: {' and '.join(wrong)}, unlike {files[0]}; the parts of a table must have the same columns"
            )
