"""An explanation as a page that a person understands: one file with its pictures inside, no address outside it; beside
it the pictures as PNG and the numbers as JSON."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from torch import Tensor

from anyformer.drawing.token_strips import visible
from anyformer.explaining.explanation import Explanation, Grid
from anyformer.explaining.pictures import (
    draw_alignment,
    draw_bars,
    draw_deletion,
    draw_flows,
    draw_grid,
    draw_heads,
    draw_values,
    drawn_fields,
)
from anyformer.explaining.relevance import MAPS
from anyformer.faults import writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE, NUMBERS = "explanation.html", "explanation.json"
TITLES = {"relevance": "gradient times attention", "rollout": "attention alone (rollout)"}
MOST_PARTS = 40
"""Tokens of a text whose maps are drawn on words, one by one."""
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 900px; margin: 0 auto;
  padding: 12px; overflow-wrap: anywhere; }
h1 { font-size: 1.5em; line-height: 1.25; } h2 { font-size: 1.2em; margin-top: 2em; border-top: 1px solid #ddd;
  padding-top: .6em; } h3 { font-size: 1em; margin-bottom: .2em; }
figure { display: inline-block; margin: 0 12px 12px 0; max-width: 100%; vertical-align: top; }
figcaption { font-size: .85em; color: #444; }
img { max-width: 100%; height: auto; }
.map { image-rendering: pixelated; }
.words { line-height: 2; } .words span { padding: 2px 3px; margin: 1px; border-radius: 3px; border: 1px solid #ddd;
  display: inline-block; white-space: pre-wrap; }
.belief { padding: 8px 12px; border-left: 4px solid #1b9e77; background: #f2f8f6; }
.belief.weak { border-color: #d62728; background: #fdf3f2; }
.note { color: #444; font-size: .9em; }
.wide { overflow-x: auto; } table { border-collapse: collapse; } td, th { padding: 2px 10px 2px 0; text-align: left; }
"""


class Page:
    """A page as it comes to be; pictures are kept for their files too."""

    def __init__(self) -> None:
        self.html: list[str] = []
        self.pictures: dict[str, bytes] = {}

    def add(self, *html: str) -> None:
        self.html += html

    def figure(self, name: str, picture: Image.Image | Figure, caption: str = "", kind: str = "") -> None:
        """A picture under a name, which is that of its file."""
        data = _png(picture)
        self.pictures[f"{name}.png"] = data
        address = f"data:image/png;base64,{base64.b64encode(data).decode()}"
        under = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
        self.add(f'<figure><img class="{kind}" alt="{escape(caption or name)}" src="{address}">{under}</figure>')

    def document(self, title: str) -> str:
        body = "\n".join(self.html)
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
        )


def _png(picture: Image.Image | Figure) -> bytes:
    held = io.BytesIO()
    if isinstance(picture, Image.Image):
        picture.save(held, "PNG", optimize=True)
    else:
        picture.savefig(held, format="png")
        # Few colours: a third of the bytes.
        held.seek(0)
        few = Image.open(held).convert("RGB").quantize(128)
        held = io.BytesIO()
        few.save(held, "PNG", optimize=True)
    return held.getvalue()


def write_page(
    explanation: Explanation, folder: str | Path, grid: Grid | None = None, passes: Mapping[str, str] = {}
) -> Path:
    """Write the page, its pictures and its numbers into a folder, which is made; returns the page's path.

    grid: the attention that is drawn token by token; that of the last layer when left out. passes: what each part cost.
    """
    folder = Path(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    page = make_page(explanation, explanation.grid() if grid is None else grid, passes)
    numbers = json.dumps(explanation.as_dict(), ensure_ascii=False)
    files = {**page.pictures, NUMBERS: numbers.encode(), PAGE: page.document(_title(explanation)).encode()}
    for name, data in files.items():
        with writing(folder / name):
            (folder / name).write_bytes(data)
    return folder / PAGE


def _title(explanation: Explanation) -> str:
    return f"Why {explanation.answer}?"


def make_page(explanation: Explanation, grid: Grid, passes: Mapping[str, str] = {}) -> Page:
    page = Page()
    what = f"{explanation.what}: {explanation.value:.3f}{f' {explanation.unit}' if explanation.unit else ''}"
    page.add(f"<h1>{escape(_title(explanation))}</h1>", f"<p>Explained is {escape(what)}.</p>")
    add_belief(page, explanation)
    add_fields(page, explanation)
    add_maps(page, explanation)
    add_attention(page, explanation, grid)
    if passes:
        rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(n)}</td></tr>" for name, n in passes.items())
        page.add("<h2>What it cost</h2>", f'<div class="wide"><table>{rows}</table></div>')
    return page


def add_belief(page: Page, explanation: Explanation) -> None:
    page.add("<h2>How far to believe it</h2>")
    found = explanation.deletion
    if found is None:
        page.add('<p class="note">The record has too few tokens to take some out, so the maps are not tested.</p>')
        return
    page.add(
        '<p class="note">The tokens that a map points at are really taken out, as if the record had never had them, '
        "and the model is asked again; beside it as many random ones.</p>"
    )
    for name in found.by_map:
        weak = "" if found.is_better(name) else " weak"
        words = escape(found.verdict(name, explanation.unit))
        page.add(f'<p class="belief{weak}"><b>{escape(TITLES.get(name, name))}</b> is {words}.</p>')
    page.figure("deletion", draw_deletion(found, explanation.unit))


