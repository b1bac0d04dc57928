"""Texts from texts without a model: the source itself, and the target of the training source that is most like it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.sparse import csr_matrix

from anyformer.baselines.aims import TextAim
from anyformer.baselines.examples import CALLED, PARTS, Examples, Reader, dealt
from anyformer.baselines.features.ngrams import TextNgrams
from anyformer.baselines.report import Line, Outcome
from anyformer.runs.trials import Trial
from anyformer.tasks.base.records import Records
from anyformer.tasks.base.task import Task

MOST_PAIRS = 30_000
"""Records of a part at most."""
N_INNER = 500
"""Training records, of which each is answered by the others, to choose the better way."""


def text_lines(
    task: Task, data: Records, aim: TextAim, fields: Sequence[str], metric: str, reader: Reader, n_folds: int | None
) -> list[Line]:
    """Both ways, for each input that is a text. metric: the one that chooses."""
    lines: dict[tuple[str, str], Line] = {}
    for fold, sources in dealt(data, n_folds):
        task.check_inputs(sources["train"])
        parts = {
            name: reader.read(sources[name], CALLED.get(name, name)) for name in ("train", *PARTS) if name in sources
        }
        for field in fields:
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
    """Those that have both texts."""
    pairs = zip(part.fields[field], part.records, strict=True)
    return part.where([kept is not None and aim.value(record) is not None for kept, record in pairs])


def _ways(
    task: Task, field: str, parts: Mapping[str, Examples], some: Sequence[int]
) -> dict[str, dict[str, list[str]]]:
    """What each way says of the records of each part, and of some training records, "inner"."""
    train = parts["train"]
    ngrams = TextNgrams(task.tokenizers[field])
    ngrams.fit(train.fields[field])
    matrix = ngrams.transform(train.fields[field])
    targets = [record[task.target].strip() for record in train.records]
    own = [train.fields[field][i] for i in some]
    copied = {"inner": own} | {name: part.fields[field] for name, part in parts.items()}
    nearest = {"inner": [targets[i] for i in _nearest(matrix[some], matrix, some)]}
    for name, part in parts.items():
        if name != "train":
            nearest[name] = [targets[i] for i in _nearest(ngrams.transform(part.fields[field]), matrix)]
    return {"copy of the source": copied, "target of the nearest training source": nearest}


def _nearest(queries: csr_matrix, keys: csr_matrix, own: Sequence[int] | None = None) -> list[int]:
    """The key of the greatest product with each query. own: of each query the key that is itself."""
    found: list[int] = []
    for start in range(0, queries.shape[0], 256):
        likeness = (queries[start : start + 256] @ keys.T).toarray()
        if own is not None:
            likeness[np.arange(len(likeness)), own[start : start + 256]] = -1
        found += likeness.argmax(1).tolist()
    return found
