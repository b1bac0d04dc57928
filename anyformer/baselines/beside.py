"""The best simple model in one line, beside a run: where it takes seconds; else the command that tells it."""

from __future__ import annotations

import time
from itertools import accumulate

from lightning import LightningDataModule

from anyformer.baselines.baseline import baseline
from anyformer.baselines.examples import dealt
from anyformer.baselines.features.table import features_of
from anyformer.baselines.models import MANY_CLASSES
from anyformer.baselines.report import show_best
from anyformer.data.source import join_files
from anyformer.errors import InputError
from anyformer.tasks.base.records import Records
from anyformer.tasks.base.task import Task
from anyformer.tokenizers.text.corpus import Documents

MOST_RECORDS = 2000
"""Of all parts together, up to which it takes seconds."""
MOST_CHARACTERS = 2_000_000
"""Of a text."""
N_TIMED, MOST_SECONDS = 10, 3.0
"""Records that are read to see how long all would take, and how long that may be."""


def ask(command: str) -> str:
    """How to find out what simple models reach."""
    return f"Simple models on the same records: {command}"


def best_beside(task: Task, data: LightningDataModule, command: str) -> str:
    """The best simple model of each target, chosen by the training records alone; or the command that tells it.

    task, data: of a run that is planned, or over. command: `anyformer baseline ...`, for these.
    """
    try:
        data.attach(task)
        parts = {name: (each, data.parts[name]) for name, each in task.members.items()} or {"": (task, data)}
        if not all(_is_quick(each, part) for each, part in parts.values()):
            return ask(command)
        report = baseline(task, data)
    except InputError:
        # What is wrong has been said by the run, or is said by the command.
        return ask(command)
    told = [
        f"{section.task and f'{section.task}: '}{best.target and f'{best.target}: '}{show_best(best)}"
        for section in report.sections
        for best in section.best()
        if section.lines
    ]
    return f"The best simple model on the same records: {'; '.join(told)} ({command})" if told else ask(command)


def _is_quick(task: Task, data: Records) -> bool:
    """Whether its records and classes are few, and soon read."""
    _, sources = next(dealt(data, None))
    n, train = sum(map(len, sources.values())), sources["train"]
    if isinstance(train, Documents):
        # Whose documents may be large; no more of them is looked at than tells.
        return all(total <= MOST_CHARACTERS for total in accumulate(len(text) for text, _ in train.blocks()))
    classes = [getattr(target, "classes", None) or () for target in getattr(task, "targets", {}).values()]
    if n > MOST_RECORDS or any(len(each) > MANY_CLASSES for each in classes):
        return False
    begin = time.perf_counter()
    some = range(min(N_TIMED, len(train)))
    for i in some:
        record = train[i]
        given = {name: record[name] for name in task.inputs if record.get(name) is not None}
        for name, value in join_files(given, train.folder_of(i), task.tokenizers).items():
            features_of(task.tokenizers[name]).read(value)
    return (time.perf_counter() - begin) / len(some) * n <= MOST_SECONDS
