"""Records to items, and items to a batch: what runs in the data workers.

Knows no modality and no trainer. What is drawn for a sample is a function of (seed, epoch, index), so that neither its
batch nor the number of workers can matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Literal

import numpy as np
from torch.utils.data import Dataset

from anyformer.choices import Checked
from anyformer.data.batch_plan import Draw, Plan
from anyformer.data.chopper import Chopper, LeftOut, Unasked
from anyformer.data.source import Source, join_files
from anyformer.data.values import is_missing, name_of
from anyformer.errors import InputError
from anyformer.faults import MachineError

OR_SKIP = "mend it, or leave such records out by data.on_bad_sample: skip"
"""What to do about a record that cannot be used."""


@dataclass(frozen=True, eq=False)
class Samples(Checked, Dataset):
    """A source whose records come chopped: what runs in the data workers.

    A sample is asked for by a `Draw`, which holds all that augmentation may depend on. A record that cannot be used
    fails with its name in front of the reason; or with `on_bad_sample="skip"`, and where it is `LeftOut`, the batch
    goes on without it. In training a batch of nothing else is filled by the records that follow, because all processes
    must take the same steps.
    """

    source: Source
    chopper: Chopper
    training: bool = False
    seed: int = 0
    on_bad_sample: Literal["fail", "skip"] = "fail"

    def __len__(self) -> int:
        return len(self.source)

    def record(self, i: int) -> dict[str, Any]:
        """The record, with file names as paths."""
        return join_files(self.source[i], self.source.folder_of(i), self.chopper.tokenizers)

    def __getitem__(self, draw: Draw) -> Any:
        return self._draw(draw)[0]

    def usable(self, draws: Iterable[Draw]) -> Iterator[tuple[Draw, Any]]:
        """Those of the draws that can be used, with their items, as training would take them. Raises InputError for one
        that cannot, unless such are skipped."""
        for draw in draws:
            try:
                yield draw, self[draw]
            except InputError as error:
                if self.on_bad_sample == "fail" and not isinstance(error, LeftOut):
                    raise

    def first(self, plan: Plan, n: int) -> Iterator[Any]:
        """The items of the first n draws of epoch 0 that can be used, augmented."""
        return (item for _, item in self.usable(islice(chain.from_iterable(plan.epoch(0)), n)))

    def _draw(self, draw: Draw) -> tuple[Any, str]:
        """An item, and in evaluation the group that its record belongs to; "" for none."""
        if not self.training:
            return self._item(draw.index, None)
        random = np.random.default_rng((self.seed, draw.epoch, draw.index, 1))
        (item, _), other = self._item(draw.index, random), None
        partner = self.chopper.partner(len(self), random)
        if partner is not None:
            try:
                other, _ = self._item(partner, random)
            except InputError:
                # A good sample is not left out for its partner's sake, which is reported when its own turn comes.
                if self.on_bad_sample == "fail":
                    raise
        return self.chopper.mix(item, other, random), ""

    def _item(self, i: int, random: np.random.Generator | None) -> tuple[Any, str]:
        try:
            record = self.record(i)
            group = None if self.training or self.chopper.by is None else record.get(self.chopper.by)
            group = "" if is_missing(group) else name_of(group, f"fields.by: column {self.chopper.by!r}")
            return self.chopper(record, random), group
        except MachineError:
            raise
        except InputError as error:
            raise type(error)(f"{self.source.name(i)}: {error}") from None

    def __getitems__(self, draws: list[Draw]) -> Fetched:
        """A whole batch, and what was left out of it."""
        used, items, groups, bad = [], [], [], []
        for draw in draws:
            try:
                item, group = self._draw(draw)
                items.append(item)
                groups.append(group)
                used.append(draw)
            except Unasked:
                continue
            except InputError as error:
                bad.append(str(error))
                if self.on_bad_sample == "fail" and not isinstance(error, LeftOut):
                    return Fetched(None, [_or_skip(error)], fatal=True)
        if not items and self.training:
            for step in range(1, len(self)):
                draw = draws[-1]._replace(index=(draws[-1].index + step) % len(self))
                try:
                    items, used = [self[draw]], [draw]
                    break
                except InputError:
                    continue
        if not items:
            return Fetched(None, bad, fatal=self.training)
        # Numbered anew: a row may have lost all its samples.
        rows = None if used[0].row is None else np.unique([draw.row for draw in used], return_inverse=True)[1].tolist()
        try:
            batch = self.chopper.collate(items, rows)
        except InputError as error:
            return Fetched(None, [str(error)], fatal=True)
        batch.samples = tuple(self.source.name(draw.index) for draw in used)
        if any(groups):
            batch.groups = tuple(groups)
        return Fetched(batch, bad)

    def lengths(self) -> list[int] | list[tuple[int, int]]:
        """Tokens of every sample. One that cannot be used counts as 1 where such are skipped."""
        lengths: list[Any] = []
        for i in range(len(self)):
            try:
                lengths.append(self.chopper.count(self.record(i)))
            except InputError as error:
                if self.on_bad_sample == "fail":
                    raise InputError(f"{self.source.name(i)}: {_or_skip(error)}") from None
                lengths.append(None)
        two = any(isinstance(length, tuple) for length in lengths)
        return [((1, 1) if two else 1) if length is None else length for length in lengths]


def _or_skip(error: InputError) -> str:
    """What is wrong with a record, and what to do about it."""
    said = str(error)
    return f"{said}; {OR_SKIP.removeprefix('mend it, ') if 'mend it' in said else OR_SKIP}"


@dataclass
class Fetched:
    """A batch on its way from a worker, with what to say about it: an exception would arrive as a traceback's text."""

    batch: Any
    bad: list[str]
    fatal: bool = False

    def pin_memory(self) -> Fetched:
        if self.batch is not None:
            self.batch = self.batch.pin_memory()
        return self
