"""The records of a config for models that know no tokens: each read once, whatever the folds and seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from anyformer.baselines.features.features import Features
from anyformer.baselines.features.table import features_of
from anyformer.data.source import Source, Subset, join_files
from anyformer.errors import InputError
from anyformer.tasks.base.records import Records
from anyformer.tokens import Tokenizer

MOST_RECORDS = 3000
"""Of a part at most, where nothing else is said; of more a sample is drawn, the same for all seeds."""

PARTS = {"validation": "val", "test": "test"}
"""What the metrics of a part of the data begin with."""
CALLED = {"train": "training"}
"""What a part is called in words, where that is not its name."""


@dataclass
class Examples:
    """Some records."""

    fields: dict[str, list[Any]]
    """By field what its features keep of each record; None where the record lacks it."""
    records: list[Mapping[str, Any]]
    """What is to be predicted of each: the columns of the targets alone."""

    def __len__(self) -> int:
        return len(self.records)

    def where(self, chosen: Sequence[bool]) -> Examples:
        """Those of the records that are chosen."""
        keep = np.flatnonzero(chosen).tolist()
        return Examples(
            {name: [kept[i] for i in keep] for name, kept in self.fields.items()}, [self.records[i] for i in keep]
        )


@dataclass
class Reader:
    """Reads records into examples, and knows those that it has read."""

    tokenizers: Mapping[str, Tokenizer]
    """Of the inputs."""
    columns: Sequence[str]
    """That targets are read from."""
    skips: bool = False
    """Whether records that cannot be used are left out."""
    limit: int = MOST_RECORDS
    notes: list[str] = field(default_factory=list)
    """What was left out, in words."""

    def __post_init__(self) -> None:
        self._features: dict[str, Features] = {name: features_of(each) for name, each in self.tokenizers.items()}
        self._read: dict[tuple[int, int], tuple[dict[str, Any], dict[str, Any]] | None] = {}
        self._bases: list[Source] = []
        self._drawn: dict[int, np.ndarray] = {}

    def read(self, source: Source, part: str) -> Examples:
        """The records of a source, or so many of them. Raises InputError, with the name of the record, for one that
        cannot be used.

        part: what they are called in the notes.
        """
        base, indices = _unfold(source)
        if len(indices) > self.limit:
            self._note(f"a sample of {self.limit:,} of the {len(indices):,} {part} records")
            # By a sequence of the whole, so that most are the same in another fold.
            indices = np.sort(indices[np.argsort(self._sequence(base)[indices])[: self.limit]])
        found = [self._one(base, i) for i in indices.tolist()]
        if bad := sum(each is None for each in found):
            self._note(f"{bad} of {len(found):,} {part} records cannot be used and are left out")
        found = [each for each in found if each is not None]
        if not found:
            raise InputError(f"data: none of the {part} records can be used")
        fields = {name: [values.get(name) for values, _ in found] for name in self.tokenizers}
        return Examples(fields, [columns for _, columns in found])

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    def _sequence(self, base: Source) -> np.ndarray:
        key = self._number(base)
        if key not in self._drawn:
            self._drawn[key] = np.random.default_rng(0).permutation(len(base))
        return self._drawn[key]

    def _number(self, base: Source) -> int:
        """Of a source among those that were read; kept, so that no other has its place."""
        for number, known in enumerate(self._bases):
            if known is base:
                return number
        self._bases.append(base)
        return len(self._bases) - 1

    def _one(self, base: Source, i: int) -> tuple[dict[str, Any], dict[str, Any]] | None:
        key = (self._number(base), i)
        if key not in self._read:
            try:
                self._read[key] = self._describe(base, i)
            except InputError as error:
                if not self.skips:
                    raise InputError(f"{base.name(i)}: {error}") from None
                self._read[key] = None
        return self._read[key]

    def _describe(self, base: Source, i: int) -> tuple[dict[str, Any], dict[str, Any]]:
        record = base[i]
        columns = {name: record[name] for name in self.columns if name in record}
        given = {name: record[name] for name in self.tokenizers if record.get(name) is not None}
        given = join_files(given, base.folder_of(i), self.tokenizers)
        values = {}
        for name, value in given.items():
            try:
                values[name] = self._features[name].read(value)
            except InputError as error:
                raise InputError(f"field {name!r}: {error}") from None
        return values, columns


def _unfold(source: Source) -> tuple[Source, np.ndarray]:
    """The source that parts were taken of, and which of its records they are."""
    indices = np.arange(len(source))
    while isinstance(source, Subset):
        source, indices = source.source, source.indices[indices]
    return source, indices


def dealt(data: Records, n_folds: int | None) -> Iterator[tuple[int | None, dict[str, Source]]]:
    """The parts of the records as a run has them: train, and validation and test where there are such; or of each fold
    as `fit --folds` deals them, whose number comes first."""
    if n_folds is None:
        data.setup("fit")
        yield data.fold if data.folds else None, dict(data.sources)
        return
    data.folds, first = n_folds, {}
    for fold in range(n_folds):
        data.fold, data.sources = fold, {}
        data.setup("fit")
        first = first or dict(data.sources)
        # The records of the first fold's sources, which are the same ones read anew: so each is read once.
        yield (
            fold,
            {
                name: first[name].source.take(source.indices) if isinstance(source, Subset) else first[name]
                for name, source in data.sources.items()
            },
        )
