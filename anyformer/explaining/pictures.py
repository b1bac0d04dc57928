"""Pictures of an explanation: maps on the content itself, what fields are worth, curves, flows and grids.

Drawn so that they can be read 370 pixels wide, as on a phone. Knows no modality: a tokenizer says by `show` what its
tokens look like.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from anyformer.drawing.token_strips import load_font, token_cells, visible
from anyformer.explaining.deletion import Deletion
from anyformer.explaining.explanation import Explanation, Grid
from anyformer.explaining.fields import FieldValues
from anyformer.explaining.flow import Flow
from anyformer.explaining.relevance import MAPS
from anyformer.tokens import Tokenizer, TokenSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 800
"""Pixels of a picture at most."""
LEAST = 240
"""Pixels of the longer side to which a small picture is enlarged."""
GAP = 8
"""Between a picture and the map on it."""
HEAT = "#e6550d"
AXIS = 26
"""Pixels of a time axis."""
TICKS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)
"""Seconds that marks of a time axis may stand apart."""
LABELLED = 40
"""Tokens of a grid up to which each has its words."""
INCHES, DPI = 5.0, 160
"""Of a figure's width; of its dots."""
FOR, AGAINST, PLAIN = "#1f77b4", "#d62728", "#7f7f7f"
MAP_COLOURS = dict(zip(MAPS, ("#d95f02", "#1b9e77"), strict=True))


