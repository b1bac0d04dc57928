"""Files on the disk, in the data folder and inside zips."""

from __future__ import annotations

import zipfile

import pytest

from anyformer.data import Table
from anyformer.errors import InputError
from anyformer.files import find_file, read_file


def test_a_file_is_found_from_here_and_else_in_the_data_folder(tmp_path, monkeypatch):
    here, data = tmp_path / "here", tmp_path / "sets"
    for folder in (here, data):
        folder.mkdir()
    (data / "a.csv").write_text("in the data folder")
    monkeypatch.chdir(here)
    monkeypatch.setenv("ANYFORMER_DATA", str(data))
    assert read_file(find_file("a.csv")) == b"in the data folder"
    (here / "a.csv").write_text("here")
    assert read_file(find_file("a.csv")) == b"here"
    monkeypatch.delenv("ANYFORMER_DATA")
    (here / "data").mkdir()
    (here / "data" / "b.csv").write_text("default")
    assert read_file(find_file("b.csv")) == b"default"


def test_a_missing_file_names_both_places_tried(tmp_path, monkeypatch):
    monkeypatch.setenv("ANYFORMER_DATA", str(tmp_path))
    with pytest.raises(
        InputError, match=rf"^nothing.csv: no such file; looked for nothing.csv and {tmp_path}/nothing.csv"
    ):
        find_file("nothing.csv")
    with pytest.raises(InputError, match=r"nothing.csv: no such file; looked for nothing.csv and"):
        len(Table("nothing.csv"))


def test_a_path_may_point_into_a_zip_which_is_read_in_place(tmp_path):
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as archive:
        archive.writestr("cat/1.png", b"meow")
    assert read_file(tmp_path / "train.zip" / "cat" / "1.png") == b"meow"
    assert find_file(str(tmp_path / "train.zip/cat/1.png")).endswith("train.zip/cat/1.png")
    assert [path.name for path in tmp_path.iterdir()] == ["train.zip"]


def test_missing_members_and_files_name_the_nearest(tmp_path):
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as archive:
        archive.writestr("cat_0001.png", b"meow")
    with pytest.raises(InputError, match=r"train.zip: holds no 'cat_001.png'; did you mean 'cat_0001.png'\?"):
        read_file(tmp_path / "train.zip" / "cat_001.png")
    with pytest.raises(InputError, match=r"trian.zip: no such file; did you mean 'train.zip'\?"):
        read_file(tmp_path / "trian.zip")
    with pytest.raises(InputError, match=r"none/train.zip: no such file$"):
        read_file(tmp_path / "none" / "train.zip")


def test_what_is_no_zip_or_a_damaged_one_says_so(tmp_path):
    (tmp_path / "not.zip").write_bytes(b"text")
    with pytest.raises(InputError, match=r"not.zip/a: cannot be read from the zip: File is not a zip file"):
        read_file(tmp_path / "not.zip" / "a")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a", b"0123456789")
    damaged = (tmp_path / "a.zip").read_bytes().replace(b"012345", b"012346")
    (tmp_path / "a.zip").write_bytes(damaged)
    with pytest.raises(InputError, match=r"a.zip/a: cannot be read from the zip: Bad CRC-32"):
        read_file(tmp_path / "a.zip" / "a")
    with pytest.raises(InputError, match="Is a directory"):
        read_file(tmp_path)
