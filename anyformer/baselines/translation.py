"""Texts without a model: the source itself, and the target of the training record whose source is most like it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.sparse import issparse

from anyformer.baselines.aims import TextAim
from anyformer.baselines.blocks import Block
from anyformer.baselines.examples import CALLED, PARTS, Examples, Reader, dealt
from anyformer.baselines.features.features import Matrix
from anyformer.baselines.report import Line, Outcome
from anyformer.runs.trials import Trial
from anyformer.tasks.base.records import Records
from anyformer.tasks.base.task import Task
from anyformer.tokenizers.text.text import Text

MOST_PAIRS = 30_000
"""Records of a part at most, of texts alone."""
N_INNER = 500
"""Training records, of which each is answered by the others, to choose the better way."""


def text_lines(task: Task, data: Records, aim: TextAim, metric: str, reader: Reader, n_folds: int | None) -> list[Line]:
    """The ways of each input. metric: the one that chooses."""
    lines: dict[tuple[str, str], Line] = {}
    for fold, sources in dealt(data, n_folds):
        task.check_inputs(sources["train"])
        parts = {
            name: reader.read(sources[name], CALLED.get(name, name)) for name in ("train", *PARTS) if name in sources
        }
        for field in task.inputs:
            known = {name: _known(part, field, aim) for name, part in parts.items()}
            some = np.linspace(0, len(known["train"]) - 1, min(N_INNER, len(known["train"]))).astype(int).tolist()
            for way, said in _ways(task, field, known, some).items():
                truth = {name: [aim.value(record) for record in part.records] for name, part in known.items()}
                inner = aim.rate(said["inner"], [truth["train"][i] for i in some])
                found = {
                    f"{called}/{each}": value
                    for part, called in PARTS.items()
                    if part in known and len(known[part])
                    for each, value in aim.rate(said[part], truth[part]).items()
                }
                line = lines.setdefault((field, way), Line("", field, way))
                line.outcomes.append(Outcome(Trial(fold, 0), found, inner[metric]))
    return list(lines.values())


def _known(part: Examples, field: str, aim: TextAim) -> Examples:
    """Those that have both the field and a text."""
    pairs = zip(part.fields[field], part.records, strict=True)
    return part.where([kept is not None and aim.value(record) is not None for kept, record in pairs])


def _ways(
    task: Task, field: str, parts: Mapping[str, Examples], some: Sequence[int]
) -> dict[str, dict[str, list[str]]]:
    """What each way says of the records of each part, and of some training records, "inner"."""
    train = parts["train"]
    block = Block(task.tokenizers[field], train.fields[field])
    matrix = block.matrix(train.fields[field])
    targets = [record[task.target].strip() for record in train.records]
    nearest = {"inner": [targets[i] for i in _nearest(matrix[some], matrix, some)]}
    for name, part in parts.items():
        if name != "train":
            nearest[name] = [targets[i] for i in _nearest(block.matrix(part.fields[field]), matrix)]
    ways = {"target of the nearest training source": nearest}
    if isinstance(task.tokenizers[field], Text):
        own = [train.fields[field][i] for i in some]
        copied = {"inner": own} | {name: part.fields[field] for name, part in parts.items()}
        ways = {"copy of the source": copied} | ways
    return ways


def _nearest(queries: Matrix, keys: Matrix, own: Sequence[int] | None = None) -> list[int]:
    """The key at the least distance of each query. own: of each query the key that is itself."""
    found: list[int] = []
    squares = np.asarray((keys.multiply(keys) if issparse(keys) else keys * keys).sum(1)).ravel()
    for start in range(0, queries.shape[0], 256):
        products = queries[start : start + 256] @ keys.T
        likeness = (products.toarray() if issparse(products) else products) - squares / 2
        if own is not None:
            likeness[np.arange(len(likeness)), own[start : start + 256]] = -np.inf
        found += likeness.argmax(1).tolist()
    return found
