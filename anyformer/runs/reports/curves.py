"""The curves of a run, `curves.png`: a panel for each metric of each target and task, with a line for train, val and
test; the metrics of subsets are bars of their own, see `subsets.py`."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

from anyformer.runs.metrics_file import FIRST, read_rows
from anyformer.runs.reports.subsets import ALL, read_name
from anyformer.saving.atomic import write_whole

STAGES = ("train", "val", "test")
"""In the sequence of their colours, the same in every panel."""
WIDTH, HEIGHT, LEGEND = 4.0, 2.8, 0.5
"""Inches of a panel with what is around it, and of the line of the legend."""
MOST_COLUMNS = 4

Line = tuple[list[int], list[float]]
"""Steps and values."""


def draw_curves(run: Path, by: Collection[str] = ()) -> None:
    """Draw metrics.csv as curves.png. by: the columns that metrics are given by."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    panels = read_panels(run, by)
    if not panels:
        return
    columns = min(len(panels), 3 if len(panels) <= 9 else MOST_COLUMNS)
    rows = math.ceil(len(panels) / columns)
    # Margins in inches, as the layouts that find them take seconds for a hundred panels.
    width, height = WIDTH * columns, HEIGHT * rows + LEGEND
    page = Figure(figsize=(width, height))
    margins = {
        "left": 0.65 / width,
        "right": 1 - 0.15 / width,
        "bottom": 0.5 / height,
        "top": 1 - (LEGEND + 0.3) / height,
    }
    inner = {"wspace": 0.8 / (WIDTH - 0.8), "hspace": 0.8 / (HEIGHT - 0.8)}
    axes = list(page.subplots(rows, columns, squeeze=False, gridspec_kw=margins | inner).flat)
    colors, drawn = color_stages({stage for lines in panels.values() for stage in lines}), dict[str, Any]()
    for panel, (metric, lines) in zip(axes, panels.items(), strict=False):
        for stage in sorted(lines, key=list(colors).index):
            steps, values = lines[stage]
            marker = "." if len(steps) < 30 else None
            drawn[stage] = panel.plot(steps, values, color=colors[stage], marker=marker)[0]
        panel.set_title(metric, fontsize=10)
        panel.set_xlabel("step", fontsize=8)
        panel.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        panel.tick_params(labelsize=8)
        panel.grid(alpha=0.3)
    for unused in axes[len(panels) :]:
        unused.set_axis_off()
    named = [stage for stage in colors if stage in drawn and stage]
    if named:
        page.legend([drawn[stage] for stage in named], named, loc="upper center", ncols=len(named), fontsize="small")
    write_whole(run / "curves.png", lambda part: page.savefig(part, format="png", dpi=100))


def read_panels(run: Path, by: Collection[str] = ()) -> dict[str, dict[str, Line]]:
    """By metric, and then by stage, the steps and values of metrics.csv; the loss and what no target has come first."""
    panels: dict[str, dict[str, Line]] = {}
    for row in read_rows(run / "metrics.csv"):
        for full, text in row.items():
            name = read_name(full, by)
            if full not in FIRST and text and name.subset == ALL:
                steps, values = panels.setdefault(name.metric, {}).setdefault(name.stage, ([], []))
                steps.append(int(row["step"]))
                values.append(float(text))
    return dict(sorted(panels.items(), key=lambda item: (item[0] != "loss", item[0].count("/"), item[0])))


def color_stages(stages: Collection[str]) -> dict[str, Any]:
    """A colour for each, the same in every panel and none twice; those that only a user's own logging has come last."""
    from matplotlib import colormaps

    ordered = sorted(stages, key=lambda each: (STAGES.index(each) if each in STAGES else len(STAGES), each))
    if len(ordered) <= 10:
        return {stage: f"C{i}" for i, stage in enumerate(ordered)}
    return {stage: colormaps["turbo"](i / (len(ordered) - 1)) for i, stage in enumerate(ordered)}
