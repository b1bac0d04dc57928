"""Patches of pictures and their inverse, and the laws of their lifts."""

from __future__ import annotations

import os
from pathlib import Path

import jsonargparse
import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from anyformer.errors import InputError
from anyformer.packing import collate
from anyformer.tokenizers.image.augmentation import Augmentation
from anyformer.tokenizers.image.patches import ConvStem, ImagePatches
from anyformer.tokenizers.image.reading import open_image
from tests.helpers.drawn import encoded, noise, smooth
from tests.helpers.lifts import assert_lifted_alone

DATA = Path(os.environ.get("ANYFORMER_DATA", "data"))


PATCHES = {
    "linear": ImagePatches((8, 12), patch=4, channels=3),
    "own size": ImagePatches(None, patch=4, channels=1),
    "stem": ImagePatches((8, 12), patch=4, stem=ConvStem(d_hidden=5)),
    "stem, own size": ImagePatches(None, patch=2, channels=1, stem=ConvStem(kernel=5)),
}


# Patches


@pytest.mark.parametrize("tokenizer", PATCHES.values(), ids=PATCHES)
@pytest.mark.parametrize("seed", range(3))
def test_decode_inverts_encode(tokenizer, seed):
    picture = noise(8, 12, tokenizer.channels, seed=seed)
    tokens = tokenizer.encode(picture)
    assert torch.equal(tokenizer.decode(tokens), open_image(picture, tokenizer.channels))
    assert len(tokens) == tokenizer.count(picture) == (8 // tokenizer.patch) * (12 // tokenizer.patch)


def test_a_patch_is_a_square_at_its_row_and_column():
    picture = np.arange(6 * 9, dtype=np.uint8).reshape(6, 9)
    tokens = ImagePatches((6, 9), patch=3, channels=1, mean=(0,), std=(1 / 255,)).encode(picture)
    assert tokens.position.tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    assert tokens.extent == (2, 3) and tokens.content.shape == (6, 9) and tokens.order.tolist() == [0] * 6
    assert tokens.content[5].tolist() == pytest.approx([33, 34, 35, 42, 43, 44, 51, 52, 53])


def test_pixels_are_normalised_by_channel():
    picture = np.array([[[0, 51, 255]]], dtype=np.uint8)
    tokens = ImagePatches((1, 1), patch=1, mean=(0, 0.2, 0.5), std=(1, 0.1, 0.25)).encode(picture)
    assert tokens.content[0].tolist() == pytest.approx([0, 0, 2], abs=1e-6)


@given(st.integers(4, 19), st.integers(4, 19), st.booleans())
def test_pictures_of_their_own_size_lose_less_than_a_patch_evenly(rows, columns, stem):
    tokenizer = ImagePatches(None, patch=4, channels=1, stem=ConvStem(3) if stem else None)
    picture = noise(rows, columns)
    tokens = tokenizer.encode(picture)
    assert len(tokens) == tokenizer.count(picture) == (rows // 4) * (columns // 4)
    top, left = rows % 4 // 2, columns % 4 // 2
    kept = picture[top : top + rows // 4 * 4, left : left + columns // 4 * 4]
    assert torch.equal(tokenizer.decode(tokens)[0], torch.from_numpy(kept))
    assert len(tokenizer.lift(5)(tokens.content, (tokens.extent,))) == len(tokens)


def test_other_sizes_are_resized_and_counted_without_opening(tmp_path):
    tokenizer = ImagePatches((8, 8), patch=2)
    assert len(tokenizer.encode(smooth(31, 17))) == tokenizer.count(tmp_path / "is not even there") == 16
    assert tokenizer.sizes == {"row": 4, "column": 4} and ImagePatches(None).sizes == {}
    flat = tokenizer.decode(tokenizer.encode(np.full((31, 17, 3), 77, dtype=np.uint8)))
    assert (flat == 77).all()


@pytest.mark.parametrize("resize", ["crop", "stretch"])
def test_the_middle_is_taken_or_all_of_it(resize):
    tokenizer, picture = ImagePatches((8, 8), patch=2, resize=resize), smooth(32, 64)
    wanted = picture[:, 16:48] if resize == "crop" else picture
    expected = np.asarray(Image.fromarray(wanted).resize((8, 8), Image.Resampling.BILINEAR)).astype(float)
    resized = tokenizer.decode(tokenizer.encode(picture)).permute(1, 2, 0).numpy()
    assert np.abs(resized - expected).max() <= 1


@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1), (3, 400)])
def test_a_strip_is_refused_before_it_is_made_square(shape):
    with pytest.raises(InputError, match=rf"of {shape[0]} x {shape[1]} pixels is more than 100 times as long"):
        ImagePatches((32, 32)).encode(np.zeros(shape, np.uint8))
    with pytest.raises(InputError, match=rf"{shape[0]} x {shape[1]} pixels is smaller than one patch of 4"):
        ImagePatches(None).encode(np.zeros(shape, np.uint8))


