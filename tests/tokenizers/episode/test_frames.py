"""Patches of what an agent sees; the laws of all step tokenizers are in test_trajectory.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anyformer.errors import InputError
from anyformer.tokenizers.episode.frames import Frames
from anyformer.tokenizers.episode.steps import Stretch
from anyformer.tokenizers.image.patches import ConvStem, ImagePatches
from tests.helpers.drawn import noise
from tests.helpers.witnesses import redraw

STEPS = np.array([7, 8])


@pytest.mark.parametrize("stem", [None, ConvStem(5)], ids=["linear", "stem"])
@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((5, 7), (1, 5, 7)),
        ((5, 7, 3), (3, 5, 7)),
        ((2, 5, 7), (2, 5, 7)),
        ((7, 5, 4), (4, 7, 5)),
        ((2, 7, 3), (3, 2, 7)),
        ((2, 5, 7, 3), (6, 5, 7)),
    ],
    ids=str,
)
def test_pictures_of_every_layout_come_back(shape: tuple[int, ...], size: tuple[int, ...], stem: ConvStem) -> None:
    frames = Frames(patch=2, stem=stem, shape=shape)
    values = noise(2, *shape)
    tokens = frames.encode(Stretch(values, STEPS))
    assert frames.size == size
    assert len(tokens) == 2 * frames.n_each == 2 * -(-size[1] // 2) * -(-size[2] // 2)
    again = frames.decode(tokens)
    assert again.dtype == np.uint8 and (again == values).all()


@pytest.mark.parametrize("stem", [None, ConvStem(5)], ids=["linear", "stem"])
def test_a_frame_is_cut_and_lifted_as_a_picture_of_its_size(stem: ConvStem | None) -> None:
    frames = Frames(patch=4, stem=stem, shape=(8, 12, 3))
    picture = ImagePatches((8, 12), patch=4, stem=stem)
    values = noise(2, 8, 12, 3)
    tokens, alone = frames.encode(Stretch(values, STEPS)), [picture.encode(frame) for frame in values]
    torch.testing.assert_close(tokens.content, torch.cat([one.content for one in alone]))
    assert tokens.position[:, 1:].tolist() == 2 * alone[0].position.tolist()
    assert tokens.position[:, 0].tolist() == [7] * 6 + [8] * 6
    lift, other = frames.lift(7), picture.lift(7)
    redraw(lift)
    other.load_state_dict(lift.state_dict())
    expected = other(torch.cat([one.content for one in alone]), tuple(one.extent for one in alone))
    torch.testing.assert_close(lift(tokens.content, (tokens.extent,)), expected)


def test_the_rest_of_a_patch_is_black_on_the_right_and_below() -> None:
    frames = Frames(patch=2, shape=(3, 3))
    tokens = frames.encode(Stretch(np.full((1, 3, 3), 255, np.uint8), STEPS[:1]))
    assert tokens.content.tolist() == [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, -1]]
    assert frames.sizes == {"row": 2, "column": 2}


@pytest.mark.parametrize(
    ("shape", "stem", "side", "n_each"),
    [((64, 64, 3), None, 16, 16), ((84, 84), None, 21, 16), ((84, 84), ConvStem(), 16, 36), ((1, 9), None, 1, 9)],
    ids=str,
)
def test_a_patch_is_a_quarter_of_the_shorter_side(shape: tuple, stem: ConvStem, side: int, n_each: int) -> None:
    frames = Frames(stem=stem, shape=shape)
    assert (frames.side, frames.n_each) == (side, n_each)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch": 0}, "patch must be at least 1, got 0"),
        ({"patch": 3, "stem": ConvStem()}, "patch must be a power of 2 where there is a stem, got 3"),
        ({"shape": (4,)}, r"pictures have 2 to 4 axes, got the shape \(4,\); use Vector for it"),
        ({"dtype": "float32"}, "pictures are uint8, got a space of float32; use Vector for it"),
    ],
)
def test_options_that_cannot_be_say_why(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Frames(**options)


def test_what_is_no_pixel_is_named_with_its_step() -> None:
    frames, values = Frames(shape=(2, 2)), np.zeros((3, 2, 2))
    frames.check(values, "here")
    values[1, 0, 1] = 256
    with pytest.raises(InputError, match="here, step 1: value 1 is 256, and the space is from 0 to 255"):
        frames.check(values, "here")
