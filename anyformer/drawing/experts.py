"""How many of the tokens each expert was given, for the run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from anyformer.saving.atomic import write_whole

MOST_NUMBERED = 16
"""Experts of a layer up to which each share is written into its cell."""


def draw_experts(shares: Mapping[str, Tensor], path: Path) -> None:
    """Draw the share of the tokens of each layer that went to each expert, a row a layer, beside an even share.

    shares: by layer (n,), which add up to 1; layers may have unlike numbers of experts.
    """
    import numpy as np
    from matplotlib.figure import Figure

    most = max(map(len, shares.values()))
    times = np.full((len(shares), most), np.nan)
    for row, of_layer in zip(times, shares.values(), strict=True):
        # A layer of many experts has small shares, and is as even as one of few.
        row[: len(of_layer)] = len(of_layer) * of_layer.float().cpu().numpy()
    named = max(map(len, shares)) * 0.09
    width, height = 2.2 + named + 0.5 * min(most, 32), 1.4 + 0.4 * len(shares)
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(times, cmap="RdBu_r", vmin=0, vmax=2, aspect="auto")
    if most <= MOST_NUMBERED:
        for (i, j), value in np.ndenumerate(times):
            if not np.isnan(value):
                color = "white" if abs(value - 1) > 0.6 else "black"
                share = list(shares.values())[i][j].item()
                axes.text(j, i, f"{100 * share:.0f}", ha="center", va="center", color=color, fontsize=8)
    axes.set(xlabel="expert", yticks=range(len(shares)), title="Share of the tokens in %")
    axes.set_yticklabels(shares, fontsize=8)
    axes.xaxis.get_major_locator().set_params(integer=True)
    bar = figure.colorbar(image, ax=axes, ticks=[0, 1, 2])
    bar.ax.set_yticklabels(["none", "even", "2 x even"])
    write_whole(path, lambda part: figure.savefig(part, dpi=100, format="png"))