@given(st.integers(4, 90), st.integers(4, 90), st.integers(1, 40))
def test_a_picture_of_its_own_shape_keeps_its_budget_and_its_shape(rows, columns, budget):
    tokenizer = ImagePatches(None, patch=4, channels=1, max_patches=budget)
    picture = np.zeros((rows, columns), np.uint8)
    try:
        tokens = tokenizer.encode(picture)
    except InputError as error:
        # Of whole patches there are few shapes within a small budget.
        assert "has no like shape within max_patches" in str(error) and budget < 9 * max(rows / columns, columns / rows)
        return
    assert 1 <= len(tokens) == tokenizer.count(picture) <= budget
    height, width = tokens.extent
    if (rows // 4) * (columns // 4) <= budget:
        assert (height, width) == (rows // 4, columns // 4)
    else:
        assert 1 / 2 < (height / width) / (rows / columns) < 2


def test_a_turned_picture_has_as_many_patches_as_its_header_says():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(Image.fromarray(smooth(30, 70)), "JPEG", exif=exif)
    for tokenizer in (ImagePatches(None, patch=4), ImagePatches(None, patch=4, max_patches=30)):
        tokens = tokenizer.encode(content)
        assert tokens.extent[0] > tokens.extent[1] and len(tokens) == tokenizer.count(content)


def test_a_picture_smaller_than_a_patch_is_refused():
    with pytest.raises(InputError, match="a picture of 3 x 50 pixels is smaller than one patch of 4; give a size"):
        ImagePatches(None, patch=4).encode(noise(3, 50))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (8, 9)}, r"size must be multiples of patch=4, got \(8, 9\)"),
        ({"size": (0, 8)}, r"size must be multiples of patch=4, got \(0, 8\)"),
        ({"patch": 0}, "patch must be at least 1, got 0"),
        ({"channels": 4}, r"channels must be 1 \(grey\) or 3 \(colour\), got 4"),
        ({"mean": (0.5, 0.5)}, "mean must be one number or 3, got 2"),
        ({"std": (0.0,)}, r"std must be above 0, got \(0.0,\)"),
        ({"max_patches": 9}, r"max_patches must be at least 1 and needs size: null, got 9 with size \(32, 32\)"),
        ({"size": (9, 9), "patch": 3, "stem": ConvStem()}, "patch must be a power of 2 where there is a stem, got 3"),
    ],
)
def test_options_that_cannot_be_say_why(options, message):
    with pytest.raises(InputError, match=message):
        ImagePatches(**options)


def test_stems_that_cannot_be_say_why():
    with pytest.raises(InputError, match=r"stem.kernel must be odd, got 4"):
        ConvStem(kernel=4)
    with pytest.raises(InputError, match=r"stem.d_hidden must be at least 1, got 0"):
        ConvStem(d_hidden=0)


def test_a_yaml_names_it_with_lists():
    parser = jsonargparse.ArgumentParser()
    parser.add_class_arguments(ImagePatches, "image")
    plain = {"size": [8, 8], "patch": 2, "channels": 1, "mean": [0.3], "stem": {"d_hidden": 7}}
    plain["augment"] = {"shift": 1, "scale": [0.2, 1.0]}
    augment = Augmentation(shift=1.0, scale=(0.2, 1.0))
    expected = ImagePatches((8, 8), 2, 1, mean=(0.3,), stem=ConvStem(7), augment=augment)
    assert parser.instantiate(parser.parse_object({"image": plain})).image == expected
    assert hash(ImagePatches([8, 8], 2, mean=[0.3])) == hash(ImagePatches((8, 8), 2, mean=(0.3,)))


