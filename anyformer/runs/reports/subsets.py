"""Metrics of subsets of the records or of their inputs, `fields.without` and `fields.by`: a table, and bars.

    subsets.csv    subsets.png

The validation's are those of the best model's step.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from anyformer.runs.metrics_file import FIRST, read_metrics, read_rows
from anyformer.saving.atomic import write_whole
from anyformer.text_tables import align

ALL = "all"
"""What the whole is called among the subsets."""
STAGES = {"val": "validation", "test": "test"}


class Name(NamedTuple):
    """What the name of a metric says."""

    stage: str
    """train, val or test; "" where the name has no stage."""
    subset: str
    """`all`, or what it is of: `without title`, `kind sum`."""
    metric: str
    """With the task and the target where there are several: `price/rmse`."""


def read_name(name: str, by: Collection[str] = ()) -> Name:
    """
    by: the columns that metrics are given by.

    >>> read_name("val/without_image+text/price/rmse")
    Name(stage='val', subset='without image+text', metric='price/rmse')
    >>> read_name("val/kind_sum/accuracy", by=["kind"])
    Name(stage='val', subset='kind sum', metric='accuracy')
    >>> read_name("train/loss")
    Name(stage='train', subset='all', metric='loss')
    """
    stage, slash, rest = name.partition("/")
    if not slash:
        return Name("", ALL, name)
    *parts, last = rest.split("/")
    kinds = ["without", *by]
    subset, others = [], []
    for part in parts:
        kind = next((kind for kind in kinds if part.startswith(f"{kind}_")), None)
        if kind is None:
            others.append(part)
        else:
            subset.append(f"{kind} {part.removeprefix(f'{kind}_')}")
    return Name(stage, ", ".join(subset) or ALL, "/".join([*others, last]))


Table = dict[str, dict[str, float]]
"""By subset the metrics."""


def tables_of(run: Path, by: Collection[str] = ()) -> dict[str, Table]:
    """The metrics of a run by stage (val, test) and subset, the whole first; stages without subsets are left out."""
    metrics = read_metrics(run)
    best = metrics.get("best/step")
    rows = [row for row in read_rows(run / "metrics.csv") if best is not None and row["step"] == str(best)]
    found = {name: float(text) for row in rows for name, text in row.items() if name.startswith("val/") and text}
    found |= {name: value for name, value in metrics.items() if name.startswith("test/") and value is not None}
    return subsets_in(found, by)


def subsets_in(metrics: Mapping[str, float], by: Collection[str]) -> dict[str, Table]:
    tables: dict[str, Table] = {}
    for full, value in metrics.items():
        if full not in FIRST:
            name = read_name(full, by)
            tables.setdefault(name.stage, {}).setdefault(name.subset, {})[name.metric] = value
    return {
        stage: {ALL: table.get(ALL, {}), **dict(sorted((s, own) for s, own in table.items() if s != ALL))}
        for stage, table in tables.items()
        if table.keys() - {ALL}
    }


def write_subsets(run: Path, by: Collection[str] = ()) -> None:
    """Write subsets.csv and subsets.png, where a run has such metrics."""
    tables = tables_of(run, by)
    if not tables:
        return
    metrics = _metrics(tables.values())
    file = io.StringIO(newline="")
    # What no subset has, as what is masked in the input that is left out, is in metrics.csv.
    writer = csv.DictWriter(file, ["stage", "subset", *metrics], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for stage, table in tables.items():
        writer.writerows({"stage": STAGES.get(stage, stage), "subset": subset, **own} for subset, own in table.items())
    write_whole(run / "subsets.csv", file.getvalue())
    _draw(tables, metrics, run / "subsets.png")


def show_subsets(table: Table) -> str:
    """A table for the terminal: a row a subset, a column a metric."""
    metrics = _metrics([table])
    rows = [["", *metrics]]
    rows += [
        [subset, *(f"{own[name]:.4f}" if name in own else "-" for name in metrics)] for subset, own in table.items()
    ]
    return "\n".join(align(rows))


def _metrics(tables: Iterable[Table]) -> list[str]:
    """Those that a subset has."""
    return sorted({name for table in tables for subset, own in table.items() if subset != ALL for name in own})


def _draw(tables: Mapping[str, Table], metrics: Sequence[str], path: Path) -> None:
    """One panel for each metric of each stage, a bar a subset, the value of the whole as a line across."""
    from matplotlib.figure import Figure

    panels = [
        (stage, metric) for stage in tables for metric in metrics if any(metric in o for o in tables[stage].values())
    ]
    subsets = max(map(len, tables.values()))
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    longest = max(len(subset) for table in tables.values() for subset in table)
    page = Figure(figsize=((3 + 0.08 * longest) * columns, (0.8 + 0.22 * subsets) * rows), layout="constrained")
    axes = list(page.subplots(rows, columns, squeeze=False).flat)
    for panel, (stage, metric) in zip(axes, panels, strict=False):
        values = {subset: own[metric] for subset, own in tables[stage].items() if metric in own}
        colors = ["C0" if subset == ALL else "C1" for subset in values]
        bars = panel.barh(range(len(values)), list(values.values()), color=colors)
        panel.bar_label(bars, fmt="%.3g", padding=2, fontsize=7)
        if ALL in values:
            panel.axvline(values[ALL], color="C0", linewidth=0.8)
        panel.set_yticks(range(len(values)), list(values), fontsize=7)
        panel.set_title(f"{STAGES.get(stage, stage)}: {metric}", fontsize=9)
        panel.invert_yaxis()
        panel.margins(x=0.15)
        panel.tick_params(axis="x", labelsize=7)
    for unused in axes[len(panels) :]:
        unused.set_axis_off()
    write_whole(path, lambda part: page.savefig(part, format="png", dpi=100))
