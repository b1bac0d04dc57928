"""Draws who sees whom in a model: field by field, and token by token in one sample."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from anyformer.batch import Batch
from anyformer.model.anyformer import Anyformer
from anyformer.model.attention.compression.linformer import Projected
from anyformer.model.attention.compression.strided import Windows
from anyformer.model.attention.places import places_of
from anyformer.model.attention.visibility import RULE, Pattern, View, visible_memory
from anyformer.model.learned_tokens import LearnedTokens
from anyformer.model.transformer import Transformer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

UNSEEN_COLOR = "#f2f2f2"
LINES = 60
"""Tokens up to which a grid is drawn between them."""
A_LINE = 3
"""Pictures of layers beside each other."""


def has_sights(model: Anyformer) -> bool:
    """Whether there is more to see than that everything sees everything: several fields of data, a `sees`, patterns,
    attention along edges."""
    data = [name for name, tokenizer in model.tokenizers.items() if not isinstance(tokenizer, LearnedTokens)]
    has_patterns = any(stack.patterns not in ((), (RULE,)) for stack in _stacks(model))
    return len(data) > 1 or model.sees is not None or model.edges_only is not None or has_patterns


def _stacks(model: Anyformer) -> list[Transformer]:
    """In the sequence in which they read."""
    return [stack for stack in (model.encoder, model.transformer) if stack is not None]


def sight(model: Anyformer, batch: Batch, conditions: Batch | None = None, layer: int = 0) -> tuple[Tensor, Tensor]:
    """Which tokens of a batch of one sample see which in a layer: (n, n) boolean, and the field of each, (n,) int64.

    conditions: what the encoder reads, where there is one; these tokens come first, and those of the batch look at them
        by cross-attention.
    layer: of both stacks, from 0; of the shorter one the last where there are not so many.
    """
    parts = [part.to("cpu") for part in ([batch] if conditions is None else [conditions, batch])]
    sees = None if model.sees is None else model.sees.cpu()
    sizes = [part.shape[1] for part in parts]
    seen = torch.zeros(sum(sizes), sum(sizes), dtype=torch.bool)
    start = 0
    for stack, part in zip(_stacks(model)[-len(parts) :], parts, strict=True):
        own = slice(start, start + part.shape[1])
        if pattern := _pattern(stack, layer):
            places = places_of(part, model.embeddings.axes, stack.wanted)
            edges_only = None if model.edges_only is None else model.edges_only.cpu()
            view = View(places, places, pattern, sees, part.relation, edges=part.edges, edges_only=edges_only)
            own_seen = view.visible()[0]
            if isinstance(pattern[-1], Windows):
                # What is seen of a window is all of it.
                end = pattern[-1].window_of(places)[0]
                own_seen = own_seen[:, end.clamp(min=0)] & (end >= 0)
            seen[own, own] = own_seen
        start = own.stop
    if conditions is not None:
        seen[sizes[0] :, : sizes[0]] = visible_memory(parts[1].layout, parts[0].layout, sees)[0]
    return seen, torch.cat([part.layout.field[0] for part in parts])


def _pattern(stack: Transformer, layer: int) -> Pattern:
    """() where a stack has no layers."""
    return stack.patterns[stack.blocks[min(layer, len(stack.blocks) - 1)].pattern] if len(stack.blocks) else ()


def layers_alike(model: Anyformer) -> list[list[int]]:
    """The layers, from 0, in groups that see the same in every stack."""
    stacks = _stacks(model)
    groups: dict[tuple[Pattern, ...], list[int]] = {}
    for layer in range(max(1, *(len(stack.blocks) for stack in stacks))):
        groups.setdefault(tuple(_pattern(stack, layer) for stack in stacks), []).append(layer)
    return list(groups.values())


def draw_sight(model: Anyformer, batch: Batch, conditions: Batch | None = None) -> Figure:
    """Pictures side by side, a row for what looks and a column for what is looked at, in the field's colour.

    Left the fields, by what the model allows whatever the order; beside them the tokens of the one sample of the batch,
    by the real rule, once for all layers that see the same.
    """
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

    names, groups = list(model.tokenizers), layers_alike(model)
    palette = [colormaps["tab10"](i % 10) for i in range(len(names))]
    colors = ListedColormap([UNSEEN_COLOR, *palette])
    by_field = torch.ones(len(names), len(names), dtype=torch.bool) if model.sees is None else model.sees.cpu()
    pictures = [(by_field, torch.arange(len(names)), "fields")]
    for group in groups:
        seen, field = sight(model, batch, conditions, group[0])
        which = f"{_layers(group)}: " if len(groups) > 1 else ""
        pictures.append((seen, field, f"{which}one sample of {len(field)} tokens{_fewer(model, group[0])}"))
    side = max(2.6, 0.35 * len(names) + 1.2)
    n_columns = min(len(groups), A_LINE)
    n_lines = -(-len(groups) // n_columns)
    figure = Figure(figsize=(side + 6.5 * n_columns, max(side, 6.0 * n_lines)), layout="constrained")
    grid = figure.add_gridspec(n_lines, 1 + n_columns, width_ratios=[side, *[6.0] * n_columns])
    for i, (mask, fields, title) in enumerate(pictures):
        line, column = divmod(i - 1, n_columns) if i else (0, -1)
        axes = figure.add_subplot(grid[line, 1 + column])
        # A cell has the colour of what is looked at.
        shown = torch.where(mask, fields[None, :] + 1, 0)
        axes.imshow(shown.numpy(), cmap=colors, vmin=0, vmax=len(names), interpolation="nearest")
        _mark(axes, [names[i] for i in fields.tolist()])
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("may be looked at", fontsize=8)
    return figure


def _layers(group: Sequence[int]) -> str:
    """
    >>> _layers([0, 1, 3]), _layers([2])
    ('layers 1, 2, 4', 'layer 3')
    """
    return f"layer{'s' if len(group) > 1 else ''} {', '.join(str(layer + 1) for layer in group)}"


def _fewer(model: Anyformer, layer: int) -> str:
    """As how many keys a layer sees its tokens, where that is not one each."""
    found = []
    for stack in _stacks(model):
        condition = (_pattern(stack, layer) or RULE)[-1]
        if isinstance(condition, Windows):
            found.append(f", {condition.stride} of them as one key")
        elif isinstance(condition, Projected):
            found.append(f" as {condition.n} keys")
    return "".join(dict.fromkeys(found))


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
