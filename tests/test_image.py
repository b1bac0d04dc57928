"""Pictures: what comes through the door, patches and their inverse, and the laws of their lifts."""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import jsonargparse
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from anyformer.data import Table
from anyformer.errors import InputError
from anyformer.loading import Chopper, Draw, Samples
from anyformer.tokenizers.image import ConvStem, Digits, ImagePatches, image_size, open_image
from anyformer.tokens import collate

DATA = Path(os.environ.get("ANYFORMER_DATA", "data"))


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def smooth(rows: int, columns: int) -> np.ndarray:
    """A colour picture that lossy formats keep."""
    y, x = np.mgrid[:rows, :columns]
    return np.stack([255 * y / rows, 255 * x / columns, 128 + 0 * x], -1).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


PATCHES = {
    "linear": ImagePatches((8, 12), patch=4, channels=3),
    "own size": ImagePatches(None, patch=4, channels=1),
    "stem": ImagePatches((8, 12), patch=4, stem=ConvStem(d_hidden=5)),
    "stem, own size": ImagePatches(None, patch=2, channels=1, stem=ConvStem(kernel=5)),
}


# The door


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP", "PPM"])
def test_a_file_a_zip_bytes_an_image_and_an_array_give_the_same_tensor(tmp_path, kind):
    array = noise(5, 7, 3)
    content = encoded(Image.fromarray(array), kind, **({"lossless": True} if kind == "WEBP" else {}))
    (tmp_path / "a.picture").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("in/a.picture", content)
    expected = torch.from_numpy(array).permute(2, 0, 1)
    for picture in (
        array,
        content,
        Image.fromarray(array),
        tmp_path / "a.picture",
        f"{tmp_path}/a.zip/in/a.picture",
        {"bytes": content, "path": None},
        {"bytes": None, "path": str(tmp_path / "a.picture")},
        array / 255,
        array.astype(np.float32) / 255,
        array.astype(np.uint16) * 257,
    ):
        assert torch.equal(open_image(picture), expected)
        assert image_size(picture) == (5, 7)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I", "I;16", "F"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_becomes_grey_or_colour(mode, channels):
    levels = np.repeat(np.array([[0, 255, 255, 0]], dtype=np.uint8), 3, 0)
    image = Image.fromarray(levels)
    if mode == "F":
        image = Image.fromarray(levels.astype(np.float32) / 255)
    elif mode in ("I", "I;16"):
        image = Image.fromarray(levels.astype(np.uint16) * 257).convert(mode)
    else:
        image = image.convert("RGBA").convert(mode) if mode == "PA" else image.convert(mode)
    assert image.mode == mode
    tensor = open_image(image, channels)
    assert tensor.dtype == torch.uint8 and tensor.shape == (channels, 3, 4)
    assert torch.allclose(tensor.float(), torch.from_numpy(levels).float().expand(channels, 3, 4), atol=1)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_files_of_16_bits_are_rounded_to_8(kind):
    levels = np.array([[0, 51, 204, 255]], dtype=np.uint8)
    content = encoded(Image.fromarray(levels.astype(np.uint16) * 257), kind)
    assert Image.open(io.BytesIO(content)).mode.startswith("I")
    assert open_image(content, 1)[0].tolist() == levels.tolist()


def test_grey_of_an_array_is_the_grey_of_its_file():
    array = noise(9, 11, 3)
    assert torch.equal(open_image(array, 1), open_image(encoded(Image.fromarray(array), "PNG"), 1))


def test_what_is_transparent_lies_over_white():
    clear = np.zeros((2, 2, 4), dtype=np.uint8)
    clear[0, 0] = (200, 100, 50, 255)
    clear[0, 1] = (0, 0, 0, 51)
    for picture in (clear, encoded(Image.fromarray(clear), "PNG")):
        tensor = open_image(picture)
        assert tensor[:, 0, 0].tolist() == [200, 100, 50]
        assert tensor[:, 0, 1].tolist() == [204] * 3
        assert (tensor[:, 1] == 255).all()
    palette = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), "L").convert("P")
    assert open_image(encoded(palette, "PNG", transparency=0))[:, 0, 0].tolist() == [255] * 3


