"""The data module of every task: sources of records, their splits, and loaders of batches as the task chops them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from lightning import LightningDataModule

from anyformer.corpus import Corpus, Documents
from anyformer.data import Source, split
from anyformer.errors import InputError
from anyformer.folders import Folders, open_source
from anyformer.loading import Loader, Samples, plan_batches
from anyformer.tables import Table


class Records(LightningDataModule):
    """Training, validation and test records, and batches of them.

    Each of the three is a source of its own, or a path: of class folders, or of a table. A path is read like `train`
    (same columns, same endings, same rule for the root) where that is a source of the same kind. Validation and test
    may also be a fraction of train: test is taken first, so that it never depends on validation, and both count from
    the whole. Of a text, test is its end and validation what stands before that.

    Args:
        train: Records to learn from, or the path of class folders or a table.
        validation: Records that choose the best model; a fraction is taken out of train.
        test: Records that say how good it is; a fraction is taken out of train.
        stratify: Column of which every part gets each value in proportion, where fractions are taken.
        split_seed: Decides which records the fractions take.
        batch_size: Samples of a batch, at most. 64 where max_tokens is not given.
        max_tokens: Tokens of a batch, at most, padding included: samples of like length come together.
        pack: Put several samples into a row as long as the longest sample, and rows into batches of max_tokens.
        n_workers: Processes that read and chop; 0 does it in the training process. Changes no result.
        on_bad_sample: Whether a record that cannot be used stops the run, or is left out, counted and reported.
        seed: Decides the order of samples and their augmentation.

    Raises InputError, here or in `setup`, for values that contradict each other and for records that are not there.
    """

    def __init__(
        self,
        train: Source | str,
        validation: Source | float | str | None = None,
        test: Source | float | str | None = None,
        *,
        stratify: str | None = None,
        split_seed: int = 0,
        batch_size: int | None = None,
        max_tokens: int | None = None,
        pack: bool = False,
        n_workers: int = 0,
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
        ):
            if value is not None and value < least:
                raise InputError(f"data.{name} must be at least {least}, got {value}")
        if pack and max_tokens is None:
            raise InputError("data.pack fills rows up to data.max_tokens; give that too")
        if pack and batch_size is not None:
            raise InputError("data.pack fills batches by data.max_tokens alone; leave data.batch_size out")
        if on_bad_sample not in ("fail", "skip"):
            raise InputError(f"data.on_bad_sample must be fail or skip, got {on_bad_sample!r}")
        self.given = {"train": train, "validation": validation, "test": test}
        self.stratify, self.split_seed = stratify, split_seed
        self.batch_size = 64 if batch_size is None and max_tokens is None else batch_size
        self.max_tokens, self.pack = max_tokens, pack
        self.n_workers, self.on_bad_sample, self.seed = n_workers, on_bad_sample, seed
        self.open: Callable[[str], Source] = open_source
        """What a path means where no trainer has a task that says it."""
        self.sources: dict[str, Source] = {}
        self._loaders: dict[str, Loader] = {}
        self._lengths: dict[str, list[int] | list[tuple[int, int]]] = {}

    def setup(self, stage: str | None = None) -> None:
        """Fill `sources` with what the stage needs: all for fit, else one, so that files of others may be missing."""
        wanted = {"validate": ["validation"], "test": ["test"]}.get(stage or "fit", list(self.given))
        fractions = {
            name: float(self.given[name])  # type: ignore[arg-type]
            for name in ("test", "validation")
            if isinstance(self.given[name], (int, float))
        }
        sources = {name: self._source(name) for name in wanted if name not in fractions}
        if fractions and ("train" in wanted or fractions.keys() & set(wanted)):
            train = self._source("train")
            if isinstance(train, Documents):
                if self.stratify is not None:
                    raise InputError("data.stratify goes by a column, and a corpus has none; leave it out")
                left, parts = train.divide(fractions)
            else:
                left, parts = split(train, fractions, self.split_seed, self.stratify)
            sources |= {name: source for name, source in {"train": left, **parts}.items() if name in wanted}
        for name in wanted:
            if (source := sources.get(name)) is not None:
                if len(source) == 0:
                    raise InputError(f"data.{name} has no records")
                self.sources[name] = source
        if stage in ("validate", "test") and wanted[0] not in self.sources:
            raise InputError(f"there are no {wanted[0]} records: give data.{wanted[0]} a source, a path or a fraction")
        if stage == "fit" and "validation" not in self.sources and self.trainer is not None:
            # Lightning warns of an empty list of loaders, and has no other way to say that there is none.
            self.trainer.limit_val_batches = 0

    def _source(self, name: str) -> Source | None:
        given = self.given[name]
        if not isinstance(given, str):
            return given  # type: ignore[return-value]
        train = self.given["train"]
        if isinstance(train, Corpus):
            return replace(train, path=given, part=(0.0, 1.0))
        source = (self.open if self.trainer is None else self.trainer.lightning_module.open)(given)
        if isinstance(train, Table) and isinstance(source, Table):
            return replace(train, path=given, rows=None)
        return replace(train, path=given) if isinstance(train, Folders) and isinstance(source, Folders) else source

    def train_dataloader(self) -> Loader:
        return self._loader("train")

    def val_dataloader(self) -> Loader:
        return self._loader("validation")

    def test_dataloader(self) -> Loader:
        return self._loader("test")

    def _loader(self, name: str) -> Loader:
        """A loader of one of the sources, for the trainer's processes and at the trainer's epoch."""
        trainer, training = self.trainer, name == "train"
        task = trainer.lightning_module
        source, chopper = task.view(self.sources[name], training), task.chopper(training)
        samples = Samples(source, chopper, training, self.seed, self.on_bad_sample)
        if self.max_tokens is not None and name not in self._lengths:
            self._lengths[name] = samples.lengths()
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
        if name in self._loaders:
            self._loaders[name].close()
        self._loaders[name] = Loader(
            samples,
            plan,
            n_workers=self.n_workers,
            pin_memory=trainer.strategy.root_device.type == "cuda",
            # Where a run goes on between two epochs no place is loaded, but the trainer knows how many are behind it.
            ask_epoch=(lambda: trainer.fit_loop.epoch_progress.current.processed) if training else None,
        )
        return self._loaders[name]

    def teardown(self, stage: str | None = None) -> None:
        """End the workers."""
        for loader in self._loaders.values():
            loader.close()

    def on_exception(self, exception: BaseException) -> None:
        self.teardown()
