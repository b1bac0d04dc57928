"""The picture of how many tokens each expert was given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from anyformer.drawing.experts import draw_experts


def test_a_row_is_a_layer_and_a_cell_a_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages, write = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda page, *a, **b: pages.append(page) or write(page, *a, **b))
    shares = {
        "encoder.blocks.1": torch.tensor([0.5, 0.25, 0.25, 0.0]),
        "transformer.blocks.1": torch.tensor([0.9, 0.1]),
    }
    draw_experts(shares, tmp_path / "experts.png")
    panel = pages[0].axes[0]
    assert [text.get_text() for text in panel.get_yticklabels()] == list(shares)
    # As multiples of an even share, whatever the number of experts.
    drawn = np.asarray(panel.images[0].get_array().filled(-1))
    assert drawn == pytest.approx(np.array([[2, 1, 1, 0], [1.8, 0.2, -1, -1]]))
    assert {text.get_position(): text.get_text() for text in panel.texts} == {
        **{(0, 0): "50", (1, 0): "25", (2, 0): "25", (3, 0): "0"},
        **{(0, 1): "90", (1, 1): "10"},
    }
    assert np.asarray(Image.open(tmp_path / "experts.png").convert("L")).std() > 1


def test_many_experts_are_drawn_without_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages, write = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda page, *a, **b: pages.append(page) or write(page, *a, **b))
    draw_experts({"transformer.blocks.0": torch.rand(160).softmax(0)}, tmp_path / "experts.png")
    assert not pages[0].axes[0].texts
    assert np.asarray(Image.open(tmp_path / "experts.png")).shape[1] < 2500