def test_pictures_are_turned_upright():
    array = smooth(16, 24)
    exif = Image.Exif()
    exif[0x0112] = 6  # a camera held upright: to be turned a quarter to the right
    turned = open_image(encoded(Image.fromarray(array), "JPEG", exif=exif, quality=95))
    assert turned.shape == (3, 24, 16)
    upright = torch.from_numpy(np.rot90(array, -1).copy()).permute(2, 0, 1)
    assert (turned.float() - upright.float()).abs().mean() < 3


def test_an_animation_gives_its_first_frame():
    frames = [Image.fromarray(np.full((3, 5), level, dtype=np.uint8)) for level in (10, 200)]
    assert (open_image(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), 1) == 10).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
def test_a_truncated_picture_is_refused(tmp_path, kind):
    content = encoded(Image.fromarray(noise(40, 50, 3)), kind)
    (tmp_path / "half").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"half: (damaged or truncated: |not a picture that can be read)"):
        open_image(tmp_path / "half")


def test_a_text_named_png_is_refused(tmp_path):
    (tmp_path / "a.png").write_text("not a picture")
    with pytest.raises(InputError, match=r"a.png: not a picture that can be read \(PNG, JPEG"):
        open_image(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"^picture: not a picture"):
        open_image(b"")
    with pytest.raises(InputError, match=r"b.png: no such file; did you mean 'a.png'"):
        open_image(tmp_path / "b.png")


def test_a_broken_picture_in_a_parquet_file_fails_or_is_skipped_with_its_row(tmp_path):
    whole = {"bytes": encoded(Image.fromarray(noise(8, 8, 3)), "PNG"), "path": None}
    values = [whole, {"bytes": b"garbage", "path": "a.png"}, whole, {"bytes": header(60_000, 60_000), "path": None}]
    schema = datasets.Features({"image": datasets.Image()}).arrow_schema
    pq.write_table(pa.table({"image": values}, schema=schema), tmp_path / "t.parquet")
    table, chopper = Table(str(tmp_path / "t.parquet")), Pictures({"image": ImagePatches((8, 8))})
    with pytest.raises(InputError, match=r"^\S+t.parquet row 1: field 'image': a.png: not a picture .*\)$"):
        Samples(table, chopper)[Draw(0, 1)]
    fetched = Samples(table, chopper, on_bad_sample="skip").__getitems__([Draw(0, i) for i in range(4)])
    assert [name.split()[-1] for name in fetched.batch.samples] == ["0", "2"]
    assert [line.split(": ")[0].split()[-1] for line in fetched.bad] == ["1", "3"]
    assert "row 3: field 'image': picture: the header says" in fetched.bad[1]


class Pictures(Chopper):
    """Makes lists of samples."""

    def __call__(self, record: dict[str, Any], random: np.random.Generator | None = None) -> Any:
        return self.encode(record, random)

    def collate(self, items: list[Any], rows: list[int] | None = None) -> Any:
        return SimpleNamespace(items=items)


