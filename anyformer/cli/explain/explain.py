"""`anyformer explain`: why the best model of a run answers as it does, as a page; or what fields are worth over a data
set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from anyformer.cli.explain.over_data import explain_data
from anyformer.cli.records import find_records, read_fields
from anyformer.errors import InputError, say
from anyformer.explaining.explanation import Explanation, check_place
from anyformer.explaining.page import write_page
from anyformer.front.parsers import explain_parser, require_first
from anyformer.saving.model_folder import load
from anyformer.saving.run_folder import split_run
from anyformer.tasks.explain.explainer import Wanted

FOLDER = "explain"
"""Of a run's folder, where nothing else is said."""


def explain_command(args: list[str]) -> None:
    parser = explain_parser()
    require_first("run's folder", "explain RUN", args)
    own = parser.parse_intermixed_args(args)
    if bool(own.fields) == bool(own.data):
        raise InputError("give the record as FIELD=VALUE, or many with --data validation; one of the two")
    task = load(own.run, unsafe_imports=own.unsafe_imports, base=own.base)
    folder = Path(own.output) if own.output is not None else split_run(own.run)[0] / FOLDER
    if own.data:
        for option in ("answer", "rather_than", "head"):
            if getattr(own, option) is not None:
                raise InputError(f"--{option} is of one record; with --data the true values are the answers")
        explain_data(task, own, folder)
        return
    if own.cross and task.model.encoder is None:
        raise InputError("--cross: the model has no cross-attention, as it has no encoder; leave it out")
    stack = task.model.transformer.config
    check_place(own.layer, own.head, stack.depth, stack.n_heads)
    wanted = Wanted(own.target, own.answer, own.rather_than)
    question = task.ask(_record(task, own.fields, own.run), wanted)
    cost = question.passes
    say("passes of the model: " + "; ".join(f"{name} {n}" for name, n in cost.items()))
    explanation = task.explain_question(question, own.seed)
    grid = explanation.grid(own.layer, own.head, "cross" if own.cross else "self")
    page = write_page(explanation, folder, grid, cost)
    print(summary(explanation))
    print(page)


def _record(task: Any, fields: list[str], run: str) -> dict[str, Any]:
    """The one record that FIELD=VALUE stands for."""
    records, many = find_records(read_fields(fields, task, run), task.tokenizers)
    if len(records) > 1:
        raise InputError(f"field {many!r}: {len(records)} records; explain takes one, or many with --data")
    return records[0]


def summary(explanation: Explanation) -> str:
    """The answer, what fields add to it, and how far the maps may be believed, for the terminal."""
    unit = f" {explanation.unit}" if explanation.unit else ""
    lines = [f"{explanation.answer}: {explanation.what}, {explanation.value:.3f}{unit}"]
    if explanation.fields is not None:
        names, found = explanation.fields.names, explanation.fields.shapley
        width = max(map(len, names))
        errors = [""] * len(names) if found.errors is None else [f" ± {error:.3f}" for error in found.errors]
        lines += [
            f"{name:<{width}}  {value:+.3f}{error}{unit}"
            for name, value, error in zip(names, found.values, errors, strict=True)
        ]
    if explanation.deletion is not None:
        lines += [
            f"{name} is {explanation.deletion.verdict(name, explanation.unit)}" for name in explanation.deletion.by_map
        ]
    return "\n".join(lines)