def add_fields(page: Page, explanation: Explanation) -> None:
    page.add("<h2>Which field mattered</h2>")
    found = explanation.fields
    if found is None:
        page.add('<p class="note">The record has no field that could be left out.</p>')
        return
    own, unit = found.shapley, f" {explanation.unit}" if explanation.unit else ""
    how = (
        f"all {own.n_played} combinations of them were asked"
        if own.errors is None
        else f"{own.n_played} of the {2 ** len(found.names):,} combinations were drawn, with the standard error"
    )
    page.add(
        f'<p class="note">Shapley values: what each field adds, in the mean over all sequences in which fields could '
        f"be given; {how}. They add up from {own.nothing:.3f}{escape(unit)} without any field to {own.whole:.3f} with "
        "all.</p>"
    )
    page.figure("fields", draw_values(found, explanation.unit))
    last = ", ".join(f"{name} {value:+.2f}" for name, value in zip(found.names, own.last, strict=True))
    page.add(f'<p class="note">Added last, to all others: {escape(last)}{escape(unit)}.</p>')
    for name, values in explanation.columns.items():
        page.add(f"<h3>Columns of {escape(name)}</h3>")
        page.figure(f"columns_{_file(name)}", draw_values(values, explanation.unit))


def add_maps(page: Page, explanation: Explanation) -> None:
    page.add(
        "<h2>Where it looked</h2>",
        '<p class="note">Bright or dark orange is where the answer goes back to; all fields are on one scale.</p>',
    )
    for name in MAPS:
        page.add(f"<h3>By {escape(TITLES[name])}</h3>")
        drawn = dict(drawn_fields(explanation, name))
        whole = explanation.whole(name)
        highest = _highest(explanation, whole)
        for field in explanation.inputs:
            if field in drawn:
                page.figure(f"{name}_{_file(field)}", drawn[field], field, "map")
            elif _has_words(explanation, field):
                page.add(f"<p>{escape(field)}</p>", _words(explanation, field, whole[field], highest))
            else:
                page.figure(f"{name}_{_file(field)}", draw_bars(whole[field], highest), field)
        own = [f"{piece} {float(value):.3g}" for piece, value in _own(explanation, whole)]
        if own:
            page.add(f'<p class="note">The model\'s own tokens, apart: {escape(", ".join(own))}.</p>')
    if len(explanation.parts) > 1:
        add_parts(page, explanation)


def _own(explanation: Explanation, whole: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for field in sorted(explanation.own & whole.keys()):
        yield from zip(explanation.pieces[field], whole[field], strict=True)


def _highest(explanation: Explanation, whole: Mapping[str, Tensor]) -> float:
    return max((float(whole[field].max()) for field in explanation.inputs), default=0.0)


def _has_words(explanation: Explanation, field: str) -> bool:
    return explanation.tokenizers[field].pieces(explanation.sample[field]) is not None


def _words(explanation: Explanation, field: str, values: Tensor, highest: float) -> str:
    spans = []
    for piece, value in zip(explanation.pieces[field], values.tolist(), strict=True):
        share = min(max(value / max(highest, 1e-30), 0.0), 1.0)
        # Light enough for black letters everywhere.
        colour = f"rgba(240, 120, 20, {0.9 * share:.2f})"
        spans.append(f'<span style="background: {colour}" title="{value:.3g}">{escape(visible(piece))}</span>')
    return f'<p class="words">{"".join(spans)}</p>'


def add_parts(page: Page, explanation: Explanation) -> None:
    page.add(f"<h3>Token by token of {escape(str(explanation.written))}</h3>")
    aligned = draw_alignment(explanation)
    if aligned is not None:
        page.figure("alignment", aligned, "a row for each token that is written, a column for each that is read")
    worded = [field for field in explanation.inputs if _has_words(explanation, field)]
    written = explanation.written
    for number, part in enumerate(explanation.parts[:MOST_PARTS]):
        highest = _highest(explanation, part.relevance)
        shares = {field: float(part.relevance[field].sum()) for field in explanation.inputs}
        total = max(sum(shares.values()), 1e-30)
        told = ", ".join(f"{field} {share / total:.0%}" for field, share in shares.items())
        page.add(f"<p><b>{escape(visible(part.name))}</b> ({part.value:.2f}): {escape(told)}</p>")
        page.add(*(_words(explanation, field, part.relevance[field], highest) for field in worded))
        if written in part.relevance and number:
            before = part.relevance[written][: number + 1]
            strongest = explanation.pieces[written][int(before.argmax())]
            page.add(f'<p class="note">of what was written before, most from {escape(visible(strongest))}</p>')
    if len(explanation.parts) > MOST_PARTS:
        page.add(f'<p class="note">and {len(explanation.parts) - MOST_PARTS} more, see {NUMBERS}.</p>')


def add_attention(page: Page, explanation: Explanation, grid: Grid) -> None:
    page.add(
        "<h2>Who talks to whom</h2>",
        '<p class="note">Of 100 parts of its attention how many a token of the field at the left gives to the tokens '
        "of the field below, in the mean of the field's tokens and of the heads. The weights were computed again for "
        "this record, and give the output of every layer.</p>",
    )
    if explanation.flows:
        page.figure("flow", draw_flows(explanation.flows))
        same = (grid.stack, grid.layer, grid.kind)
        (flow,) = [each for each in explanation.flows if (each.stack, each.layer, each.kind) == same]
        page.add(f"<h3>{escape(grid.stack)}, layer {grid.layer + 1}, {grid.kind}-attention, token by token</h3>")
        page.add('<p class="note">A dot is as large as the weight; what may not be seen is grey.</p>')
        page.figure("grid", draw_grid(explanation, grid))
        if len(flow.shares) > 1 and len(grid.weights) > 1:
            page.add("<h3>Its heads, field by field</h3>")
            page.figure("heads", draw_heads(flow))


def _file(field: str) -> str:
    """A part of a file's name for a field, whatever that is called.

    >>> _file("state/image?")
    'state_image_'
    """
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in field)
