"""Pictures of explanations: what is bright, what is grey, what stands where."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anyformer.explaining.explanation import Grid, explain_sample
from anyformer.explaining.fields import FieldValues
from anyformer.explaining.pictures import (
    GAP,
    draw_alignment,
    draw_bars,
    draw_deletion,
    draw_flows,
    draw_grid,
    draw_heads,
    draw_map,
    draw_values,
    drawn_fields,
)
from anyformer.explaining.shapley import Shapley
from anyformer.tokenizers.audio.audio import Audio
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.text.text import Text
from tests.helpers.explained import FIELDS, OfClass, model_of, sample

OF_TWO = Shapley(np.array([2.0, -1.0]), None, 1.0, 0.0, np.zeros(2), 4)
PATCHES = ImagePatches(size=(4, 4), patch=2, channels=1)


@pytest.fixture(scope="module")
def explanation():
    torch.manual_seed(0)
    return explain_sample(OfClass(model_of()), sample(), FIELDS, "seven")


def redness(picture: np.ndarray) -> np.ndarray:
    return picture[:, :, 0].astype(int) - picture[:, :, 2]


def test_the_most_relevant_patch_is_coloured_on_the_picture() -> None:
    tokens = PATCHES.encode(np.full((4, 4), 128, dtype=np.uint8))
    drawn = np.asarray(draw_map(PATCHES, tokens, torch.tensor([0.0, 0.5, 0.0, 1.0]), 1.0))
    high, wide = drawn.shape[0], (drawn.shape[1] - GAP) // 2
    assert not redness(drawn[:, :wide]).any(), "at the left the picture as it is"
    heat = redness(drawn[:, wide + GAP :])
    inner = [
        heat[a : a + high // 4, b : b + wide // 4].mean() for a in (20, high // 2 + 20) for b in (20, wide // 2 + 20)
    ]
    assert inner[0] == inner[2] == 0
    assert inner[3] > inner[1] > 20
    half = np.asarray(draw_map(PATCHES, tokens, torch.tensor([0.0, 0.5, 0.0, 1.0]), 2.0))
    assert redness(half).max() < heat.max(), "all fields are on one scale"


def test_a_recording_has_an_axis_of_time_under_its_map() -> None:
    sound = Audio()
    tokens = sound.encode(np.random.default_rng(0).normal(size=16_000).astype(np.float32))
    values = torch.zeros(len(tokens))
    values[: len(tokens) // 4] = 1
    drawn = np.asarray(draw_map(sound, tokens, values, 1.0))
    heat = redness(drawn)
    assert heat[:, : drawn.shape[1] // 5].max() > 50 and not heat[:, drawn.shape[1] // 3 :].any()
    assert (drawn[-1] == 255).all() and (drawn[-15:-5] < 100).any(), "numbers below"


def test_what_has_no_picture_is_not_drawn_on_one() -> None:
    text = Text(kind="characters").fit(["ab"])
    assert draw_map(text, text.encode("ab"), torch.ones(2), 1.0) is None


def test_figures_are_drawn(explanation) -> None:
    found = FieldValues(
        ("a", "temperature of the outside"), Shapley(np.array([2.0, -1.0]), None, 1.0, 0.0, np.zeros(2), 4)
    )
    (axes,) = draw_values(found, "nats").axes
    assert [bar.get_width() for bar in axes.patches] == [2.0, -1.0]
    assert [label.get_text() for label in axes.texts] == ["+2.00", "-1.00"]
    (axes,) = draw_deletion(explanation.deletion, "nats").axes
    assert [line.get_label() for line in axes.lines] == ["random tokens, ± 1 sd", "by relevance", "by rollout"]
    assert axes.lines[1].get_ydata()[0] == explanation.deletion.whole
    assert len(draw_flows(explanation.flows).axes) == 3
    assert len(draw_heads(explanation.flows[0]).axes) == 4
    assert len(draw_bars(torch.rand(5), 1.0).axes[0].patches) == 5
    assert draw_alignment(explanation) is None, "no text is written"
    assert not list(drawn_fields(explanation, "relevance")), "the toys of the tests show nothing"


def test_a_dot_is_as_large_as_the_weight_and_what_is_hidden_is_grey(explanation) -> None:
    tokens = (("left", 0), ("left", 1), ("right", 0))
    weights = torch.tensor([[[1.0, 0.0, 0.0], [0.25, 0.75, 0.0], [0.2, 0.3, 0.5]]])
    figure = draw_grid(explanation, Grid("transformer", 0, "self", weights, weights > 0, tokens, tokens))
    (axes,) = figure.axes
    (dots,) = axes.collections
    sizes = dict(zip(map(tuple, dots.get_offsets().astype(int).tolist()), dots.get_sizes(), strict=True))
    assert set(sizes) == {(0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 2)}
    np.testing.assert_allclose(sizes[0, 1] / sizes[0, 0], 0.25)
    assert (axes.images[0].get_array() == (weights[0] > 0).numpy()).all()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["word 0", "word 1", "word 0"]
