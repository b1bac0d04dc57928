"""The contact sheet of a run, `samples.png`: what the model sees of the first samples it is trained on.

Knows pictures as arrays; a tokenizer says by `show` what its tokens look like.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from anyformer.data.batch_plan import Plan
from anyformer.data.samples import Samples
from anyformer.tokens import Sample, Tokenizer, expand

SIDE = 112
"""Pixels of the longer side of a picture: a small one is enlarged by a whole factor, so that its own pixels show."""
GAP, LINE = 6, 14
"""Pixels between pictures, and of a line of words."""
IN_A_ROW = 8


def draw_samples(
    samples: Samples, plan: Plan, look: Callable[[Any], tuple[Sample, str]], n: int = 32
) -> Image.Image | None:
    """The first n samples of epoch 0, augmented; None where no field can be shown.

    look: the token sets of an item, and a few words on it. Neither the loader nor a generator of its own moves. Raises
    InputError for a sample that cannot be used, unless such are skipped, as training would.
    """
    tokenizers = {
        name: tokenizer
        for name, tokenizer in expand(samples.chopper.tokenizers).items()
        if type(tokenizer).show is not Tokenizer.show
    }
    tiles = []
    for sample, words in map(look, samples.first(plan, n if tokenizers else 0)):
        shown = [tokenizer.show(sample[name]) for name, tokenizer in tokenizers.items() if name in sample]
        tiles.append(([picture for picture in shown if picture is not None], words))
    return draw_sheet(tiles) if any(pictures for pictures, _ in tiles) else None


def draw_sheet(tiles: Sequence[tuple[Sequence[np.ndarray], str]]) -> Image.Image:
    """Tiles in rows: each of some pictures side by side, (rows, columns, 3) uint8, with words under them."""
    drawn = [([_scale(Image.fromarray(picture)) for picture in pictures], words) for pictures, words in tiles]
    width = max(SIDE, *(sum(image.width + GAP for image in images) - GAP for images, _ in drawn))
    height = max(image.height for images, _ in drawn for image in images)
    n_columns, n_rows = min(len(drawn), IN_A_ROW), -(-len(drawn) // IN_A_ROW)
    step = width + GAP, height + 2 * LINE + GAP
    sheet = Image.new("RGB", (GAP + n_columns * step[0], GAP + n_rows * step[1]), "#eeeeee")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for number, (images, words) in enumerate(drawn):
        x, y = GAP + number % IN_A_ROW * step[0], GAP + number // IN_A_ROW * step[1]
        # A letter of this font is some 6 pixels wide.
        lines = textwrap.wrap(words, width // 6, max_lines=2, placeholder="...")
        pen.multiline_text((x, y + height), "\n".join(lines), "black", font, spacing=2)
        for image in images:
            sheet.paste(image, (x, y))
            x += image.width + GAP
    return sheet


def _scale(image: Image.Image) -> Image.Image:
    longest = max(image.size)
    if longest <= SIDE:
        factor = SIDE // longest
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    size = (max(1, round(side * SIDE / longest)) for side in image.size)
    return image.resize(tuple(size), Image.Resampling.BILINEAR)
