"""Records to batches of samples: a loader whose place can be saved.

Knows no modality and no trainer. What turns a record into token sets is handed in as a `Chopper`, and which samples
stand together as a `Plan`. What is drawn for a sample is a function of (seed, epoch, index), so that a loader's place
is two integers and the number of workers cannot matter.
"""

from __future__ import annotations

import logging
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from anyformer.batches import Draw, Plan
from anyformer.data import Source, join_files
from anyformer.errors import InputError
from anyformer.tokens import Sample, Tokenizer, expand

log = logging.getLogger(__name__)

OR_SKIP = "mend it, or leave such records out by data.on_bad_sample: skip"
"""What to do about a record that cannot be used."""


class LeftOut(InputError):
    """A sample that cannot be learned from through no fault of its own: it is left out and counted, never fatal."""


class Unasked(LeftOut):
    """A sample that has nothing of what a pass of an evaluation is about; nobody needs to hear of it."""


@dataclass(frozen=True)
class Chopper(ABC):
    """What a task lends to the data workers: how a record becomes an item, and items a batch. Plain values only."""

    tokenizers: Mapping[str, Tokenizer]
    """Of the fields that come from the record: strings of one that reads files are file names."""
    dropout: Mapping[str, float] = field(default_factory=dict, kw_only=True)
    """Of each input the share of training samples that it is left out of."""
    without: tuple[str, ...] = field(default=(), kw_only=True)
    """Inputs that are left out of every sample."""
    by: str | None = field(default=None, kw_only=True)
    """The column whose value says which group of samples a record belongs to, for figures by group."""

    @abstractmethod
    def __call__(self, record: Mapping[str, Any], random: np.random.Generator | None = None) -> Any:
        """One item. Raises InputError, with the field's name, for a record that cannot be used."""

    @abstractmethod
    def collate(self, items: Sequence[Any], rows: Sequence[int] | None = None) -> Any:
        """A batch of items; `rows` as in `tokens.collate`."""

    def encode(
        self, record: Mapping[str, Any], random: np.random.Generator | None = None, empty_too: bool = False
    ) -> Sample:
        """The token sets of the fields that the record has, without those that are left out.

        empty_too: whether a record may come to no token at all, as an empty text does.
        Raises InputError for a record without any token, or one that cannot be used; Unasked for one whose inputs are
        all left out.
        """
        never = self._meant(self.without)
        dropped, last = self._dropped(random)
        sample = self._cut(record, random, never | dropped)
        if dropped and not _has_tokens(sample):
            # One input always stays, of those that hold anything.
            whole = self._cut(record, random, never)
            present = [name for name, tokens in whole.items() if len(tokens)]
            sample = {name: whole[name] for name in present[int(last * len(present)) :][:1]}
        if _has_tokens(sample) or (sample and empty_too):
            return sample
        given = [name for name in self.tokenizers if record.get(name) is not None]
        if self.without and given:
            raise Unasked(f"the record has nothing but {', '.join(self.without)}")
        empty = f", and nothing is in {', '.join(given)}" if given else ""
        raise InputError(
            f"a record needs one of the fields {', '.join(self.tokenizers)}; it has {', '.join(record)}{empty}"
        )

    def conditions(
        self, record: Mapping[str, Any], random: np.random.Generator | None = None, empty_too: bool = False
    ) -> Sample:
        """As `encode`, with all tokens at order 0: everything sees everything, and nothing a text that is written."""
        sample = self.encode(record, random, empty_too)
        return {name: tokens.at(0) if tokens.order.any() else tokens for name, tokens in sample.items()}

    def _cut(self, record: Mapping[str, Any], random: np.random.Generator | None, gone: set[str]) -> Sample:
        """The token sets of the fields that the record has and that are not gone."""
        sample: Sample = {}
        for name, tokenizer in self.tokenizers.items():
            if record.get(name) is None or (gone and gone.issuperset(self._parts[name])):
                continue
            try:
                tokens = tokenizer.encode(record[name], random)
            except InputError as error:
                raise InputError(f"field {name!r}: {error}") from error
            parts = {f"{name}.{part}": t for part, t in tokens.items()} if isinstance(tokens, dict) else {name: tokens}
            sample |= {each: part for each, part in parts.items() if each not in gone}
        return sample

    def _dropped(self, random: np.random.Generator | None) -> tuple[set[str], float]:
        """The fields that chance takes from a training sample, and which one stays where all would go, in 0 ... 1."""
        if random is None or not self.dropout:
            return set(), 0.0
        # Before all other draws, and as many whatever the record has.
        *draws, last = random.random(len(self.dropout) + 1).tolist()
        taken = [name for (name, share), drawn in zip(self.dropout.items(), draws, strict=True) if drawn < share]
        return self._meant(taken), last

    def _meant(self, names: Sequence[str]) -> set[str]:
        """The fields that names mean: all of an input, or one of them."""
        return {each for name in names for each in self._parts.get(name, (name,))}

    @cached_property
    def _parts(self) -> dict[str, tuple[str, ...]]:
        """The fields of each input."""
        return {name: tuple(expand({name: tokenizer})) for name, tokenizer in self.tokenizers.items()}

    def partner(self, n: int, random: np.random.Generator) -> int | None:
        """Which of the n samples of the training part an item is blended with; None: with none."""
        return None

    def mix(self, item: Any, other: Any | None, random: np.random.Generator) -> Any:
        """An item blended with its partner's."""
        return item

    packs: ClassVar[bool] = True
    """Whether `collate` may be given rows."""

    def count(self, record: Mapping[str, Any]) -> int | tuple[int, int]:
        """The number of tokens that the record's fields come to, from headers where formats have them; two numbers
        where two stacks read it."""
        return sum(t.count(record[name]) for name, t in self.tokenizers.items() if record.get(name) is not None)


def _has_tokens(sample: Sample) -> bool:
    return any(len(tokens) for tokens in sample.values())


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
