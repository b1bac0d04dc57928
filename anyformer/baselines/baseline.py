"""Simple models on the same records as a run, to stand beside what it reaches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lightning import LightningDataModule

from anyformer.baselines.aims import Aim, TextAim, aim_of
from anyformer.baselines.comparison import compare
from anyformer.baselines.examples import MOST_RECORDS, PARTS, Reader, dealt
from anyformer.baselines.language import masked_lines, ngram_lines
from anyformer.baselines.policies import policy_lines
from anyformer.baselines.report import Line, Report, Section
from anyformer.baselines.translation import MOST_PAIRS, text_lines
from anyformer.errors import InputError
from anyformer.tasks.base.records import Records
from anyformer.tasks.base.task import Task
from anyformer.tasks.decide.decide import Decide
from anyformer.tasks.language.chat import ChatModel
from anyformer.tasks.language.language import LanguageModel
from anyformer.tasks.predict.predict import Predict
from anyformer.tasks.sequence.sequence import SequenceToSequence
from anyformer.tokenizers.text.text import Text


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
    found = _found(task, data, n_folds, seeds, limit)
    reads = ", ".join(task.inputs)
    title = f"{name}: " if name else ""
    title += type(task).__name__ + (f", {reads} -> {', '.join(task.predicted)}" if task.predicted else "")
    title += "; " + ", ".join(f"{len(source):,} {part}" for part, source in data.sources.items()) + " records"
    return Section(name, title, found.lines, found.metrics, found.notes)


class _Found(NamedTuple):
    lines: list[Line]
    metrics: dict[str, tuple[str, str]]
    """By target the metric that chooses, and whether max or min is best."""
    notes: list[str]


def _found(task: Task, data: Records, n_folds: int | None, seeds: Sequence[int], limit: int) -> _Found:
    if isinstance(task, ChatModel):
        return _Found([], {}, ["ChatModel has no baseline"])
    if isinstance(task, LanguageModel | Decide):
        if n_folds is not None and isinstance(task, LanguageModel):
            raise InputError("--folds deals records out, and a corpus is one text; leave it out")
        _, sources = next(dealt(data, n_folds))
        if isinstance(task, Decide):
            lines, notes = policy_lines(task, sources, PARTS)
            return _Found(lines, {"": ("return", "max")}, notes)
        task.fit_tokenizers(sources["train"])
        lines, notes = (ngram_lines if task.masking is None else masked_lines)(task, sources, PARTS)
        return _Found(lines, {"": ("loss", "min")}, notes)
    aims, notes = _aims(task)
    if not aims:
        return _Found([], {}, notes)
    _, sources = next(dealt(data, n_folds))
    obstacles = {target: why for target, aim in aims.items() if (why := aim.obstacle(sources["train"])) is not None}
    metrics = {target: _choosing(task, target, aim) for target, aim in aims.items()}
    reader = _reader(task, data, limit)
    if isinstance(task, SequenceToSequence) and obstacles:
        if all(isinstance(task.tokenizers[each], Text) for each in task.inputs):
            reader.limit = max(limit, MOST_PAIRS)
        lines = text_lines(task, data, aims[""], metrics[""][0], reader, n_folds)
        return _Found(lines, metrics, reader.notes)
    notes += [f"no baseline: {why}" for why in obstacles.values()]
    aims = {target: aim for target, aim in aims.items() if target not in obstacles}
    metrics = {target: metrics[target] for target in aims}
    lines = compare(task, data, aims, metrics, reader, n_folds, seeds) if aims else []
    return _Found(lines, metrics, [*notes, *reader.notes])


def _reader(task: Task, data: Records, limit: int) -> Reader:
    tokenizers = {name: task.tokenizers[name] for name in task.inputs}
    return Reader(tokenizers, task.predicted, data.on_bad_sample == "skip", limit)


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
