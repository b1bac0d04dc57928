"""Draws visibility.png: one rule, five architectures.

uv run python docs/visibility.py
"""

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from anyformer.model.attention.visibility import visible
from anyformer.model.lifts import Lookup
from anyformer.packing import collate
from anyformer.tokens import Tokenizer, TokenSet

COLORS = {
    "image": "#4c78a8",
    "class": "#f58518",
    "text": "#54a24b",
    "return": "#b279a2",
    "state": "#4c78a8",
    "action": "#e45756",
}


@dataclass(frozen=True)
class Letters(Tokenizer):
    """Tokens with nothing but a place."""

    def encode(self, record, random=None):
        return TokenSet(torch.zeros(record, dtype=torch.int64))

    def empty(self):
        return self.encode(0)

    def lift(self, d_model):
        return Lookup(1, d_model)


def tokens(*orders):
    return Letters().encode(len(orders)).at(torch.tensor(orders))


EXAMPLES = {
    "ViT, BERT\norder 0 everywhere": [{"image": tokens(*[0] * 9), "class": tokens(0)}],
    "GPT\norder 0, 1, 2, ...": [{"text": tokens(*range(10))}],
    "image to text\nconditions 0, then 1, 2, ...": [{"image": tokens(*[0] * 5), "text": tokens(1, 2, 3, 4, 5)}],
    "decision transformer\nreturn, state, action in turn": [
        {"return": tokens(2, 5, 8), "state": tokens(3, 6, 9), "action": tokens(4, 7, 10)}
    ],
    "three samples in one row\neach sees itself alone": [
        {"text": tokens(0, 1, 2)},
        {"image": tokens(0, 0, 0), "class": tokens(0)},
        {"text": tokens(0, 1)},
    ],
}


def main():
    matplotlib.rcParams["font.family"] = "DejaVu Sans"
    names = dict.fromkeys(COLORS, Letters())
    figure = Figure(figsize=(13, 3.3), layout="constrained")
    for axes, (title, samples) in zip(figure.subplots(1, len(EXAMPLES)), EXAMPLES.items(), strict=True):
        batch = collate(samples, names, rows=[0] * len(samples))
        seen = visible(batch.layout, batch.layout)[0]
        field = batch.layout.field[0]
        # Colour a cell by the field of the token that is looked at.
        shown = torch.where(seen, field[None, :] + 1, 0)
        axes.imshow(shown.numpy(), cmap=ListedColormap(["#f2f2f2", *COLORS.values()]), vmin=0, vmax=len(COLORS))
        n = len(field)
        axes.set_xticks(torch.arange(n + 1).numpy() - 0.5, minor=True)
        axes.set_yticks(torch.arange(n + 1).numpy() - 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=1.5)
        axes.tick_params(which="both", length=0)
        labels = [list(COLORS)[i] for i in field]
        axes.set_xticks([])
        axes.set_yticks(range(n), labels, fontsize=8)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("may be looked at", fontsize=8)
    figure.savefig(Path(__file__).with_name("visibility.png"), dpi=110)


if __name__ == "__main__":
    main()
