"""Pictures: what files, bytes and arrays are read as, and what is refused."""

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
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from anyformer.data.batch_plan import Draw
from anyformer.data.chopper import Chopper
from anyformer.data.files import PICTURES
from anyformer.data.samples import Samples
from anyformer.data.tables import Table
from anyformer.errors import InputError
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.image.reading import FORMATS, image_size, open_image
from tests.helpers.drawn import encoded, noise, smooth
from tests.helpers.table_files import write

DATA = Path(os.environ.get("ANYFORMER_DATA", "data"))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "QOI"])
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


def test_levels_of_an_array_are_rounded_and_true_is_white():
    deep = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    assert open_image(deep, 1)[0].numpy().tolist() == np.round(deep / 257).astype(int).tolist()
    shares = np.array([[0.0, 0.4, 0.6, 127.4, 127.6, 254.6, 255.0]], dtype=np.float32) / 255
    assert open_image(shares, 1)[0].tolist() == [[0, 0, 1, 127, 128, 255, 255]]
    assert open_image(np.array([[True, False]]), 1)[0].tolist() == [[255, 0]]


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


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(
    ("orientation", "undo"),
    [
        (1, lambda seen: seen),
        (2, lambda seen: seen[:, ::-1]),
        (3, lambda seen: seen[::-1, ::-1]),
        (4, lambda seen: seen[::-1]),
        (5, lambda seen: seen.transpose(1, 0, 2)),
        (6, lambda seen: seen[::-1].transpose(1, 0, 2)),
        (7, lambda seen: seen[::-1, ::-1].transpose(1, 0, 2)),
        (8, lambda seen: seen[:, ::-1].transpose(1, 0, 2)),
    ],
)
def test_every_orientation_of_exif_is_undone(kind, orientation, undo):
    stored = noise(5, 7, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    read = open_image(encoded(Image.fromarray(stored), kind, exif=exif, **options))
    assert read.permute(1, 2, 0).tolist() == undo(stored).tolist()


def test_an_animation_gives_its_first_frame():
    frames = [Image.fromarray(np.full((3, 5), level, dtype=np.uint8)) for level in (10, 200)]
    assert (open_image(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), 1) == 10).all()


def test_folders_hold_whatever_is_opened():
    Image.init()
    formats = {*FORMATS, "MPO"}  # Which Pillow finds among JPEG.
    known = {ending for ending, kind in Image.registered_extensions().items() if kind in formats}
    assert {*PICTURES} == known - {".pfm"}  # Levels without a scale.


@pytest.mark.parametrize("kind", ["JPEG", "AVIF", "MPO", "ICO"])
def test_formats_with_losses_are_read(kind):
    array = smooth(32, 32)
    read = open_image(encoded(Image.fromarray(array), kind)).permute(1, 2, 0)
    assert (read.float() - torch.from_numpy(array)).abs().mean() < 6


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "JPEG2000", "ICO", "QOI"])
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


def peak_memory(reset: bool = False) -> int:
    """The most that this process has held since the last reset, in bytes."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is asked of Linux")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
def test_flipped_bytes_give_a_picture_or_an_error_of_ours(kind):
    content = encoded(Image.fromarray(smooth(20, 30)), kind)
    random = np.random.default_rng(0)
    before = peak_memory(reset=True)
    for i in range(500):
        damaged = bytearray(content)
        for place in random.integers(0, len(content), 1 + i % 3):
            damaged[place] ^= int(random.integers(1, 256))
        with suppress(InputError):
            assert open_image(bytes(damaged)).dtype == torch.uint8
    assert peak_memory() - before < 500e6


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
        ([[1, 2], [3]], r"a picture must be numbers in lists of equal length, got '\[\[1, 2\], \[3\]\]'"),
        ([[0, 256]], r"whole numbers of a picture must lie between 0 and 255, got 0 to 256"),
        ([[0, None]], r"a picture must be numbers, in lists or in columns of their own, got '\[\[0, None\]\]'"),
        ("[[0, ", r"no such file"),
        ([0.5] * 5, r"5 numbers in a row are no square of grey pixels; give the picture as lists of rows"),
        ({"pixel0": "1", "pixel1": None}, r"a picture must be numbers, and column 'pixel1' is empty"),
        ({"file": "a.png"}, r"a picture must be numbers, in lists or in columns of their own"),
        (7, r"must be a path, bytes, a PIL image, an array or lists of numbers, got int"),
        (
            Image.fromarray(np.full((2, 2), 9.0, dtype=np.float32)),
            r"picture: a picture of floats must lie between 0 and 1",
        ),
    ],
)
def test_what_is_no_picture_says_why(picture, message):
    with pytest.raises(InputError, match=message):
        open_image(picture)


def test_lists_of_numbers_and_columns_of_pixels_are_pictures(tmp_path):
    levels = np.arange(16, dtype=np.uint8).reshape(4, 4) * 17
    expected = open_image(levels)
    columns = [f"pixel{i}" for i in range(16)]
    rows = [dict(zip(columns, levels.ravel().tolist(), strict=True)) | {"image": levels.tolist()}]
    for name in ("t.csv", "t.jsonl", "t.parquet"):
        given = rows if name != "t.csv" else [rows[0] | {"image": '"' + str(levels.tolist()) + '"'}]
        for source in ("image", columns):
            picture = Table(str(write(tmp_path / name, given)), {"image": source})[0]["image"]
            assert torch.equal(open_image(picture), expected)
            assert image_size(picture) == (4, 4)
    colours = noise(3, 5)
    assert torch.equal(open_image(colours.tolist()), open_image(colours))
    assert torch.equal(open_image((colours / 255).tolist()), open_image(colours / 255))


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