def header(width: int, height: int) -> bytes:
    """A PNG that says it is large."""
    small = encoded(Image.fromarray(noise(2, 2)), "PNG")
    chunk = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + small[24:29]
    return small[:12] + chunk + zlib.crc32(chunk).to_bytes(4, "big") + small[33:]


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (10_000, 10_000), (8_001, 8_000)])
def test_a_huge_header_is_refused_before_it_is_decoded(tmp_path, width, height, monkeypatch):
    (tmp_path / "huge.png").write_bytes(header(width, height))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(InputError, match=r"huge.png: the header says .*more than 64,000,000"):
        open_image(tmp_path / "huge.png")
    with pytest.raises(InputError, match=r"huge.png: the header says"):
        ImagePatches(None).count(tmp_path / "huge.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
def test_flipped_bytes_give_a_picture_or_an_error_of_ours(kind):
    content = encoded(Image.fromarray(smooth(20, 30)), kind)
    random = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(content)
        for place in random.integers(0, len(content), 3):
            damaged[place] ^= int(random.integers(1, 256))
        with suppress(InputError):
            assert open_image(bytes(damaged)).dtype == torch.uint8


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros(5), r"must be \(rows, columns\) or .*, got \(5,\)"),
        (np.zeros((5, 4, 2)), r"got \(5, 4, 2\)"),
        (np.zeros((0, 4)), r"got \(0, 4\)"),
        (np.full((2, 2), 16.0), r"floats must lie between 0 and 1, got 16 to 16"),
        (np.full((2, 2), np.nan), r"floats must lie between 0 and 1, got nan to nan"),
        (np.array([[0.5, np.nan]], dtype=np.float32), r"floats must lie between 0 and 1, got nan to nan"),
        (np.array([[0.5, np.inf]]), r"floats must lie between 0 and 1, got 0.5 to inf"),
        (Image.fromarray(np.array([[0.5, np.nan]], dtype=np.float32)), r"picture: .* between 0 and 1, got nan to nan"),
        (np.full((2, 2), -1, dtype=np.int32), r"got int32 from -1 to -1"),
        (
            np.full((2, 2), 200, dtype=np.int32),
            r"must hold uint8, uint16 or floats from 0 to 1, got int32 from 200 to 200; if 255 is white, convert it by "
            r"array.astype\('uint8'\)$",
        ),
        (np.full((2, 2), 200, dtype=np.int16), r"got int16 from 200 to 200"),
        (np.full((2, 2), 200, dtype=np.uint32), r"got uint32 from 200 to 200"),
        (
            Image.fromarray(np.array([[0, 70_000]], dtype=np.int32)),
            r"^picture: levels must lie between 0 and 65535, got 0 to 70000; save it with 8 or 16 bits$",
        ),
        (np.full((2, 2), 7), r"got int64 from 7 to 7"),
        ([[1, 2], [3, 4]], r"must be a path, bytes, a PIL image or an array, got list"),
        (
            Image.fromarray(np.full((2, 2), 9.0, dtype=np.float32)),
            r"picture: a picture of floats must lie between 0 and 1",
        ),
    ],
)
def test_what_is_no_picture_says_why(picture, message):
    with pytest.raises(InputError, match=message):
        open_image(picture)


@pytest.mark.skipif(not (DATA / "cifar10_small").exists(), reason="needs the cifar10_small set")
def test_pictures_of_a_real_zip():
    table = Table("cifar10_small/val.csv", {"image": "file"}, root="{stem}.zip")
    for i in range(0, 1000, 97):
        assert open_image(os.path.join(table.folder, table[i]["image"])).shape == (3, 32, 32)


@pytest.mark.skipif(not (DATA / "nlvr").exists(), reason="needs the nlvr set")
def test_palette_pictures_of_a_real_zip():
    (archive,) = list((DATA / "nlvr").glob("val*.zip")) or list((DATA / "nlvr").glob("*.zip"))[:1]
    names = [name for name in zipfile.ZipFile(archive).namelist() if name.endswith(".png")]
    for name in names[:10]:
        assert open_image(f"{archive}/{name}").shape == (3, 100, 400)


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
    expected = np.asarray(Image.fromarray(smooth(32, 32)).resize((8, 8), Image.Resampling.BILINEAR)).astype(float)
    resized = tokenizer.decode(tokenizer.encode(smooth(32, 32))).permute(1, 2, 0).numpy()
    assert np.abs(resized - expected).max() <= 1


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
        ({"shift": -1.0}, r"shift and rotation must be at least 0, got -1.0 and 0.0"),
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
    plain = {"size": [8, 8], "patch": 2, "channels": 1, "mean": [0.3], "stem": {"d_hidden": 7}, "shift": 1}
    expected = ImagePatches((8, 8), 2, 1, mean=(0.3,), stem=ConvStem(7), shift=1.0)
    assert parser.instantiate(parser.parse_object({"image": plain})).image == expected
    assert hash(ImagePatches([8, 8], 2, mean=[0.3])) == hash(ImagePatches((8, 8), 2, mean=(0.3,)))


