"""Records to batches of samples: a loader whose place can be saved.

Knows no modality and no trainer. What turns a record into token sets is handed in as a `Chopper`, and which samples
stand together as a `Plan`. What is drawn for a sample is a function of (seed, epoch, index), so that a loader's place
is two integers and the number of workers cannot matter.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from anyformer.data.batch_plan import Draw, Plan
from anyformer.data.chopper import Chopper, LeftOut, Unasked
from anyformer.data.source import Source, join_files
from anyformer.errors import InputError

log = logging.getLogger(__name__)

OR_SKIP = "mend it, or leave such records out by data.on_bad_sample: skip"
"""What to do about a record that cannot be used."""


@dataclass(frozen=True, eq=False)
class Samples(Dataset):
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
            return self.chopper(record, random), "" if group is None else str(group)
        except InputError as error:
            raise type(error)(f"{self.source.name(i)}: {error}") from None

    def __getitems__(self, draws: list[Draw]) -> _Fetched:
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
                    return _Fetched(None, [_or_skip(error)], fatal=True)
        if not items and self.training:
            for step in range(1, len(self)):
                draw = draws[-1]._replace(index=(draws[-1].index + step) % len(self))
                try:
                    items, used = [self[draw]], [draw]
                    break
                except InputError:
                    continue
        if not items:
            return _Fetched(None, bad, fatal=self.training)
        # Numbered anew: a row may have lost all its samples.
        rows = None if used[0].row is None else np.unique([draw.row for draw in used], return_inverse=True)[1].tolist()
        try:
            batch = self.chopper.collate(items, rows)
        except InputError as error:
            return _Fetched(None, [str(error)], fatal=True)
        batch.samples = tuple(self.source.name(draw.index) for draw in used)
        if any(groups):
            batch.groups = tuple(groups)
        return _Fetched(batch, bad)

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
class _Fetched:
    """A batch on its way from a worker, with what to say about it: an exception would arrive as a traceback's text."""

    batch: Any
    bad: list[str]
    fatal: bool = False

    def pin_memory(self) -> _Fetched:
        if self.batch is not None:
            self.batch = self.batch.pin_memory()
        return self


class Loader:
    """Batches of samples as planned, epoch after epoch; knows its place, and goes on from there.

    Iterating runs through one epoch: the one whose place was loaded, else the next. It is not a `DataLoader` but has
    one, because a trainer takes those apart and puts in samplers of its own. The place counts the batches handed out,
    never those that workers have fetched ahead, and no global generator is touched.

    ask_epoch: where someone else counts the epochs (a trainer, which may cut them short), says which one it is.
    keep_workers: whether the workers wait for the next epoch.
    """

    def __init__(
        self,
        samples: Samples,
        plan: Plan,
        n_workers: int = 0,
        pin_memory: bool = False,
        ask_epoch: Callable[[], int] | None = None,
        keep_workers: bool = True,
    ) -> None:
        self.samples, self.plan = samples, plan
        self.n_workers, self.pin_memory, self.ask_epoch = n_workers, pin_memory, ask_epoch
        self.keep_workers = keep_workers
        self.epoch, self.offset = 0, 0
        self.n_bad, self.bad = 0, []
        self._begun = False
        self._upcoming = _Upcoming(plan)
        self._fetcher: DataLoader | None = None

    def __len__(self) -> int:
        """Batches of an epoch: the same for all."""
        return len(self.plan)

    def __iter__(self) -> Iterator[Any]:
        # A generator, so that nothing happens before the first batch is asked for: a trainer calls iter() to try it.
        over = self._begun or self.offset >= len(self)
        epoch = self.epoch + over if self.ask_epoch is None else self.ask_epoch()
        if over or epoch != self.epoch:
            self._report()
            self.epoch, self.offset = epoch, 0
        self._begun = True
        self._upcoming.place = self.epoch, self.offset
        if self._fetcher is None:
            self._fetcher = DataLoader(
                self.samples,
                batch_sampler=self._upcoming,
                collate_fn=_whole,
                num_workers=self.n_workers,
                persistent_workers=self.n_workers > 0,
                pin_memory=self.pin_memory,
                worker_init_fn=_outlive,
                # Its own, or each epoch would draw the workers' seed from the generator that dropout draws from.
                generator=torch.Generator(),
            )
        # In evaluation a batch of which nothing is left is None where others wait for this process at every batch.
        keeps_step = self.plan.world > 1 and not self.samples.training
        try:
            for fetched in self._fetcher:
                self.offset += 1
                self.n_bad += len(fetched.bad)
                self.bad = (self.bad + fetched.bad)[:3]
                if fetched.fatal:
                    self.close()
                    raise InputError(fetched.bad[0])
                if self.offset == len(self):
                    self._report()
                if fetched.batch is not None or keeps_step:
                    yield fetched.batch
        finally:
            if not self.keep_workers:
                self.close()

    def state_dict(self) -> dict[str, Any]:
        """The place, in plain types."""
        return {
            "seed": self.plan.seed,
            "epoch": self.epoch,
            "offset": self.offset,
            "n_batches": len(self),
            "n_bad": self.n_bad,
            "bad": list(self.bad),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a place. Raises InputError if it belongs to other data, other batches or another seed."""
        for key, now in (("seed", self.plan.seed), ("n_batches", len(self))):
            if state[key] != now:
                raise InputError(
                    f"cannot go on inside an epoch: the checkpoint was made with {key}={state[key]}, "
                    f"this run has {now}; use the same data, batch size, seed and number of processes"
                )
        self.epoch, self.offset, self._begun = state["epoch"], state["offset"], False
        self.n_bad, self.bad = state["n_bad"], list(state["bad"])

    def close(self) -> None:
        """End the workers; they come back when the loader is used again."""
        # By hand, as trainers do: workers left to the garbage collector are waited for in vain, 5 s each, since it has
        # closed their queues by then.
        if (running := getattr(self._fetcher, "_iterator", None)) is not None:
            running._shutdown_workers()
        self._fetcher = None

    def _report(self) -> None:
        if self.n_bad:
            more = f", and {self.n_bad - len(self.bad)} more" if self.n_bad > len(self.bad) else ""
            # How often has been evaluated is no epoch of the run: Lightning tries a few batches before the first.
            what = f"epoch {self.epoch} of training" if self.samples.training else "evaluation"
            log.warning("%s left out %d samples: %s%s", what, self.n_bad, "; ".join(self.bad), more)
        self.n_bad, self.bad = 0, []


class _Upcoming:
    """The batch sampler: the draws from a place on.

    It does not know its loader: in a cycle with that, a process forked later would inherit the dead loader, collect it,
    and stop the workers of its parent.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.place = 0, 0

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[list[Draw]]:
        return self.plan.epoch(*self.place)


def _outlive(worker: int) -> None:
    """Let a worker live on for a minute after SIGTERM.

    Who ends a job sends it to all of its processes, and the one that trains needs batches till the end of its step.
    """
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(60))


def _whole(fetched: _Fetched) -> _Fetched:
    return fetched
