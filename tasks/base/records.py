"""The data module of every task: sources of records, their splits, and loaders of batches as the task chops them."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from lightning import LightningDataModule

from anyformer.choices import Checked
from anyformer.data.batch_plan import plan_batches
from anyformer.data.files import list_folders
from anyformer.data.folders import Folders, find_parts, open_source
from anyformer.data.loader import Loader
from anyformer.data.python_records import as_source
from anyformer.data.rows.rows import no_column
from anyformer.data.samples import Samples
from anyformer.data.source import Joined, Source
from anyformer.data.splits import Grouping, deal, describe_groups, split
from anyformer.data.tables import Table
from anyformer.data.values import is_missing, name_of
from anyformer.errors import InputError, say_once
from anyformer.parsing.plain import describe
from anyformer.tasks.base.resume import is_below
from anyformer.tokenizers.text.corpus import Corpus, Documents
from anyformer.tokenizers.tree.conllu import Conllu

if TYPE_CHECKING:
    from anyformer.tasks.base.task import Task


PARTS = ("train", "validation", "test")
MOST_WORKERS = 1000
"""Processes that no machine runs all at once: a mistyped number would start them until it stands still."""
MOST_GROUPS = 100
"""Values of a column that metrics are given by."""


class Records(Checked, LightningDataModule):
    """Training, validation and test records, and batches of them.

    Each of the three is a source of its own, or a path: of class folders, or of a table. A path is read like `train`
    (same columns, same endings, same rule for the root) where that is a source of the same kind. Validation and test
    may also be a fraction of train: test is taken first, so that it never depends on validation, and both count from
    the whole. Of a text, test is its end and validation what stands before that. Where train is a folder that holds
    train/ and val/ or test/, each of these is what its name says, but for what is given here.

    In Python a list of records (dicts), a DataFrame, a dataset of torch or Hugging Face and a generator may stand where
    a source stands; see `as_source`.

    Several sources or paths in a list count as one, their records one after another. With `folds` the records of train
    and validation are put together and dealt out: one fold is validation, the others are train. With `inner_folds` too
    that fold is test, and the others are dealt out again: one inner fold is validation, the others are train.

    Args:
        train: Records to learn from, or the path of class folders or a table.
        validation: Records that choose the best model; a fraction is taken out of train.
        test: Records that say how good it is; a fraction is taken out of train.
        unlabelled: Records beside the training records that `pretrain` of the task learns from, and nothing else does.
        stratify: Column of which every part gets each value in proportion, where fractions or folds are taken.
        group: Column of which all records of one value stay in one part or fold, as those of a speaker or a patient do.
        group_pattern: A regular expression that finds the group in that column's text, where it is part of a file name:
            "([^/]+)/[^/]+$" is the file's folder.
        split_seed: Decides which records the fractions take, or which fold each is in.
        folds: How many parts train and validation are dealt into for cross-validation, which `fit --folds` runs.
        fold: Which of them is validation, or test where there are inner folds, from 0.
        inner_folds: How many parts the records outside that fold are dealt into, which `fit --folds --nested` runs.
        inner_fold: Which of these is validation, from 0.
        batch_size: Samples of a batch, at most. 64 where max_tokens is not given.
        max_tokens: Tokens of a batch, at most, padding included: samples of like length come together.
        pack: Put several samples into a row as long as the longest sample, and rows into batches of max_tokens.
        n_workers: Processes that read and chop; 0 does it in the training process. Changes no result.
        worker_timeout: Seconds that a batch of these processes is waited for before the run is given up: one that hangs
            would else be waited for without end, as it is where this is null.
        on_bad_sample: Whether a record that cannot be used stops the run, or is left out, counted and reported.
        seed: Decides the order of samples and their augmentation.

    Raises InputError, here or in `setup`, for values that contradict each other and for records that are not there.
    """

    checks_itself = ("train", "validation", "test", "unlabelled")

    def __init__(
        self,
        train: list[Source | str] | Source | str,
        validation: list[Source | str] | Source | float | str | None = None,
        test: list[Source | str] | Source | float | str | None = None,
        *,
        unlabelled: list[Source | str] | Source | str | None = None,
        stratify: str | None = None,
        group: str | None = None,
        group_pattern: str | None = None,
        split_seed: int = 0,
        folds: int | None = None,
        fold: int = 0,
        inner_folds: int | None = None,
        inner_fold: int = 0,
        batch_size: int | None = None,
        max_tokens: int | None = None,
        pack: bool = False,
        n_workers: int = 0,
        worker_timeout: float | None = 600.0,
        on_bad_sample: Literal["fail", "skip"] = "fail",
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("max_tokens", max_tokens, 1),
            ("n_workers", n_workers, 0),
            ("seed", seed, 0),
            ("split_seed", split_seed, 0),
            ("folds", folds, 2),
            ("fold", fold, 0),
            ("inner_folds", inner_folds, 2),
            ("inner_fold", inner_fold, 0),
        ):
            if value is not None and value < least:
                raise InputError(f"data.{name} must be at least {least}, got {value}")
        if n_workers > MOST_WORKERS:
            raise InputError(
                f"data.n_workers must be at most {MOST_WORKERS}, got {n_workers}; one for each core is plenty"
            )
        if worker_timeout is not None and not worker_timeout > 0:
            raise InputError(f"data.worker_timeout must be above 0, or null for no end, got {worker_timeout}")
        for name, one, several in (("fold", fold, folds), ("inner_fold", inner_fold, inner_folds)):
            if one >= (several or 1):
                raise InputError(
                    f"data.{name} must be below data.{name}s={several}, got {one}; folds are counted from 0"
                )
        if inner_folds is not None and folds is None:
            raise InputError("data.inner_folds deals out the records outside a fold of data.folds; give that too")
        if group_pattern is not None and group is None:
            raise InputError("data.group_pattern looks for groups in the text of a column; give data.group too")
        self.group, self.group_pattern = group, group_pattern
        self._grouping = None if group is None else Grouping(group, group_pattern)
        parts = {"train": train, "validation": validation, "test": test, "unlabelled": unlabelled}
        self.given = {name: as_source(value, f"data.{name}") for name, value in parts.items()}
        if isinstance(unlabelled, int | float):
            raise InputError(f"data.unlabelled must be records or the path of some, got {unlabelled}")
        for name, value in self.given.items():
            if value == []:
                raise InputError(f"data.{name} must list at least one source or path, got none")
        if pack and max_tokens is None:
            raise InputError("data.pack fills rows up to data.max_tokens; give that too")
        if pack and batch_size is not None:
            raise InputError("data.pack fills batches by data.max_tokens alone; leave data.batch_size out")
        self._found = dict(self.given)
        """The same with the parts below a root."""
        self.stratify, self.split_seed = stratify, split_seed
        self.folds, self.fold, self.inner_folds, self.inner_fold = folds, fold, inner_folds, inner_fold
        self.batch_size = 64 if batch_size is None and max_tokens is None else batch_size
        self.max_tokens, self.pack = max_tokens, pack
        self.n_workers, self.worker_timeout = n_workers, worker_timeout
        self.on_bad_sample, self.seed = on_bad_sample, seed
        self.pretrains = False
        """Whether these are for `pretrain`: the unlabelled are in train, and there is no test."""
        self.owner: Task | None = None
        """The task that they are for, where no trainer says it: one of a mixture."""
        self.sources: dict[str, Source] = {}
        self._loaders: dict[str, list[Loader]] = {}
        self._lengths: dict[str, list[int] | list[tuple[int, int]]] = {}

    free = ("n_workers", "worker_timeout", "on_bad_sample")
    """Arguments that may change when a run goes on, whatever the others are."""

    def config(self) -> dict[str, Any]:
        """The arguments, to compare another run's with."""
        names = inspect.signature(Records).parameters
        return {name: describe(self.given[name] if name in self.given else getattr(self, name)) for name in names}

    def copy(self) -> Records:
        """The same records, of which nothing has been set up."""
        made = copy(self)
        made.trainer, made.owner, made.sources = None, None, {}
        made._loaders, made._lengths = {}, {}
        return made

    def pretraining(self) -> Records:
        """Those that `pretrain` of a task learns from: a copy whose train has the unlabelled too."""
        made = self.copy()
        made.pretrains = True
        return made

    def is_free(self, path: str) -> bool:
        """Whether the argument of a dotted path may change when a run goes on: those that change no training sample,
        and not the records that the best model is chosen by."""
        free, takes_fractions = self.free, any(isinstance(value, (int, float)) for value in self.given.values())
        if not takes_fractions and self.folds is None:
            free += ("stratify", "group", "group_pattern", "split_seed")
        # One that was a fraction before changes train, which says so.
        return path in free or (is_below(path, "test") and not isinstance(self.given["test"], (int, float)))

    def holds(self, kind: str) -> bool:
        """Whether there are records of a kind: train, validation or test."""
        if self.pretrains and kind == "test":
            return False
        if self.given[kind] is not None or kind in self._dealt:
            return True
        self.find_parts()
        return self._found[kind] is not None

    def setup(self, stage: str | None = None) -> None:
        """Fill `sources` with what the stage needs: all for fit, else one, so that files of others may be missing."""
        is_unused = stage in (None, "fit") and not self.pretrains and getattr(self._task, "pretrain", 0) is None
        if self.given["unlabelled"] is not None and is_unused:
            raise InputError("data.unlabelled is read by model.pretrain alone; give that too, or leave it out")
        self.find_parts()
        wanted = {"validate": ["validation"], "test": ["test"]}.get(stage or "fit", list(PARTS))
        fractions = {
            name: float(self._found[name])  # type: ignore[arg-type]
            for name in ("test", "validation")
            if isinstance(self._found[name], (int, float))
        }
        sources = {name: self._source(name) for name in wanted if name not in (*fractions, *self._dealt)}
        if self.folds and ("test" in fractions or set(self._dealt) & set(wanted)):
            sources |= {name: source for name, source in self._deal(fractions).items() if name in wanted}
        elif fractions and ("train" in wanted or fractions.keys() & set(wanted)):
            train = self._source("train")
            if isinstance(train, Documents):
                for option in ("stratify", "group"):
                    if getattr(self, option) is not None:
                        raise InputError(f"data.{option} goes by a column, and a corpus has none; leave it out")
                left, parts = train.divide(fractions)
            else:
                left, parts = split(train, fractions, **self._dividing)
            sources |= {name: source for name, source in {"train": left, **parts}.items() if name in wanted}
        if self._grouping is not None and stage in (None, "fit"):
            parts = {name: sources[name] for name in PARTS if sources.get(name) is not None}
            say_once(describe_groups(self._grouping, parts, self.stratify))
        if self.pretrains and self._found["unlabelled"] is not None:
            sources["train"] = _joined([sources["train"], self._source("unlabelled")])
        for name in wanted:
            if (source := sources.get(name)) is not None:
                if len(source) == 0:
                    raise InputError(f"data.{name} has no records")
                self.sources[name] = source
        if stage in ("validate", "test") and wanted[0] not in self.sources:
            raise InputError(f"there are no {wanted[0]} records: give data.{wanted[0]} a source, a path or a fraction")
        if stage == "fit" and "validation" not in self.sources and self.trainer is not None and self.owner is None:
            # Lightning warns of an empty list of loaders, and has no other way to say that there is none.
            self.trainer.limit_val_batches = 0

    def find_parts(self) -> None:
        """Where train is the root of a data set, take the train/, val/ and test/ in it as what they are."""
        train = self.given["train"]
        self._found = dict(self.given)
        try:
            source = self._open(train) if isinstance(train, str) else train
            if not isinstance(source, Folders):
                return
            folders = list_folders(source.folder)
        except (InputError, OSError):
            return  # It says so when it is used.
        parts = find_parts(folders)
        if "train" not in parts:
            return
        taken, unused = [], []
        for part, name in parts.items():
            place = os.path.join(source.path, name)
            if part != "train" and self.given[part] is not None:
                unused.append(f"{place} is not used, as data.{part} is given")
            elif "folder" in source.columns.values() and not list_folders(os.path.join(source.folder, name)):
                unused.append(f"{place} is not used, as it has no class folders")
            else:
                self._found[part] = replace(source, path=place)
                taken.append(f"{place} is {part}")
        unused += [f"{os.path.join(source.path, name)} is not used" for name in folders if name not in parts.values()]
        say_once(f"{source.path}: {', '.join(taken + unused)}")

    @property
    def _dealt(self) -> tuple[str, ...]:
        """The parts that are folds."""
        if self.folds is None:
            return ()
        return ("train", "validation") if self.inner_folds is None else ("train", "validation", "test")

    @property
    def _dividing(self) -> dict[str, Any]:
        """What parts and folds are taken by."""
        return {"seed": self.split_seed, "stratify": self.stratify, "grouping": self._grouping}

    def _deal(self, fractions: Mapping[str, float]) -> dict[str, Source]:
        """Train and validation out of the records of both; and test where it is a fraction of them, or a fold."""
        both = [self._source(name) for name in ("train", "validation") if name not in fractions]
        whole, test = _joined([source for source in both if source is not None]), {}
        if isinstance(whole, Documents):
            raise InputError("data.folds deals records out, and a corpus is one text; leave it out")
        if "test" in fractions:
            whole, test = split(whole, {"test": fractions["test"]}, **self._dividing)
        train, own = deal(whole, self.folds, self.fold, **self._dividing)
        if self.inner_folds is None:
            return {"train": train, "validation": own, **test}
        if self._found["test"] is not None:
            say_once("data.test is kept aside and not used: with inner folds the outer fold is the test part")
        try:
            train, validation = deal(train, self.inner_folds, self.inner_fold, **self._dividing)
        except InputError as error:
            raise InputError(f"inner folds of what is outside fold {self.fold}: {error}") from None
        return {"train": train, "validation": validation, "test": own}

    def _source(self, name: str) -> Source | None:
        given = self._found[name]
        if isinstance(given, list):
            return _joined([self._open(each) for each in given])
        source = self._open(given) if isinstance(given, str) else given
        if name == "train" and isinstance(source, Folders):
            source.require_classes()
        return source  # type: ignore[return-value]

    def _open(self, given: Source | str) -> Source:
        """What a path says, read like train where that is a source of the same kind."""
        if not isinstance(given, str):
            return given
        train = self._found["train"]
        if isinstance(train, list):
            train = train[0]
        if isinstance(train, Corpus):
            return replace(train, path=given, part=(0.0, 1.0))
        if isinstance(train, Conllu):
            return replace(train, path=given)
        source = (open_source if self._task is None else self._task.open)(given)
        if isinstance(train, Table) and isinstance(source, Table):
            return replace(train, path=given, rows=None)
        return replace(train, path=given) if isinstance(train, Folders) and isinstance(source, Folders) else source

    def attach(self, task: Task) -> None:
        """Say what task the records are for, where no trainer does."""
        self.owner = task

    @property
    def _task(self) -> Task | None:
        return self.owner or (None if self.trainer is None else self.trainer.lightning_module)

    def train_dataloader(self) -> Loader:
        (loader,) = self._load("train")
        return loader

    def val_dataloader(self) -> Loader | list[Loader]:
        loaders = self._load("validation")
        return loaders if len(loaders) > 1 else loaders[0]

    def test_dataloader(self) -> Loader | list[Loader]:
        loaders = self._load("test")
        return loaders if len(loaders) > 1 else loaders[0]

    def _load(self, name: str) -> list[Loader]:
        """Loaders of one of the sources, one for each pass, for the trainer's processes and at the trainer's epoch."""
        trainer, training = self.trainer, name == "train"
        task = self._task
        source, passes = task.view(self.sources[name], training), task.passes(training)
        each = [Samples(source, chopper, training, self.seed, self.on_bad_sample) for _, chopper in passes]
        chopper = passes[-1][1]
        if chopper.by is not None and not training:
            what = f"fields.by: column {chopper.by!r}"
            try:
                known = list(source.known(chopper.by))
            except InputError:
                raise no_column(f"fields.by: {source.name(0)}", chopper.by, source[0]) from None
            groups = {name_of(value, what) for value in known if not is_missing(value)}
            if len(groups) > MOST_GROUPS:
                raise InputError(
                    f"fields.by: the column {chopper.by!r} has more than {MOST_GROUPS} values; choose one of fewer"
                )
        if self.max_tokens is not None and name not in self._lengths:
            # Of the whole, which no pass exceeds.
            self._lengths[name] = each[-1].lengths()
        plan = plan_batches(
            len(source),
            batch_size=self.batch_size,
            max_tokens=self.max_tokens,
            lengths=self._lengths.get(name),
            pack=self.pack and chopper.packs,
            shuffle=training and not trainer.overfit_batches,
            seed=self.seed,
            rank=trainer.global_rank,
            world=trainer.world_size,
            name=source.name,
        )
        for loader in self._loaders.get(name, []):
            loader.close()
        self._loaders[name] = [
            Loader(
                samples,
                plan,
                n_workers=self.n_workers,
                pin_memory=trainer.strategy.root_device.type == "cuda",
                # Where a run goes on between two epochs no place is loaded, but the trainer knows how many are behind.
                ask_epoch=(lambda: trainer.fit_loop.epoch_progress.current.processed) if training else None,
                keep_workers=samples is each[-1],
                worker_timeout=self.worker_timeout,
            )
            for samples in each
        ]
        return self._loaders[name]

    def teardown(self, stage: str | None = None) -> None:
        """End the workers."""
        for loaders in self._loaders.values():
            for loader in loaders:
                loader.close()

    def on_exception(self, exception: BaseException) -> None:
        self.teardown()


def _joined(sources: Sequence[Source]) -> Source:
    """Sources as one. Raises InputError where they have no records that stand one after another."""
    if len(sources) == 1:
        return sources[0]
    if any(isinstance(source, Documents) for source in sources):
        raise InputError("a list of data joins records, and a corpus is one text; put the texts into one folder")
    return Joined(tuple(sources))