# Augmentation


def test_augmentation_is_drawn_from_the_generator_it_is_given():
    tokenizer = ImagePatches((8, 12), patch=4, shift=2, rotation=20)
    picture = noise(8, 12, 3)

    def content(seed):
        return tokenizer.encode(picture, None if seed is None else np.random.default_rng(seed)).content

    assert torch.equal(content(1), content(1)) and not torch.equal(content(1), content(2))
    assert torch.equal(content(None), ImagePatches((8, 12), patch=4).encode(picture).content)
    still = ImagePatches((8, 12), patch=4).encode(picture, np.random.default_rng(0))
    assert torch.equal(still.content, content(None))


class Fixed:
    """A generator that draws what it is told to."""

    def __init__(self, *values: float) -> None:
        self.values = values

    def uniform(self, low: float, high: float, size: int) -> np.ndarray:
        return np.array(self.values)


def test_a_shift_moves_down_and_right_and_black_comes_in():
    picture = noise(8, 12, 1)
    tokenizer = ImagePatches((8, 12), patch=4, channels=1, shift=3)
    moved = tokenizer.decode(tokenizer.encode(picture, Fixed(2 / 3, 1, 0)))[0].numpy()
    assert np.array_equal(moved[2:, 3:], picture[:-2, :-3, 0])
    assert not moved[:2].any() and not moved[:, :3].any()


def test_a_quarter_turn_is_a_quarter_turn():
    tokenizer = ImagePatches((8, 8), patch=4, channels=1, rotation=90)
    picture = noise(8, 8, 1)
    turned = tokenizer.decode(tokenizer.encode(picture, Fixed(0, 0, 1)))[0].numpy()
    assert np.array_equal(turned, np.rot90(picture[:, :, 0]))
    wide = ImagePatches((8, 12), patch=4, channels=1, rotation=90)
    picture = noise(8, 12, 1)
    turned = wide.decode(wide.encode(picture, Fixed(0, 0, 1)))[0].numpy()
    assert np.array_equal(turned[:, 2:-2], np.rot90(picture[:, 2:-2, 0]))


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
    contents = [sample.content.double().requires_grad_() for sample in samples]
    weights = torch.randn(sum(map(len, samples)), 7, dtype=torch.float64)

    together = lift(torch.cat(contents), tuple(sample.extent for sample in samples))
    (together * weights).sum().backward()
    gradients = [p.grad.clone() for p in (*lift.parameters(), *contents)]
    for tensor in (*lift.parameters(), *contents):
        tensor.grad = None

    alone = [lift(content, (sample.extent,)) for content, sample in zip(contents, samples, strict=True)]
    assert [len(part) for part in alone] == [len(sample) for sample in samples]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-6)
    (torch.cat(alone) * weights).sum().backward()
    for gradient, tensor in zip(gradients, (*lift.parameters(), *contents), strict=True):
        torch.testing.assert_close(gradient, tensor.grad, rtol=0, atol=1e-6)
        assert gradient.abs().sum() > 0


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


# Digits


def test_the_digits_are_all_there():
    digits = Digits()
    assert len(digits) == 1797 and digits.name(3) == "digits row 3"
    record = digits[3]
    assert record["image"].shape == (8, 8) and record["image"].dtype == np.uint8 and record["label"] == "3"
    assert digits.column("label")[:10] == [str(i) for i in range(10)]
    assert min(digits[i]["image"].min() for i in range(99)) == 0 and digits[0]["image"].max() == 239
