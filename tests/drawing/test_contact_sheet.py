"""The contact sheet: what the model sees, without moving anything in the run that it is drawn for."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from anyformer.data.batch_plan import Plan, plan_batches
from anyformer.data.samples import Samples
from anyformer.data.source import Source
from anyformer.drawing.contact_sheet import GAP, IN_A_ROW, LINE, SIDE, draw_samples, draw_sheet
from anyformer.errors import InputError
from anyformer.tasks.classify.classify import Classify
from anyformer.tasks.predict.batch import Item
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.image.sources import Digits
from anyformer.tokens import TokenSet
from tests.helpers.drawn import noise
from tests.helpers.witnesses import Ids, Numbers


def cells(sheet: Image.Image, width: int = SIDE, height: int = SIDE) -> list[np.ndarray]:
    """The pictures of a sheet, by their places."""
    whole = np.asarray(sheet)
    return [
        whole[y : y + height, x : x + width]
        for y in range(GAP, whole.shape[0] - GAP, height + 2 * LINE + GAP)
        for x in range(GAP, whole.shape[1] - GAP, width + GAP)
    ]


def sheet_of(task: Classify, source: Source, **options: Any) -> tuple[Image.Image | None, Plan]:
    samples = Samples(source, task.chopper(training=True), True, seed=3, **options)
    plan = plan_batches(len(source), batch_size=5, seed=3)
    return draw_samples(samples, plan, task.preview), plan


def test_it_shows_the_first_draws_of_epoch_0_whole_pixels_and_labels() -> None:
    task = Classify({"image": ImagePatches((8, 8), 4, channels=1)}, classes=list(range(10)))
    sheet, plan = sheet_of(task, Digits())
    first = [draw.index for batch in plan.epoch(0) for draw in batch][:32]
    shown = cells(sheet)
    assert len(shown) == 32
    for cell, i in zip(shown, first, strict=True):
        picture = np.kron(Digits()[i]["image"], np.ones((14, 14), np.uint8))
        assert np.array_equal(cell, np.repeat(picture[:, :, None], 3, 2))
    # Under each picture stand words.
    words = np.asarray(sheet)[GAP + SIDE : GAP + SIDE + LINE]
    assert all((words[:, GAP + i * (SIDE + GAP) :][:, :12] < 128).any() for i in range(IN_A_ROW))


class Patches(ImagePatches):
    """Turns a picture over as its augmentation, or not."""

    def encode(self, record: Any, random: np.random.Generator | None = None) -> TokenSet:
        return super().encode(record[::-1].copy() if random is not None and random.random() < 0.5 else record)


def test_augmentation_shows_and_is_that_of_the_run() -> None:
    task = Classify({"image": Patches((8, 8), 4, 1)}, classes=list(range(10)))
    sheet, plan = sheet_of(task, Digits())
    samples, turned = Samples(Digits(), task.chopper(training=True), True, seed=3), 0
    for cell, draw in zip(cells(sheet), chain.from_iterable(plan.epoch(0)), strict=False):
        seen = task.tokenizers["image"].show(samples[draw][0]["image"])
        assert np.array_equal(cell, np.kron(seen, np.ones((14, 14, 1), np.uint8)))
        turned += not np.array_equal(seen[:, :, 0], Digits()[draw.index]["image"])
    assert 5 < turned < 27


def test_pictures_of_any_shape_fit_and_stand_side_by_side() -> None:
    tall, small = noise(500, 3, 3), noise(5, 7, 3, seed=1)
    sheet = draw_sheet([([tall, small], "cat"), ([], "dog"), ([small], "a very long name " * 9)])
    first, second, third = cells(sheet, 1 + GAP + 112)
    assert np.array_equal(first[:80, 1 + GAP :], np.kron(small, np.ones((16, 16, 1), np.uint8)))
    assert (second == 0xEE).all()
    assert np.array_equal(third[:80, :112], first[:80, 1 + GAP :])


def test_the_words_are_the_class_or_the_two_likeliest_of_a_distribution() -> None:
    task = Classify({"image": ImagePatches()}, classes=["cat", "dog", "emu"])
    for target, words in (
        (torch.tensor(1), "dog"),
        (torch.tensor([0.0, 0.004, 0.996]), "emu"),
        (torch.tensor([0.012, 0.0, 0.988]), "emu 0.99 cat 0.01"),
        (torch.tensor([0.25, 0.7, 0.05]), "dog 0.7 cat 0.25"),
    ):
        assert task.preview(Item({}, {"label": target})) == ({}, words)


def test_fields_that_show_nothing_make_no_sheet() -> None:
    task = Classify({"x": Ids()}, classes=["even", "odd"])
    assert sheet_of(task, Numbers(9))[0] is None


class Broken(Digits):
    """The digits, of which every third is no picture."""

    def __getitem__(self, i: int) -> dict[str, Any]:
        return super().__getitem__(i) | ({"image": b"none"} if i % 3 == 0 else {})


def test_a_picture_that_cannot_be_used_stops_or_is_skipped_as_in_training() -> None:
    task = Classify({"image": ImagePatches((8, 8), 4, channels=1)}, classes=list(range(10)))
    with pytest.raises(InputError, match=r"^digits row \d+: field 'image': picture: not a picture that can be read"):
        sheet_of(task, Broken())
    sheet, plan = sheet_of(task, Broken(), on_bad_sample="skip")
    used = [draw.index for batch in plan.epoch(0) for draw in batch][:32]
    used = [i for i in used if i % 3]
    assert np.asarray(sheet).shape[0] == GAP + -(-len(used) // IN_A_ROW) * (SIDE + 2 * LINE + GAP)
