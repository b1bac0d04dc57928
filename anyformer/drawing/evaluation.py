"""Pictures of an evaluation for the run folder: who was taken for whom, how far numbers are off, what was filled in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from anyformer.saving.atomic import write_whole

MOST_NAMES = 100
"""Classes that are named at the sides of a confusion matrix."""


def draw_confusion(confusion: Tensor, classes: Sequence[str], path: Path) -> None:
    """Draw a confusion matrix. confusion: (classes, classes) counts, the true ones by row."""
    from matplotlib.figure import Figure

    n = len(classes)
    side = min(2.5 + 0.45 * n, 16)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    shares = confusion / confusion.sum(1, keepdim=True).clamp(min=1)
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    # Of thousands only some could be read, and each takes milliseconds.
    named = range(0, n, -(-n // MOST_NAMES))
    names = [classes[i] for i in named]
    axes.set(xlabel="predicted", ylabel="true", xticks=named, yticks=named)
    axes.set_xticklabels(names, rotation=90 if max(map(len, names)) > 2 else 0)
    axes.set_yticklabels(names)
    if n <= 30:
        for i, j in confusion.nonzero().tolist():
            color = "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, int(confusion[i, j]), ha="center", va="center", color=color)
    write_whole(path, lambda part: figure.savefig(part, dpi=100, format="png"))


def draw_reliability(bins: Tensor, error: float, path: Path) -> None:
    """Draw how often predictions are right over how probable they are said to be, and how many there are.

    bins: (3, bins) of each bin of probability how many, the sum of their probabilities, how many are right.
    error: the expected calibration error, for the title.
    """
    from matplotlib.figure import Figure

    n, probability, right = bins.numpy()
    width, seen = 1 / len(n), n > 0
    centers = (np.arange(len(n)) + 0.5) * width
    # Without a layout to be found, which takes as long as drawing: it is drawn after every run.
    figure = Figure(figsize=(4.5, 5.2))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    figure.subplots_adjust(left=0.16, right=0.97, bottom=0.1, top=0.93, hspace=0.06)
    upper.bar(centers[seen], right[seen] / n[seen], width * 0.95, color="C0", label="right")
    upper.plot(probability[seen] / n[seen], right[seen] / n[seen], "o", color="black", markersize=3)
    upper.plot([0, 1], [0, 1], color="C1", label="as said")
    upper.set(ylabel="share that is right", ylim=(0, 1), xlim=(0, 1), title=f"Expected calibration error {error:.4f}")
    upper.legend(loc="upper left")
    lower.bar(centers, n, width * 0.95, color="C7")
    lower.set(xlabel="probability of what is predicted", ylabel="predictions")
    write_whole(path, lambda part: figure.savefig(part, dpi=100, format="png"))


def draw_scatter(true: Tensor, said: Tensor, names: Sequence[str], path: Path) -> None:
    """Draw predicted over true numbers, a panel for each of n.

    true, said: (t, n); NaN is left out. names: of the numbers, "" for none.
    """
    from matplotlib.figure import Figure

    shown = min(len(names), 12)
    n_columns = min(shown, 4)
    n_rows = -(-shown // n_columns)
    figure = Figure(figsize=(3.4 * n_columns, 3.4 * n_rows), layout="constrained")
    panels = list(figure.subplots(n_rows, n_columns, squeeze=False).flat)
    for i, panel in enumerate(panels):
        if i >= shown:
            panel.set_axis_off()
            continue
        is_known = ~true[:, i].isnan()
        x, y = true[is_known, i].numpy(), said[is_known, i].numpy()
        panel.scatter(x, y, s=6, alpha=0.4, linewidths=0)
        if len(x):
            low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
            panel.plot([low, high], [low, high], color="black", linewidth=0.8)
        panel.set(xlabel="true", ylabel="predicted", title=names[i])
    write_whole(path, lambda part: figure.savefig(part, dpi=100, format="png"))


def draw_rows(rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str], path: Path) -> None:
    """Draw pictures side by side, one row a sample. rows: (rows, columns, 3) uint8 each, as many as titles."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2 * len(titles), 2 * len(rows)), layout="constrained")
    for line, panels in zip(rows, figure.subplots(len(rows), len(titles), squeeze=False), strict=True):
        for panel, picture in zip(panels, line, strict=True):
            panel.imshow(picture)
            panel.set(xticks=[], yticks=[])
    for panel, title in zip(figure.axes, titles, strict=False):
        panel.set_title(title)
    write_whole(path, lambda part: figure.savefig(part, dpi=100, format="png"))
