"""The picture of what the model sees, looked at pixel by pixel where that can be done."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from anyformer.drawing.token_strips import GAP, LABELS, SMALL, TITLE, WIDTH, draw_strips, samples_of
from anyformer.model.learned_tokens import LearnedTokens
from anyformer.packing import collate
from anyformer.tokenizers.audio.audio import Audio
from anyformer.tokenizers.episode.continuous import Vector
from anyformer.tokenizers.episode.discrete import Categories
from anyformer.tokenizers.episode.frames import Frames
from anyformer.tokenizers.episode.steps import Stretch
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.text.text import Text
from anyformer.tokens import Sample, Tokenizer, TokenSet
from tests.helpers.drawn import noise
from tests.helpers.sounds import tone
from tests.helpers.witnesses import Ids, Vectors

TOP = GAP + TITLE + GAP
LEFT = GAP + LABELS
"""Where the drawing of the first field begins."""


def drawn(sample: Sample, tokenizers: dict[str, Tokenizer], words: str = "") -> np.ndarray:
    return np.asarray(draw_strips({"": [(sample, words)]}, {"": tokenizers}))


def lines(pixels: np.ndarray, grey: np.ndarray) -> tuple[list[int], list[int]]:
    """The rows and the columns of a grey picture that are drawn over from end to end."""
    changed = (pixels != grey[:, :, None]).any(-1)
    return np.flatnonzero(changed.all(1)).tolist(), np.flatnonzero(changed.all(0)).tolist()


def test_a_picture_has_the_lines_between_its_patches() -> None:
    patches = ImagePatches((8, 12), 4, channels=1)
    image = noise(8, 12)
    sheet = drawn({"image": patches.encode(image)}, {"image": patches})
    # Each of 8 pixels down becomes 16, and so it does to the right.
    assert SMALL == 8 * 16
    grey = np.kron(image, np.ones((16, 16), np.uint8))
    shown = sheet[TOP : TOP + 128, LEFT : LEFT + 192]
    rows, columns = lines(shown, grey)
    assert {0, 64, 127} == set(rows) and {0, 64, 128, 191} == set(columns)
    inside = shown[1:64, 1:64]
    assert (inside == grey[1:64, 1:64, None]).all(), "what is within a patch is as it was"


def test_what_is_masked_of_a_picture_is_covered() -> None:
    patches = ImagePatches((8, 8), 4, channels=1)
    tokens = patches.encode(np.zeros((8, 8), np.uint8))
    tokens = replace(tokens, masked=torch.tensor([False, True, False, False]))
    sheet = drawn({"image": tokens}, {"image": patches})[TOP : TOP + 128, LEFT : LEFT + 128]
    centres = sheet[32::64, 32::64].max(-1)
    assert (centres > 0).tolist() == [[False, True], [False, False]]


def test_a_sound_is_cut_along_its_time() -> None:
    audio = Audio()
    tokens = audio.encode((tone(440.0, 0.4).numpy(), 16_000))
    mel = audio.show(tokens)
    scale = 160 // mel.shape[0]
    grey = np.kron(mel[:, :, 0], np.ones((scale, scale), np.uint8))
    shown = drawn({"audio": tokens}, {"audio": audio})[TOP : TOP + grey.shape[0], LEFT : LEFT + grey.shape[1]]
    rows, columns = lines(shown, grey)
    wanted = {min(round(i * grey.shape[1] / len(tokens)), grey.shape[1] - 1) for i in range(len(tokens) + 1)}
    assert wanted <= set(columns) and len(columns) < 2 * len(wanted)
    assert rows == [0, grey.shape[0] - 1]


def borders(row: np.ndarray) -> int:
    """How often a row of pixels meets the border of a box: a dark line one pixel wide."""
    dark = row.min(-1) < 200
    return int((dark[1:] & ~dark[:-1]).sum())


def test_a_text_is_a_box_for_each_piece() -> None:
    text = Text("characters").fit(["abc "])
    tokens = text.encode("a cab")
    sheet = drawn({"text": tokens}, {"text": text}, "a title")
    # Along the upper edge of the boxes, below their line, only borders are dark.
    assert borders(sheet[TOP + 2, LEFT - 1 : WIDTH]) == 5 + 1
    assert text.pieces(tokens) == ["a", " ", "c", "a", "b"]


def test_a_long_text_says_how_much_is_left_out() -> None:
    text = Text("bytes")
    short, long = (drawn({"text": text.encode("m" * n)}, {"text": text}) for n in (1000, 100_000))
    assert short.shape[0] == long.shape[0] < 300


def test_an_episode_has_a_column_for_each_step() -> None:
    state = Vector(shape=(2,), max_steps=9).fit([np.random.default_rng(0).normal(size=(9, 2))])
    action = Categories(counts=(3,), shape=(), max_steps=9)
    steps = np.array([4, 5, 6])
    sample = {
        "state": state.encode(Stretch(np.ones((3, 2), np.float32), steps)),
        "action": action.encode(Stretch(np.array([0, 2, 1]), steps)),
    }
    sheet = drawn(sample, {"state": state, "action": action})
    assert action.pieces(sample["action"]) == ["0", "2", "1"]
    assert state.pieces(sample["state"]) == ["1 1"] * 3
    # The boxes of both fields stand below each other: below the heads of the steps 2 lines of numbers, then 1.
    state_row, action_row = TOP + 16 + 2 * 14 + 2, TOP + 16 + 33 + GAP + 16
    ends = [np.flatnonzero(sheet[y, LEFT:].min(-1) < 200) for y in (state_row, action_row)]
    assert len(ends[0]) == 4 and (np.diff(ends[0]) == np.diff(ends[0])[0]).all()
    assert set(ends[0]) <= set(ends[1])


def test_frames_stand_side_by_side_with_their_patches() -> None:
    frames = Frames(patch=4, shape=(8, 8), max_steps=9)
    values = noise(3, 8, 8)
    tokens = frames.encode(Stretch(values, np.arange(3)))
    assert (frames.show(tokens) == np.hstack(list(values))[:, :, None]).all()
    grey = np.kron(np.hstack(list(values)), np.ones((16, 16), np.uint8))
    shown = drawn({"frames": tokens}, {"frames": frames})[TOP : TOP + 128, LEFT : LEFT + 384]
    assert lines(shown, grey) == ([0, 64, 127], [0, 64, 128, 192, 256, 320, 383])
    # The one at the top right of the second frame.
    masked = torch.zeros(12, dtype=torch.bool).index_fill(0, torch.tensor(5), True)
    dark = frames.encode(Stretch(0 * values, np.arange(3)))
    sheet = drawn({"frames": replace(dark, masked=masked)}, {"frames": frames})[TOP : TOP + 128, LEFT : LEFT + 384]
    assert np.argwhere(sheet[32::64, 32::64].max(-1)).tolist() == [[0, 3]]


def test_content_without_a_form_is_drawn_as_it_is() -> None:
    sheet = drawn({"set": TokenSet(torch.tensor([[0.0, 1.0], [2.0, 4.0]]))}, {"set": Vectors(2)})
    shown = sheet[TOP : TOP + 32, LEFT : LEFT + 32]
    assert shown[8::16, 8::16, 0].T.tolist() == [[0, 63], [127, 255]]


def test_ids_without_words_and_learned_tokens_are_boxes() -> None:
    ids = Ids(100)
    sample = {"ids": ids.encode([7, 42]), "class": LearnedTokens(1).encode()}
    sheet = drawn(sample, {"ids": ids, "class": LearnedTokens(1)})
    assert borders(sheet[TOP + 2, LEFT - 1 :]) == 2 + 1


def test_narrow_samples_stand_side_by_side_and_groups_below_each_other() -> None:
    patches = ImagePatches((8, 8), 4, channels=1)
    sample = {"image": patches.encode(noise(8, 8))}
    one = draw_strips({"": [(sample, "")]}, {"": {"image": patches}})
    six = draw_strips(
        {"": [(sample, "")] * 3, "b": [(sample, "")] * 3}, {"": {"image": patches}, "b": {"image": patches}}
    )
    assert six.width <= WIDTH + 2 * GAP and six.height == 2 * one.height - GAP


def test_the_samples_of_a_batch_come_back() -> None:
    text, patches = Text("bytes"), ImagePatches((8, 8), 4, channels=1)
    fields = {"text": text, "image": patches}
    sample = {"text": text.encode("hi").at(torch.tensor([1, 2])), "image": patches.encode(noise(8, 8))}
    again = samples_of([collate([sample], fields)])
    for name, tokens in sample.items():
        assert torch.equal(again[name].content, tokens.content) and torch.equal(again[name].order, tokens.order)
        assert torch.equal(again[name].position, tokens.position) and again[name].extent == tokens.extent
    assert set(samples_of([collate([{"text": text.encode("a")}], fields)])) == {"text"}


@pytest.mark.parametrize("size", [(3000, 20), (20, 3000), (1, 1)], ids=str)
def test_pictures_of_any_shape_fit(size: tuple[int, int]) -> None:
    class Shown(Ids):
        def show(self, tokens: TokenSet) -> np.ndarray:
            return np.zeros((*size, 3), np.uint8)

    sheet = Image.fromarray(drawn({"x": Shown().encode([1, 2, 3])}, {"x": Shown()}))
    assert sheet.width <= WIDTH + 2 * GAP and sheet.height < 300
