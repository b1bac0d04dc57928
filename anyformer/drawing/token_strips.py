"""What the model sees, drawn: a sample's fields one below the other, each cut into its tokens.

A picture or a spectrogram has the lines along which it is cut; what is words or numbers stands in boxes, a token each,
those of an episode in a column for each step; and content that has no other form is drawn as it is, a column of grey
for each token. What is masked is hatched. Knows no modality: a tokenizer says by `show` and `pieces` what its tokens
look like.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from anyformer.batch import Batch
from anyformer.model.learned_tokens import LearnedTokens
from anyformer.tokens import Sample, Tokenizer, TokenSet

WIDTH, LABELS, TITLE, GAP = 1000, 165, 18, 8
"""Pixels: of the whole, the column with the names of the fields, a title, and between two things."""
TALL, SMALL = 160, 128
"""Pixels of the highest picture that is drawn, and of the highest that a small one is enlarged to."""
ROOM = WIDTH - LABELS - GAP
"""Pixels beside the names."""
LINES = 8
"""Of boxes at most; what does not fit is counted."""
IN_A_CELL = 6
"""Numbers of a step at most."""
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#17becf", "#e377c2")
"""Of the fields, one after another; grey for tokens that carry no data."""
VISIBLE = {" ": "\u2423", "\n": "\u23ce", "\t": "\u21e5", "": "\u2205"}
"""What stands for what cannot be seen."""


def samples_of(batches: Iterable[Batch]) -> Sample:
    """The token sets of one sample again, out of the batches of the stacks that read it."""
    sample: Sample = {}
    for batch in batches:
        order = batch.layout.order.flatten()
        for name, tokens in batch.fields.items():
            if len(tokens.index):
                inside = None if tokens.inside is None else samples_of([tokens.inside])
                # The record's own field comes first.
                content = tokens.content if inside is None else next(iter(inside.values())).content
                (extent,) = tokens.extents or ((len(content),),)
                sample[name] = TokenSet(
                    content, tokens.position, order[tokens.index], extent=extent, masked=tokens.masked, inside=inside
                )
    return sample


def draw_strips(
    groups: Mapping[str, Sequence[tuple[Sample, str]]], tokenizers: Mapping[str, Mapping[str, Tokenizer]]
) -> Image.Image:
    """groups: by a name, which may be '', samples with a few words each. tokenizers: by that name and the field's."""
    tiles = []
    for group, samples in groups.items():
        for sample, words in samples:
            title = f"{group}: {words}" if group else words
            tiles.append((" ".join(title.split()), _strips(sample, tokenizers[group])))
    # Samples that are narrow stand side by side.
    wide = max(LABELS + strip.image.width + GAP for _, strips in tiles for strip in strips)
    n_columns = min(max((WIDTH + GAP) // (wide + GAP), 1), len(tiles))
    wide = wide if n_columns > 1 else WIDTH
    rows = [tiles[i : i + n_columns] for i in range(0, len(tiles), n_columns)]
    heights = [max(sum(strip.height + GAP for strip in strips) for _, strips in row) + TITLE + GAP for row in rows]
    sheet = Image.new("RGB", (n_columns * (wide + GAP) + GAP, sum(heights) + GAP), "white")
    y = GAP
    for row, height in zip(rows, heights, strict=True):
        for column, (title, strips) in enumerate(row):
            _place(sheet, GAP + column * (wide + GAP), y, wide, title, strips)
        y += height
    return sheet


def _place(sheet: Image.Image, x: int, y: int, wide: int, title: str, strips: Sequence[_Strip]) -> None:
    """Paste a sample, `wide` pixels with its names, at a place of the sheet."""
    pen = ImageDraw.Draw(sheet)
    pen.rectangle((x, y, x + wide, y + TITLE), "#eeeeee")
    pen.text((x + GAP, y + 2), _shorten(visible(title, "\n\t"), wide - 2 * GAP, load_font(12)), "black", load_font(12))
    y += TITLE + GAP
    for strip in strips:
        pen.rectangle((x, y, x + 3, y + strip.height), strip.colour)
        pen.text((x + GAP, y), _shorten(strip.name, LABELS - 2 * GAP, load_font(12)), strip.colour, load_font(12))
        pen.multiline_text((x + GAP, y + 15), strip.label, "#666666", load_font(10), spacing=1)
        sheet.paste(strip.image, (x + LABELS, y))
        y += strip.height + GAP


def _shorten(text: str, room: float, font: ImageFont.FreeTypeFont) -> str:
    """As much of a text as fits, with dots where it does not."""
    if font.getlength(text) <= room:
        return text
    n = next(n for n in range(len(text), -1, -1) if font.getlength(f"{text[:n]}...") <= room or not n)
    return f"{text[:n]}..."


@dataclass(frozen=True)
class _Strip:
    """A field of a sample, drawn."""

    name: str
    label: str
    colour: str
    image: Image.Image

    @property
    def height(self) -> int:
        """Of the drawing, and of the words beside it."""
        return max(self.image.height, 16 + 13 * len(self.label.splitlines()))


def _strips(sample: Sample, tokenizers: Mapping[str, Tokenizer]) -> list[_Strip]:
    """The fields of a sample in the sequence of the tokenizers."""
    colours = {
        name: "#888888" if isinstance(tokenizer, LearnedTokens) else COLOURS[i % len(COLOURS)]
        for i, (name, tokenizer) in enumerate(tokenizers.items())
    }
    strips = _episode(sample, tokenizers, colours)
    for name in tokenizers:
        if name in sample and name not in strips:
            image = _draw(sample[name], tokenizers[name], colours[name])
            strips[name] = _Strip(name, _label(sample[name]), colours[name], image)
    return [strips[name] for name in tokenizers if name in strips]


def _label(tokens: TokenSet) -> str:
    first, last = (int(each) for each in tokens.order.aminmax())
    order = f"order {first}" if first == last else f"orders {first} to {last}"
    return f"{len(tokens)} token{'s' if len(tokens) > 1 else ''}, {order}"


def _draw(tokens: TokenSet, tokenizer: Tokenizer, colour: str) -> Image.Image:
    picture = tokenizer.show(tokens)
    if picture is not None:
        return _cut_picture(Image.fromarray(np.ascontiguousarray(picture)), tokens, colour)
    pieces = _pieces(tokens, tokenizer)
    return _columns(tokens, colour) if pieces is None else _boxes(pieces, tokens.masked, colour)


def _pieces(tokens: TokenSet, tokenizer: Tokenizer) -> list[str] | None:
    """What each token says; numbers where only ids are known, None for content that is no id."""
    if isinstance(tokenizer, LearnedTokens):
        return ["learned"] * len(tokens)
    pieces = tokenizer.pieces(tokens)
    if pieces is None and tokens.content.ndim == 1 and not tokens.content.is_floating_point():
        pieces = [str(i) for i in tokens.content.tolist()]
    return pieces if pieces is not None and len(pieces) == len(tokens) else None


# Pictures


def _cut_picture(picture: Image.Image, tokens: TokenSet, colour: str) -> Image.Image:
    """A picture with the lines between its tokens; those that are masked are hatched."""
    # What is cut along one axis alone, as a sound, has narrow tokens.
    highest = TALL if tokens.position.shape[1] == 1 else SMALL
    scale: float = min(highest // picture.height, ROOM // picture.width)
    # Enlarged by a whole number, so that its own pixels show.
    scale = scale or min(TALL / picture.height, ROOM / picture.width, 1)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    image = picture.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BILINEAR)
    if (cells := token_cells(tokens, image.size)) is None:
        return image
    n_rows, n_columns, row, column = cells
    pen = ImageDraw.Draw(image, "RGBA")
    high, wide = image.height / n_rows, image.width / n_columns
    if tokens.masked is not None:
        for i in tokens.masked.nonzero().flatten().tolist():
            x, y = float(column[i]) * wide, float(row[i]) * high
            pen.rectangle((x, y, x + wide, y + high), "#888888e0")
    if min(high, wide) >= 4 or n_rows == 1:
        line = f"{colour}a0"
        for i in range(n_columns + 1):
            x = min(round(i * wide), image.width - 1)
            pen.line((x, 0, x, image.height), line)
        for i in range(n_rows + 1):
            y = min(round(i * high), image.height - 1)
            pen.line((0, y, image.width, y), line)
    return image


def token_cells(tokens: TokenSet, size: tuple[int, int]) -> tuple[int, int, Tensor, Tensor] | None:
    """How many rows and columns a picture is cut into, and those of each token; None where that is not known.

    One axis goes right, two go down and right, and what three have is taken to be pictures side by side.
    """
    axes = tokens.position.shape[1]
    if axes not in (1, 2, 3):
        return None
    places = [torch.unique(column, return_inverse=True) for column in tokens.position.T]
    counts = [len(values) for values, _ in places]
    if math.prod(counts) != len(tokens):
        return None
    inverse = [inverse for _, inverse in places]
    if axes == 1:
        return 1, counts[0], torch.zeros_like(inverse[0]), inverse[0]
    if axes == 2:
        return counts[0], counts[1], inverse[0], inverse[1]
    n_rows, n_columns = counts[1], counts[0] * counts[2]
    # Cells that are far from square are not where the tokens are.
    if not 2 / 3 < (size[0] / n_columns) / (size[1] / n_rows) < 3 / 2:
        return None
    return n_rows, n_columns, inverse[1], inverse[0] * counts[2] + inverse[2]


def _columns(tokens: TokenSet, colour: str) -> Image.Image:
    """Content as it is: its numbers go down, from black, the lowest, to white."""
    content = (
        tokens.content.detach().float().flatten(1)[:, :256] if tokens.content.ndim > 1 else tokens.content[:, None]
    )
    low, high = content.aminmax()
    grey = ((content - low) * (255 / (high - low).clamp(min=1e-9))).to(torch.uint8).T.numpy()
    n = grey.shape[1]
    side = max(1, min(16, TALL // grey.shape[0], ROOM // n))
    image = (
        Image.fromarray(grey)
        .convert("RGB")
        .resize((min(n * side, ROOM), grey.shape[0] * side), Image.Resampling.NEAREST)
    )
    if n == len(tokens) and side >= 4:
        pen = ImageDraw.Draw(image, "RGBA")
        for i in range(n + 1):
            pen.line((min(i * side, image.width - 1), 0, min(i * side, image.width - 1), image.height), f"{colour}a0")
    return image


# Boxes


def _boxes(pieces: Sequence[str], masked: Tensor | None, colour: str) -> Image.Image:
    """Each piece in a box of its own, in lines."""
    font, high = load_font(12), 20
    x, line, boxes = 0, 0, []
    for i, piece in enumerate(pieces):
        text = visible(piece)[:40]
        wide = math.ceil(font.getlength(text)) + 6
        if x + wide > ROOM:
            x, line = 0, line + 1
        if line == LINES:
            boxes.append((0, line, font.getlength("9" * 24), f"... and {len(pieces) - i} more", None))
            break
        boxes.append((x, line, wide, text, i))
        x += wide
    right = math.ceil(max((x + wide for x, _, wide, _, _ in boxes), default=1))
    image = Image.new("RGB", (right + 1, high * (boxes[-1][1] + 1 if boxes else 1) + 1), "white")
    pen = ImageDraw.Draw(image, "RGBA")
    for x, line, wide, text, i in boxes:
        y = line * high
        if i is not None:
            is_masked = masked is not None and bool(masked[i])
            pen.rectangle((x, y, x + wide, y + high), "#888888" if is_masked else f"{colour}20", f"{colour}a0")
        pen.text((x + 3, y + 2), text, "black", font)
    return image


def _episode(sample: Sample, tokenizers: Mapping[str, Tokenizer], colours: Mapping[str, str]) -> dict[str, _Strip]:
    """By name the fields of an episode that can be read, in a column for each step."""
    cells: dict[str, dict[int, list[str]]] = {}
    for name, tokenizer in tokenizers.items():
        if name in sample and tokenizer.axes[:1] == ("step",) and type(tokenizer).show is Tokenizer.show:
            pieces = _pieces(sample[name], tokenizer)
            for step, piece in zip(sample[name].position[:, 0].tolist(), pieces or (), strict=pieces is not None):
                cells.setdefault(name, {}).setdefault(step, []).extend(visible(piece, "\n\t").split() or [""])
    steps = sorted({step for cell in cells.values() for step in cell})
    font, strips = load_font(11), {}
    words = [word for by_step in cells.values() for cell in by_step.values() for word in cell[:IN_A_CELL]]
    wide = math.ceil(max([font.getlength(word) for word in words] + [30])) + 8
    shown = steps[: max((ROOM) // wide, 1)]
    left_out = f"\n{len(steps) - len(shown)} further steps" if len(shown) < len(steps) else ""
    for name, by_step in cells.items():
        head = 0 if strips else 16
        tall = 14 * min(max(len(cell) for cell in by_step.values()), IN_A_CELL) + 4
        image = Image.new("RGB", (wide * len(shown) + 1, head + tall + 1), "white")
        pen = ImageDraw.Draw(image, "RGBA")
        for i, step in enumerate(shown):
            if head:
                pen.text((i * wide + 4, 1), str(step) if i else f"step {step}", "#666666", font)
            cell = by_step.get(step, [])
            if len(cell) > IN_A_CELL:
                cell = [*cell[: IN_A_CELL - 1], f"... {len(cell)}"]
            pen.rectangle((i * wide, head, (i + 1) * wide, head + tall), f"{colours[name]}20", f"{colours[name]}a0")
            pen.multiline_text((i * wide + 4, head + 1), "\n".join(cell), "black", font, spacing=1)
        strips[name] = _Strip(name, _label(sample[name]) + left_out, colours[name], image)
    return strips


def visible(text: str, which: str = " \n\t") -> str:
    """Text with signs for what cannot be seen."""
    if not text:
        return VISIBLE[""]
    return "".join(VISIBLE[c] if c in which else c for c in text)


@cache
def load_font(size: int) -> ImageFont.FreeTypeFont:
    # The one of matplotlib knows more letters than that of Pillow.
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)
