"""Draws who sees whom in a model: field by field, and token by token in one sample."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from anyformer.batch import Batch, Layout
from anyformer.model.anyformer import Anyformer
from anyformer.model.attention.visibility import visible, visible_memory
from anyformer.model.learned_tokens import LearnedTokens

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

UNSEEN_COLOR = "#f2f2f2"
LINES = 60
"""Tokens up to which a grid is drawn between them."""


def has_sights(model: Anyformer) -> bool:
    """Whether there is more to see than that everything sees everything: several fields of data, or a `sees`."""
    data = [name for name, tokenizer in model.tokenizers.items() if not isinstance(tokenizer, LearnedTokens)]
    return len(data) > 1 or model.sees is not None


def sight(model: Anyformer, batch: Batch, conditions: Batch | None = None) -> tuple[Tensor, Tensor]:
    """Which tokens of a batch of one sample see which in some layer: (n, n) boolean, and the field of each, (n,) int64.

    conditions: what the encoder reads, where there is one; these tokens come first, and those of the batch look at them
        by cross-attention.
    """
    parts = [batch] if conditions is None else [conditions, batch]
    stacks = [model.transformer] if conditions is None else [model.encoder, model.transformer]
    layouts = [Layout(*(tensor.cpu() for tensor in part.layout)) for part in parts]
    sees = None if model.sees is None else model.sees.cpu()
    sizes = [part.shape[1] for part in parts]
    seen = torch.zeros(sum(sizes), sum(sizes), dtype=torch.bool)
    start = 0
    for stack, part, layout in zip(stacks, parts, layouts, strict=True):
        own = slice(start, start + part.shape[1])
        relation = None if part.relation is None else part.relation.cpu()
        for pattern in stack.patterns:
            seen[own, own] |= visible(layout, layout, sees, relation, pattern)[0]
        start = own.stop
    if conditions is not None:
        seen[sizes[0] :, : sizes[0]] = visible_memory(layouts[1], layouts[0], sees)[0]
    return seen, torch.cat([layout.field[0] for layout in layouts])


def draw_sight(model: Anyformer, batch: Batch, conditions: Batch | None = None) -> Figure:
    """Two pictures side by side, a row for what looks and a column for what is looked at, in the field's colour.

    Left the fields, by what the model allows whatever the order; right the tokens of the one sample of the batch, by
    the real rule.
    """
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

    names = list(model.tokenizers)
    palette = [colormaps["tab10"](i % 10) for i in range(len(names))]
    colors = ListedColormap([UNSEEN_COLOR, *palette])
    by_field = torch.ones(len(names), len(names), dtype=torch.bool) if model.sees is None else model.sees.cpu()
    seen, field = sight(model, batch, conditions)
    side = max(2.6, 0.35 * len(names) + 1.2)
    figure = Figure(figsize=(side + 6.5, max(side, 6.0)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[side, 6.0])
    for axes, mask, fields, title in (
        (left, by_field, torch.arange(len(names)), "fields"),
        (right, seen, field, f"one sample of {len(field)} tokens"),
    ):
        # A cell has the colour of what is looked at.
        shown = torch.where(mask, fields[None, :] + 1, 0)
        axes.imshow(shown.numpy(), cmap=colors, vmin=0, vmax=len(names), interpolation="nearest")
        _mark(axes, [names[i] for i in fields.tolist()])
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("may be looked at", fontsize=8)
    return figure


def _mark(axes: Axes, names: Sequence[str]) -> None:
    """Name the fields at both sides, once for each run of tokens, with lines between single tokens where few are."""
    n, start, middles, words = len(names), 0, [], []
    for name, run in groupby(names):
        length = len(list(run))
        middles.append(start + (length - 1) / 2)
        words.append(name)
        start += length
    many = len(words) > 40
    axes.set_xticks([] if many else middles, [] if many else words, rotation=90, fontsize=8)
    axes.set_yticks([] if many else middles, [] if many else words, fontsize=8)
    axes.tick_params(which="both", length=0)
    if n <= LINES:
        axes.set_xticks(np.arange(n + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(n + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=1.0)
    for spine in axes.spines.values():
        spine.set_visible(False)
