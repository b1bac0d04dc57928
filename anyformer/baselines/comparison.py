"""Simple models of what a task predicts, on each of its fields and on all, over folds and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from anyformer.baselines.aims import Aim
from anyformer.baselines.blocks import Block, field_sets, side_by_side
from anyformer.baselines.examples import CALLED, PARTS, Examples, Reader, dealt
from anyformer.baselines.features.features import Matrix
from anyformer.baselines.models import MODELS, NAMES
from anyformer.baselines.report import Line, Outcome
from anyformer.runs.trials import Trial
from anyformer.tasks.base.records import Records
from anyformer.tasks.base.task import Task


def compare(
    task: Task,
    data: Records,
    aims: Mapping[str, Aim],
    metrics: Mapping[str, tuple[str, str]],
    reader: Reader,
    n_folds: int | None,
    seeds: Sequence[int],
) -> list[Line]:
    """The models of each target. Raises InputError, as a run would, for records that cannot be used.

    aims: by target, "" where it is the only one. metrics: of each the one that chooses.
    """
    lines: dict[tuple[str, str, str], Line] = {}
    for fold, sources in dealt(data, n_folds):
        task.check_inputs(sources["train"])
        parts = {
            name: reader.read(sources[name], CALLED.get(name, name)) for name in ("train", *PARTS) if name in sources
        }
        for name in task.inputs:
            sources["train"].require(name)
        for aim in aims.values():
            aim.fit(sources["train"])
        for fields, matrices in _matrices(task, parts):
            for target, aim in aims.items():
                for key, outcome in _outcomes(fields, matrices, parts, target, aim, metrics[target][0], fold, seeds):
                    lines.setdefault(key, Line(*key)).outcomes.append(outcome)
    return list(lines.values())


def _matrices(task: Task, parts: Mapping[str, Examples]):
    """Of each set of fields the columns of each part; of no field first."""
    yield "", {name: np.zeros((len(part), 0)) for name, part in parts.items()}
    blocks = {}
    for name in task.inputs:
        kept = parts["train"].fields[name]
        if any(each is not None for each in kept):
            block = Block(task.tokenizers[name], kept)
            blocks[name] = {part: block.matrix(examples.fields[name]) for part, examples in parts.items()}
    for names in field_sets(blocks):
        yield " + ".join(names), {part: side_by_side([blocks[name][part] for name in names]) for part in parts}


def _outcomes(
    fields: str,
    matrices: Mapping[str, Matrix],
    parts: Mapping[str, Examples],
    target: str,
    aim: Aim,
    metric: str,
    fold: int | None,
    seeds: Sequence[int],
):
    """The models of one target on one set of fields, for each seed: (target, fields, model), and what it came to."""
    values = {name: [aim.value(record) for record in part.records] for name, part in parts.items()}
    known = {name: np.array([each is not None for each in found], dtype=bool) for name, found in values.items()}
    values = {name: [each for each in found if each is not None] for name, found in values.items()}
    x, y = matrices["train"][known["train"]], aim.learned(values["train"])
    prefix = f"{target}/" if target else ""
    for name, fit in MODELS.items():
        if (name == "constant") != (not fields):
            continue
        for seed in seeds:
            fitted = fit(aim, x, y, seed)
            inner = aim.score(fitted.inner, [values["train"][i] for i in fitted.rows.tolist()])
            found = {}
            for part, called in PARTS.items():
                if part in parts and values[part]:
                    scores = aim.score(fitted.predict(matrices[part][known[part]]), values[part])
                    found |= {f"{called}/{prefix}{each}": value for each, value in scores.items()}
            yield (target, fields, NAMES[name][aim.kind]), Outcome(Trial(fold, seed), found, inner.get(metric))
