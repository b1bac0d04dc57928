"""Simple models on the same records as a run, to stand beside what it reaches."""

from __future__ import annotations

from collections.abc import Sequence

from lightning import LightningDataModule

from anyformer.baselines.aims import Aim, TextAim, aim_of
from anyformer.baselines.comparison import compare
from anyformer.baselines.examples import MOST_RECORDS, Reader
from anyformer.baselines.report import Report, Section
from anyformer.errors import InputError
from anyformer.tasks.base.records import Records
from anyformer.tasks.base.task import Task
from anyformer.tasks.predict.predict import Predict
from anyformer.tasks.sequence.sequence import SequenceToSequence


def baseline(
    task: Task,
    data: LightningDataModule,
    *,
    n_folds: int | None = None,
    n_seeds: int = 1,
    first_seed: int = 0,
    limit: int = MOST_RECORDS,
) -> Report:
    """What simple models reach at what a task learns, on the records of a run.

    task, data: as for `fit`; what the data decides is learned here. n_folds: dealt as `fit --folds` does.
    limit: records of a part at most. Raises InputError, as a run would, for records that cannot be used.
    """
    seeds = range(first_seed, first_seed + n_seeds)
    data.attach(task)
    members = {name: (each, data.parts[name]) for name, each in task.members.items()} or {"": (task, data)}
    return Report([_section(name, each, part, n_folds, seeds, limit) for name, (each, part) in members.items()])


def _section(name: str, task: Task, data: Records, n_folds: int | None, seeds: Sequence[int], limit: int) -> Section:
    aims, notes = _aims(task)
    reader = Reader(
        {each: task.tokenizers[each] for each in task.inputs}, task.predicted, data.on_bad_sample == "skip", limit
    )
    metrics = {target: _choosing(task, target, aim) for target, aim in aims.items()}
    lines = compare(task, data, aims, metrics, reader, n_folds, seeds) if aims else []
    n_records = ", ".join(f"{len(source):,} {part}" for part, source in data.sources.items())
    title = f"{name}: " if name else ""
    title += f"{type(task).__name__}, {', '.join(task.inputs)} -> {', '.join(task.predicted)}; records: {n_records}"
    return Section(name, title, lines, metrics, [*notes, *reader.notes])


def _aims(task: Task) -> tuple[dict[str, Aim], list[str]]:
    """What is predicted, by target ("" for the only one), and what is said of the targets that nothing simple does."""
    if isinstance(task, SequenceToSequence):
        chosen = task.metric[0].removeprefix("val/")
        names = sorted((name for name in task.metrics if name != "loss"), key=lambda name: name != chosen)
        language = task.language if "bleu_moses" in names else None
        return {"": TextAim(task.target, task.text, names, language)}, []
    if not isinstance(task, Predict):
        return {}, [f"{type(task).__name__} has no baseline"]
    found = {name: aim_of(name, target) for name, target in task.targets.items()}
    notes = [
        f"the target {name!r}, {type(task.targets[name]).__name__}, has no baseline"
        for name, aim in found.items()
        if aim is None
    ]
    return {name if len(task.targets) > 1 else "": aim for name, aim in found.items() if aim is not None}, notes


def _choosing(task: Task, target: str, aim: Aim) -> tuple[str, str]:
    """The metric that chooses the best model, where it is of this target and no loss; else the usual one of it."""
    owner, _, name = task.metric[0].removeprefix("val/").rpartition("/")
    if owner != target or name == "loss" or name not in aim.metrics:
        name = next(each for each in aim.metrics if each != "loss")
    return name, aim.metrics[name].best
