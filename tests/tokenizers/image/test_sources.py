"""Where pictures come from: idx files, and the digits."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from anyformer.errors import InputError
from anyformer.tokenizers.image.reading import open_image
from anyformer.tokenizers.image.sources import Digits, Idx
from tests.helpers.drawn import noise

DATA = Path(os.environ.get("ANYFORMER_DATA", "data"))


def write_idx(path: Path, array: np.ndarray) -> str:
    content = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx_files_give_pictures_and_names(tmp_path, ending):
    images, labels = noise(5, 4, 6), np.array([2, 0, 1, 1, 2], np.uint8)
    places = write_idx(tmp_path / f"images{ending}", images), write_idx(tmp_path / f"labels{ending}", labels)
    (tmp_path / "classes.txt").write_text("ape\nbee\ncat\n")
    source = Idx(*places, classes=str(tmp_path / "classes.txt"), rows=(1, 5))
    assert len(source) == 4 and source.column("label") == ["ape", "bee", "bee", "cat"]
    assert np.array_equal(source[0]["image"], images[1]) and source.name(0) == f"{places[0]} picture 1"
    assert Idx(*places).column("label") == ["2", "0", "1", "1", "2"]
    assert open_image(source[0]["image"], 1).shape == (1, 4, 6)


def test_idx_files_that_do_not_fit_say_why(tmp_path):
    images, labels = write_idx(tmp_path / "images", noise(5, 4, 6)), write_idx(tmp_path / "labels", noise(4))
    with pytest.raises(InputError, match=r"labels holds 4 labels for the 5 pictures of .*images; give the two files"):
        len(Idx(images, labels))
    with pytest.raises(InputError, match=r"labels: must be an idx file of bytes with 3 axes"):
        len(Idx(labels, labels))
    with pytest.raises(InputError, match=r"nowhere: no such file"):
        len(Idx(images, "nowhere"))
    five = write_idx(tmp_path / "five", np.array([0, 1, 2, 3, 9], np.uint8))
    with pytest.raises(InputError, match=r"rows 0 to 6 were asked for, the file has pictures 0 to 5"):
        len(Idx(images, five, rows=(0, 6)))
    (tmp_path / "classes.txt").write_text("ape\nbee\n")
    with pytest.raises(InputError, match=r"classes.txt has 2 names, but .*five has the class 9"):
        len(Idx(images, five, str(tmp_path / "classes.txt")))
    (tmp_path / "short").write_bytes(Path(images).read_bytes()[:-1])
    with pytest.raises(InputError, match=r"short: the header says 5 x 4 x 6 bytes, and 119 follow"):
        len(Idx(str(tmp_path / "short"), five))
    (tmp_path / "short.gz").write_bytes(gzip.compress(Path(images).read_bytes())[:-12])
    with pytest.raises(InputError, match=r"short.gz: damaged or truncated"):
        len(Idx(str(tmp_path / "short.gz"), five))


@pytest.mark.skipif(not (DATA / "fashion_mnist").exists(), reason="needs the fashion_mnist set")
def test_the_real_files_of_fashion_mnist():
    folder = "fashion_mnist"
    source = Idx(*(f"{folder}/train-{part}-ubyte.gz" for part in ("images-idx3", "labels-idx1")))
    assert len(source) == 60_000 and source.column("label")[:8] == list("90030272")
    # The published mean is 0.286.
    assert abs(np.mean([source[i]["image"].mean() for i in range(0, 60_000, 20)]) / 255 - 0.286) < 0.005


def test_the_digits_are_all_there():
    digits = Digits()
    assert len(digits) == 1797 and digits.name(3) == "digits row 3"
    record = digits[3]
    assert record["image"].shape == (8, 8) and record["image"].dtype == np.uint8 and record["label"] == "3"
    assert digits.column("label")[:10] == [str(i) for i in range(10)]
    assert min(digits[i]["image"].min() for i in range(99)) == 0 and digits[0]["image"].max() == 239


def test_pictures_elsewhere_have_the_labels_of_the_file_beside_them_if_there_is_one(tmp_path):
    places = [str(tmp_path / f"t10k-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1")]
    write_idx(Path(places[0]), noise(5, 4, 6))
    before = Idx("train-images", "train-labels", rows=(0, 3))
    alone = before.at(places[:1], ["image"])
    assert len(alone) == 5 and alone[0].keys() == {"image"} and alone.read_from() == places[:1]
    write_idx(Path(places[1]), noise(5))
    both = before.at(places[:1], ["image"])
    assert both[0].keys() == {"image", "label"} and both.read_from() == places
    (tmp_path / "new.csv").write_text("image\n1.png\n")
    assert before.at([str(tmp_path / "new.csv")], ["image"]) is None