def draw_map(tokenizer: Tokenizer, tokens: TokenSet, values: Tensor, highest: float) -> Image.Image | None:
    """A map beside the picture that a tokenizer shows of its tokens, and on it, pale; below it where that is wide. None
    where it shows none, or not where each token is.

    values: (n,). highest: of all fields, which has the full colour, so that fields can be held against each other.
    """
    shown = tokenizer.show(tokens)
    if shown is None:
        return None
    picture = Image.fromarray(np.ascontiguousarray(shown))
    is_wide = picture.width > 2 * picture.height or tokens.position.shape[1] == 1
    room = WIDTH if is_wide else (WIDTH - GAP) // 2
    scale: float = max(1, LEAST // max(picture.size))
    if picture.width * scale > room:
        scale = room / picture.width
    # What is wide and low, as a spectrogram, is drawn higher.
    tall = max(round(picture.height * scale), LEAST // 2 if tokens.position.shape[1] == 1 else 1)
    size = max(1, round(picture.width * scale)), tall
    picture = picture.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BILINEAR)
    cut = token_cells(tokens, picture.size)
    if cut is None:
        return None
    n_rows, n_columns, row, column = cut
    share = np.zeros((n_rows, n_columns))
    share[row.numpy(), column.numpy()] = (values.double().numpy() / max(highest, 1e-30)).clip(0, 1)
    alpha = Image.fromarray((220 * share).astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    pale = Image.blend(picture.convert("L").convert("RGB"), Image.new("RGB", size, "white"), 0.45)
    pale.paste(Image.new("RGB", size, HEAT), (0, 0), alpha)
    _draw_lines(pale, n_rows, n_columns)
    if tokenizer.seconds_per_token is not None and n_rows == 1:
        pale = _with_seconds(pale, tokenizer.seconds_per_token * n_columns)
    place = (0, picture.height + GAP) if is_wide else (picture.width + GAP, 0)
    whole = Image.new("RGB", (place[0] + pale.width, place[1] + pale.height), "white")
    whole.paste(picture, (0, 0))
    whole.paste(pale, place)
    return whole


def _draw_lines(picture: Image.Image, n_rows: int, n_columns: int) -> None:
    """The lines between tokens, where these are not too narrow."""
    pen = ImageDraw.Draw(picture)
    if picture.width / n_columns >= 8:
        for i in range(1, n_columns):
            x = round(i * picture.width / n_columns)
            pen.line((x, 0, x, picture.height), "#bbbbbb")
    for i in range(1, n_rows if picture.height / n_rows >= 8 else 0):
        y = round(i * picture.height / n_rows)
        pen.line((0, y, picture.width, y), "#bbbbbb")


def _with_seconds(picture: Image.Image, seconds: float) -> Image.Image:
    """A picture with an axis of time under it."""
    whole = Image.new("RGB", (picture.width, picture.height + AXIS), "white")
    whole.paste(picture, (0, 0))
    pen = ImageDraw.Draw(whole)
    step = next((each for each in TICKS if seconds / each <= 8), seconds)
    for i in range(int(seconds / step) + 1):
        x = min(round(i * step / seconds * picture.width), picture.width - 1)
        pen.line((x, picture.height, x, picture.height + 5), "black")
        words = f"{i * step:g} s"
        room = load_font(14).getlength(words)
        pen.text((min(max(x - room / 2, 0), picture.width - room), picture.height + 7), words, "black", load_font(14))
    return whole


def draw_values(found: FieldValues, unit: str) -> Figure:
    """What each player is worth, with the standard error where it was sampled."""
    figure, axes = _figure(0.42 * len(found.names) + 1.0)
    values, errors = found.shapley.values, found.shapley.errors
    places = np.arange(len(values))[::-1]
    axes.barh(places, values, xerr=errors, color=[FOR if value >= 0 else AGAINST for value in values])
    axes.set_yticks(places, [_short(name, 18) for name in found.names])
    axes.axvline(0, color="black", linewidth=0.8)
    room = max(np.abs(values).max(), 1e-12)
    for place, value in zip(places, values, strict=True):
        axes.annotate(
            f"{value:+.2f}", (value, place), (6 if value >= 0 else -6, 0), textcoords="offset points", va="center",
            ha="left" if value >= 0 else "right",
        )  # fmt: skip
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)
    axes.set_xlim(low - 0.3 * room * (low < 0), high + 0.3 * room * (high > 0) or 1)
    axes.set_xlabel(f"adds to the answer{f' ({unit})' if unit else ''}")
    return figure


def draw_deletion(found: Deletion, unit: str) -> Figure:
    """The answer with tokens taken out, by each map and at random."""
    figure, axes = _figure(3.2)
    shares = [0, *(100 * share for share in found.shares)]
    mean, std = found.random.mean(0), found.random.std(0)
    low, high, middle = (np.array([found.whole, *values]) for values in (mean - std, mean + std, mean))
    axes.fill_between(shares, low, high, color=PLAIN, alpha=0.25, linewidth=0)
    axes.plot(shares, middle, color=PLAIN, marker="o", label="random tokens, ± 1 sd")
    for name, values in found.by_map.items():
        axes.plot(shares, [found.whole, *values], color=MAP_COLOURS.get(name), marker="o", label=f"by {name}")
    axes.set_xlabel("tokens taken out, most relevant first (%)")
    axes.set_ylabel(f"answer{f' ({unit})' if unit else ''}")
    axes.set_xticks(shares)
    axes.legend(fontsize=10, frameon=False)
    return figure


def draw_flows(flows: Sequence[Flow]) -> Figure:
    """By layer what the tokens of one field take from another's, in the mean of the heads."""
    return _matrices([(_named(flow), flow.shares.mean(0), flow) for flow in flows])


def draw_heads(flow: Flow) -> Figure:
    """The same of each head of one attention."""
    return _matrices([(f"head {i + 1}", share, flow) for i, share in enumerate(flow.shares)])


def _matrices(each: Sequence[tuple[str, Tensor, Flow]]) -> Figure:
    from matplotlib.figure import Figure

    n_fields = max(max(len(flow.queries), len(flow.keys)) for _, _, flow in each)
    n_columns = min(len(each), 2 if n_fields <= 6 else 1)
    n_lines = -(-len(each) // n_columns)
    side = INCHES / n_columns
    figure = Figure(figsize=(INCHES, n_lines * (side + 0.35)), dpi=DPI, layout="constrained")
    for i, (title, shares, flow) in enumerate(each):
        axes = figure.add_subplot(n_lines, n_columns, i + 1)
        axes.imshow(shares.cpu().numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.set_title(title, fontsize=9)
        axes.set_xticks(
            range(len(flow.keys)), [_short(name, 10) for name in flow.keys], rotation=45, ha="right", fontsize=9
        )
        axes.set_yticks(range(len(flow.queries)), [_short(name, 10) for name in flow.queries], fontsize=9)
        for row, values in enumerate(shares.tolist()):
            for column, value in enumerate(values):
                colour = "white" if value > 0.6 else "black"
                axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", color=colour, fontsize=9)
    return figure


def _named(flow: Flow | Grid) -> str:
    """
    >>> from anyformer.explaining.flow import Flow
    >>> _named(Flow("encoder", 1, "self", (), (), None))
    'encoder, layer 2, self'
    """
    return f"{flow.stack}, layer {flow.layer + 1}, {flow.kind}"


def draw_grid(explanation: Explanation, grid: Grid) -> Figure:
    """Queries by keys of each head, a dot as large as the weight; what the mask hides is grey."""
    from matplotlib.figure import Figure

    heads, n, m = grid.weights.shape
    n_columns = 1 if m > 20 or heads == 1 else 2
    n_lines = -(-heads // n_columns)
    side = INCHES / n_columns
    figure = Figure(figsize=(INCHES, n_lines * (side * min(max(n / m, 0.4), 1.6) + 0.5)), dpi=DPI, layout="constrained")
    for head in range(heads):
        axes = figure.add_subplot(n_lines, n_columns, head + 1)
        axes.imshow(grid.seen[head].numpy(), cmap="gray", vmin=-3, vmax=1, aspect="auto")
        rows, columns = np.nonzero(grid.weights[head].numpy() > 0.002)
        # The area of a dot is the weight; one of 1 fills its cell.
        room = (0.8 * side * 72 / max(n, m)) ** 2
        axes.scatter(columns, rows, s=grid.weights[head].numpy()[rows, columns] * room, color=FOR, linewidth=0)
        axes.set_title(f"head {head + 1}" if heads > 1 else _named(grid), fontsize=9)
        _mark(axes, explanation, grid)
    return figure


def _mark(axes: Axes, explanation: Explanation, grid: Grid) -> None:
    """Words at both sides where tokens are few, else the fields at their first tokens."""
    for tokens, on_x in ((grid.keys, True), (grid.queries, False)):
        if len(tokens) <= LABELLED:
            size = 7 if len(tokens) <= 20 else 5.5
            places = range(len(tokens))
            words = [_short(visible(explanation.pieces[field][i], "\n\t"), 10) for field, i in tokens]
        else:
            size = 8
            places = [i for i, token in enumerate(tokens) if i == 0 or token[0] != tokens[i - 1][0]]
            words = [_short(tokens[i][0], 12) for i in places]
        if on_x:
            axes.set_xticks(places, words, rotation=90, fontsize=size)
        else:
            axes.set_yticks(places, words, fontsize=size)


def draw_alignment(explanation: Explanation, name: str = "relevance") -> Figure | None:
    """Of a text that is written, by its token, the relevance of every token of the inputs, each row by its greatest;
    None where the inputs are too many to be read, or no text is written."""
    tokens = [(field, i) for field in explanation.inputs for i in range(len(explanation.sample[field]))]
    if explanation.written is None or not 1 < len(tokens) <= 2 * LABELLED or len(explanation.parts) > 2 * LABELLED:
        return None
    rows = torch.stack([
        torch.cat([getattr(part, name)[field] for field in explanation.inputs]) for part in explanation.parts
    ])  # fmt: skip
    height = max(2.0, 0.22 * len(rows) + 1.2)
    figure, axes = _figure(height)
    axes.imshow(rows.numpy() / rows.amax(1, keepdim=True).clamp(min=1e-30).numpy(), cmap="Blues", aspect="auto")
    size = 8 if len(tokens) <= LABELLED else 5
    words = [_short(visible(explanation.pieces[field][i], "\n\t"), 10) for field, i in tokens]
    axes.set_xticks(range(len(tokens)), words, rotation=90, fontsize=size)
    axes.set_yticks(range(len(rows)), [visible(part.name) for part in explanation.parts], fontsize=9)
    return figure


def draw_bars(values: Tensor, highest: float) -> Figure:
    """A map of tokens that have neither a picture nor words, one after another."""
    figure, axes = _figure(1.4)
    axes.bar(
        range(len(values)), values.double().numpy() / max(highest, 1e-30), width=1.0, color=MAP_COLOURS["relevance"]
    )
    axes.set_ylim(0, 1)
    axes.set_xlabel("token")
    return figure


def drawn_fields(explanation: Explanation, name: str) -> Iterator[tuple[str, Image.Image]]:
    """The fields of a record that a map can be drawn on, and the drawing."""
    whole = explanation.whole(name)
    highest = max((float(whole[field].max()) for field in explanation.inputs), default=0.0)
    for field in explanation.inputs:
        drawn = draw_map(explanation.tokenizers[field], explanation.sample[field], whole[field], highest)
        if drawn is not None:
            yield field, drawn


def _figure(height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(INCHES, height), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _short(text: str, n: int) -> str:
    """
    >>> _short("temperature", 6)
    'tempe…'
    """
    return text if len(text) <= n else f"{text[: n - 1]}…"