# Lifts


def redrawn(module: torch.nn.Module) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.data.normal_(std=0.5, generator=generator)
    return module


@pytest.mark.parametrize("stem", [None, ConvStem(d_hidden=5), ConvStem(d_hidden=3, kernel=5)])
def test_lifting_a_batch_equals_lifting_each_sample_forward_and_gradient(stem):
    tokenizer = ImagePatches(None, patch=4, stem=stem)
    shapes = [(8, 12), (4, 4), (8, 12), (16, 5), (4, 4), (9, 22)]
    samples = [tokenizer.encode(noise(*shape, 3, seed=i)) for i, shape in enumerate(shapes)]
    lift = redrawn(tokenizer.lift(7)).double()
    assert_lifted_alone(lift, samples)


def test_a_picture_does_not_change_its_neighbour_in_the_stem():
    tokenizer = ImagePatches((8, 8), patch=4, channels=1, stem=ConvStem(d_hidden=5))
    lift = redrawn(tokenizer.lift(7))
    one, other, third = (tokenizer.encode(noise(8, 8, seed=seed)).content for seed in range(3))
    extents = ((8, 8), (8, 8))
    assert torch.equal(lift(torch.cat([one, other]), extents)[:4], lift(torch.cat([one, third]), extents)[:4])


@pytest.mark.parametrize("tokenizer", PATCHES.values(), ids=PATCHES)
def test_without_pictures_gradients_are_zero_and_not_none(tokenizer):
    lift, empty = tokenizer.lift(7), tokenizer.empty()
    vectors = lift(empty.content, ())
    assert vectors.shape == (0, 7)
    vectors.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in lift.parameters())
    sample = tokenizer.encode(noise(8, 12, 3))
    assert (empty.content.shape[1:], empty.content.dtype) == (sample.content.shape[1:], sample.content.dtype)
    assert (empty.position.shape[1:], empty.position.dtype) == (sample.position.shape[1:], sample.position.dtype)
    assert len(empty.extent) == len(sample.extent)


def test_the_linear_lift_is_timms_patch_embedding():
    witness = timm.layers.PatchEmbed(img_size=(8, 12), patch_size=4, in_chans=3, embed_dim=7)
    tokenizer = ImagePatches((8, 12), patch=4)
    lift = tokenizer.lift(7)
    lift.linear.weight.data = witness.proj.weight.data.flatten(1)
    lift.linear.bias.data = witness.proj.bias.data
    picture = noise(8, 12, 3)
    pixels = (open_image(picture)[None] / 255 - 0.5) / 0.5
    torch.testing.assert_close(lift(tokenizer.encode(picture).content), witness(pixels)[0], rtol=0, atol=1e-5)


def test_the_stem_is_that_of_compact_transformers():
    tokenizer = ImagePatches((8, 12), patch=4, stem=ConvStem(d_hidden=5))
    lift = redrawn(tokenizer.lift(7))
    layers = []
    for convolution in lift.convolutions:
        layers += [convolution, torch.nn.ReLU(), torch.nn.MaxPool2d(3, stride=2, padding=1)]
    picture = noise(8, 12, 3)
    tokens = tokenizer.encode(picture)
    expected = torch.nn.Sequential(*layers)((open_image(picture)[None] / 255 - 0.5) / 0.5).flatten(2)[0].T
    torch.testing.assert_close(lift(tokens.content, (tokens.extent,)), expected, rtol=0, atol=1e-5)
    assert [convolution.in_channels for convolution in lift.convolutions] == [3, 5]


def test_a_batch_is_collated_from_pictures_of_several_sizes():
    tokenizer = ImagePatches(None, patch=2, channels=1, stem=ConvStem())
    samples = [{"image": tokenizer.encode(noise(*shape))} for shape in ((4, 6), (2, 2), (4, 6))]
    tokens = collate(samples, {"image": tokenizer}).fields["image"]
    assert tokens.extents == ((4, 6), (2, 2), (4, 6)) and len(tokens.content) == 52 and len(tokens.position) == 13
