"""What simple models came to: a table, plain values, and the best of them in a line."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from anyformer.runs.trials import Trial, mean, standard_error
from anyformer.text_tables import align

SHOWN = ("val/", "test/")


class Outcome(NamedTuple):
    """One model in one trial."""

    trial: Trial
    metrics: Mapping[str, float]
    """By name, as the run's own: val/accuracy, test/accuracy."""
    inner: float | None = None
    """The metric that chooses, on training records that the model did not learn from."""


@dataclass
class Line:
    """One model on some fields."""

    target: str
    """What is predicted, where a task has several targets; else ""."""
    fields: str
    """The fields that it reads, "" for none."""
    model: str
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.model} on {self.fields}" if self.fields else self.model


@dataclass
class Best:
    """Of each trial the model that the training records chose."""

    target: str
    metric: str
    """Which chooses: accuracy, with the target before it where there are several."""
    names: list[str]
    """Of the models, most often chosen first."""
    outcomes: list[Outcome]

    @property
    def is_chosen(self) -> bool:
        """Whether training records chose it."""
        return any(outcome.inner is not None for outcome in self.outcomes)


@dataclass
class Section:
    """The baselines of one task."""

    task: str
    """Its name in a mixture; "" of the only one."""
    title: str
    lines: list[Line]
    metrics: dict[str, tuple[str, str]]
    """By target the metric that chooses, and whether max or min is best."""
    notes: list[str]

    def best(self) -> list[Best]:
        """Of each target the best by the training records alone, chosen in each trial anew.

        Where none was tried on training records, as what episodes came to is not, it is the first.
        """
        found = []
        for target, (metric, mode) in self.metrics.items():
            lines = [line for line in self.lines if line.target == target and line.outcomes]
            if not lines:
                continue
            sign = 1 if mode == "max" else -1

            def worth(outcome: Outcome, sign: int = sign) -> float:
                return -math.inf if outcome.inner is None or math.isnan(outcome.inner) else sign * outcome.inner

            names, outcomes = Counter[str](), []
            for number in range(len(lines[0].outcomes)):
                line = max(lines, key=lambda line, number=number: worth(line.outcomes[number]))
                names[line.name] += 1
                outcomes.append(line.outcomes[number])
            found.append(Best(target, metric, [name for name, _ in names.most_common()], outcomes))
        return found


@dataclass
class Report:
    """What `anyformer baseline` prints."""

    sections: list[Section]

    def __str__(self) -> str:
        return "\n\n".join(map(_show, self.sections))

    def plain(self) -> dict[str, Any]:
        """Plain values: of each task the lines with their means, standard errors and values by fold or seed."""
        return {
            section.task: {
                "baselines": [
                    {"target": line.target, "fields": line.fields, "model": line.model, **_plain(line.outcomes)}
                    for line in section.lines
                ],
                "best": [
                    {"target": best.target, "metric": best.metric, "models": best.names, **_plain(best.outcomes)}
                    for best in section.best()
                ],
                "notes": section.notes,
            }
            for section in self.sections
        }


def by_unit(outcomes: Sequence[Outcome], name: str) -> dict[str, float]:
    """A metric of each fold, the mean over its seeds; or of each seed."""
    units: dict[str, list[float]] = {}
    for outcome in outcomes:
        units.setdefault(outcome.trial.unit, []).append(outcome.metrics[name])
    return {unit: mean(values) for unit, values in units.items()}


def _plain(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    units = {name: by_unit(outcomes, name) for name in (outcomes[0].metrics if outcomes else ())}
    finite = {
        name: {unit: value if math.isfinite(value) else None for unit, value in of.items()}
        for name, of in units.items()
    }
    return {
        "mean": {name: mean(list(of.values())) for name, of in finite.items()},
        "standard_error": {name: standard_error(list(of.values())) for name, of in finite.items()},
        "values": finite,
    }


def spell(outcomes: Sequence[Outcome], name: str) -> str:
    """A metric with its standard error, where there are several folds or seeds."""
    values = list(by_unit(outcomes, name).values())
    error = standard_error(values)
    return f"{mean(values):.4f}" + (f" ±{error:.4f}" if error is not None else "")


def _show(section: Section) -> str:
    blocks = [section.title]
    names = list(dict.fromkeys(name for line in section.lines for each in line.outcomes for name in each.metrics))
    if section.lines:
        has_targets = any(line.target for line in section.lines)
        head = [*(["target"] if has_targets else []), "reads", "model", *names]
        rows = [head]
        for line in section.lines:
            own = line.outcomes[0].metrics if line.outcomes else {}
            cells = [spell(line.outcomes, name) if name in own else "" for name in names]
            rows.append([*([line.target] if has_targets else []), line.fields or "-", line.model, *cells])
        blocks += align(rows, n_words=len(head) - len(names))
    blocks += [f"Best by the training records alone: {show_best(each)}" for each in section.best() if each.is_chosen]
    blocks += ["\n".join(f"- {note}" for note in section.notes)] if section.notes else []
    return "\n".join(blocks)


def show_best(best: Best) -> str:
    """The model with its metric: `random forest on smiles, val/auroc 0.9795`."""
    called = best.metric.rpartition("/")[2]
    prefix = f"{best.target}/" if best.target else ""
    names = [f"{part}{prefix}{called}" for part in SHOWN if f"{part}{prefix}{called}" in best.outcomes[0].metrics]
    others = f" (or {', '.join(best.names[1:])}, by fold)" if len(best.names) > 1 else ""
    return f"{best.names[0]}{others}, {', '.join(f'{name} {spell(best.outcomes, name)}' for name in names)}"
