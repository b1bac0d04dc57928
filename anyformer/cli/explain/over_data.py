"""What each field is worth over records, and how far maps of their answers may be believed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from anyformer.data.source import Source
from anyformer.errors import InputError, say
from anyformer.explaining.deletion import Deletions, deletion, n_passes, over_records
from anyformer.explaining.explanation import plain
from anyformer.explaining.fields import Importance
from anyformer.explaining.relevance import MAPS, whole_maps
from anyformer.faults import writing
from anyformer.runs.experiment import config_of, parse
from anyformer.runs.predictions.opening import open_records, run_source
from anyformer.saving.run_folder import split_run
from anyformer.tasks.explain.explainer import Wanted

PARTS = {"train": "fit", "validation": "validate", "test": "test"}
"""By the part of a run's records the stage that has it."""
NUMBERS = "importance.json"


def explain_data(task: Any, own: Any, folder: Path) -> None:
    """Print the importance of each field over the records of --data, and write it into a folder."""
    if own.records < 1:
        raise InputError(f"--records must be at least 1, got {own.records}")
    source = _source(task, own)
    n = min(own.records, len(source))
    # Spread over all, as files are often sorted.
    numbers = np.unique(np.linspace(0, len(source) - 1, n).astype(int)).tolist()
    records = [{**source[i], **task.read_record(source, i)} for i in numbers]
    say(
        f"{len(records):,} of {len(source):,} records; of each 2^fields passes for what fields are worth, one for each "
        f"field from another record, 1 forward and 1 backward for a map, and {n_passes(len(MAPS))} to test it"
    )
    found = task.importance(records, target=own.target, seed=own.seed)
    tested = []
    for record in tqdm(records, file=sys.stderr, disable=None):
        question = task.question(record, Wanted(own.target))
        maps = whole_maps(question.asked, question.sample)
        if sum(len(each) for name, each in question.sample.items() if name not in question.asked.kept) > 1:
            tested.append(deletion(question.asked, question.sample, maps, own.seed))
    curves = over_records(tested) if tested else None
    print(table(found))
    if curves is not None:
        print(in_words(curves))
    numbers = {
        "records": len(records),
        "importance": [vars(each) for each in found],
        "deletion": None if curves is None else vars(curves),
    }
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with writing(folder / NUMBERS):
        (folder / NUMBERS).write_text(json.dumps(plain(numbers)))
    print(folder / NUMBERS)


def _source(task: Any, own: Any) -> Source:
    """The records of a part of the run, or at a path."""
    if len(own.data) > 1 or own.data[0] not in PARTS:
        needed = [*task.inputs] if len(task.inputs) == 1 else ()
        return open_records(own.data, task, run_source(own.run, task, own.unsafe_imports), needed)
    (part,) = own.data
    run, member = split_run(own.run)
    data = parse("validate", [config_of(run)], [], own.unsafe_imports, starts=False).datamodule
    data = data.parts[member] if member else data
    data.attach(task)
    data.setup(PARTS[part])
    return data.sources[part]


def table(found: list[Importance]) -> str:
    """
    >>> print(table([Importance("left", 9, 1.5, 0.25, 2.0, 0.5)]))
    field  records  Shapley value    permuted
    left         9  +1.500 ± 0.250   +2.000 ± 0.500
    """
    width = max(len("field"), *(len(each.name) for each in found))
    lines = [f"{'field':<{width}}  records  {'Shapley value':<15}  permuted"]
    for each in sorted(found, key=lambda each: -each.shapley):
        shapley = f"{each.shapley:+.3f} ± {each.shapley_error:.3f}"
        permuted = f"{each.permuted:+.3f} ± {each.permuted_error:.3f}"
        lines.append(f"{each.name:<{width}}  {each.n_records:>7,}  {shapley:<15}  {permuted}")
    return "\n".join(lines)


def in_words(curves: Deletions) -> str:
    """How much further answers fall by maps than at random, in words."""
    lines = []
    for name in MAPS:
        parts = zip(curves.shares, curves.mean[name], curves.error[name], strict=True)
        numbers = ", ".join(f"{mean:.3f} ± {error:.3f} at {share:.0%}" for share, mean, error in parts)
        better = "better than random" if curves.is_better(name) else "no better than random"
        lines.append(
            f"{name} is {better}: without the tokens that it points at answers fall further than without random ones, "
            f"by {numbers} ({curves.n_records:,} records)"
        )
    return "\n".join(lines)
