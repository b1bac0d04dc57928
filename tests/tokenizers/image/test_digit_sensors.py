"""A digit as several sensors have it: that they agree, that parts are apart, and what the radar sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anyformer.data.tables import Table
from anyformer.errors import InputError
from anyformer.tokenizers.image.digit_sensors import DigitSensors, sweep


@pytest.fixture
def sounds(tmp_path: Path) -> Table:
    (tmp_path / "wav").mkdir()
    rows = [f"{i % 10}_ann_{i}.wav,{i % 10},ann,0.{4 + i % 3}" for i in range(60)]
    (tmp_path / "sounds.csv").write_text("\n".join(["file,digit,speaker,seconds", *rows]))
    return Table(str(tmp_path / "sounds.csv"), root="wav")


def test_all_sensors_have_the_digit_that_is_spoken(sounds: Table) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    label_of = {
        (image * (255 / 16)).round().astype(np.uint8).tobytes(): str(label)
        for image, label in zip(digits.images, digits.target, strict=True)
    }
    source = DigitSensors(sounds)
    for i in range(len(source)):
        record = source[i]
        assert label_of[record["picture"].tobytes()] == record["digit"] == str(i % 10) == record["sound"][0]
        assert record["radar"].shape == (6, 16) and record["speaker"] == {"speaker": "ann", "seconds": f"0.{4 + i % 3}"}
    assert source.folder == sounds.folder and source.folder_of(3) == sounds.folder_of(3)


def test_a_record_is_the_same_every_time_and_parts_share_no_picture(sounds: Table) -> None:
    train, again, held_out = DigitSensors(sounds), DigitSensors(sounds), DigitSensors(sounds, "validation")
    for name in ("picture", "radar"):
        assert np.array_equal(train[7][name], again[7][name])
    assert not np.array_equal(train[7]["radar"], DigitSensors(sounds, seed=1)[7]["radar"])
    pictures = [{source[i]["picture"].tobytes() for i in range(len(source))} for source in (train, held_out)]
    assert pictures[0].isdisjoint(pictures[1])


def test_a_sweep_tells_where_strokes_are_from_each_side() -> None:
    bar = np.zeros((8, 8), dtype=np.uint8)
    bar[:, 3:5] = 255
    echoes = sweep(bar, n_angles=2, n_ranges=5)
    # From the side an upright bar is in the middle alone; along it, it reaches over all distances.
    across, along = echoes.T
    assert across.argmax() == 2 and across[[0, 4]].tolist() == [0, 0]
    assert (along[1:4] > 0.9).all() and echoes.sum(0) == pytest.approx([5, 5])
    assert np.allclose(sweep(bar.T, 2, 5)[:, 0], along)
    # Noise is of the sweep, not of the strokes.
    assert sweep(np.zeros((8, 8), dtype=np.uint8), 3, 4).tolist() == [[0] * 3] * 4


def test_without_noise_the_radar_is_the_sweep_of_the_picture(sounds: Table) -> None:
    record = DigitSensors(sounds, speckle=0.0)[5]
    assert np.allclose(record["radar"], sweep(record["picture"], 16, 6))


def test_what_is_no_digit_is_named_with_its_row(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("file,digit,speaker,seconds\na.wav,3,ann,1\nb.wav,12,ann,1\n")
    with pytest.raises(InputError, match=r"s.csv row 1: the column 'digit' must hold 0 to 9, got 12"):
        DigitSensors(Table(str(tmp_path / "s.csv")))[0]
    with pytest.raises(InputError, match="n_angles must be at least 1"):
        DigitSensors(Table(str(tmp_path / "s.csv")), n_angles=0)
