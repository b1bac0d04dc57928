"""Files on the disk, in the data folder and inside zips."""

from __future__ import annotations

import gzip
import os
import resource
import zipfile
from contextlib import suppress

import numpy as np
import pytest

from anyformer.data.files import (
    file_stamp,
    find_beside,
    find_file,
    is_folder,
    list_files,
    list_folders,
    open_binary,
    read_file,
    survey_files,
)
from anyformer.data.tables import Table
from anyformer.errors import InputError
from anyformer.faults import MachineError, WriteError
from tests.helpers.small_run import in_a_fork


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


def test_a_model_is_looked_for_beside_the_data_sets_too(tmp_path, monkeypatch):
    for folder in ("sets", "models/tiny", "here"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.setenv("ANYFORMER_DATA", str(tmp_path / "sets"))
    monkeypatch.chdir(tmp_path / "here")
    assert find_beside("models/tiny") == str(tmp_path / "models/tiny")
    (tmp_path / "sets/models/tiny").mkdir(parents=True)
    assert find_beside("models/tiny") == str(tmp_path / "sets/models/tiny")
    with pytest.raises(InputError, match=rf"^none: no such file; looked for none and .*/none and {tmp_path}/none"):
        find_beside("none")


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
    with pytest.raises(InputError, match="is a folder and no file"):
        read_file(tmp_path)


def test_the_files_of_a_folder_and_of_the_same_in_a_zip_are_the_same(tmp_path):
    names = ["b/2", "b/10", "a", "B", "b/c/1", ".x", "b/.y/1", "__MACOSX/b/2", "\u00e9"]
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.mkdir("empty")
        for name in names:
            (tmp_path / "t" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "t" / name).touch()
            archive.writestr(name, b"")
            archive.writestr(f"in/{name}", b"")
    found = ["B", "a", "b/10", "b/2", "b/c/1", "\u00e9"]
    assert list_files(tmp_path / "t") == list_files(tmp_path / "t.zip" / "in") == found
    assert survey_files(tmp_path / "t")[1] == survey_files(tmp_path / "t.zip" / "in")[1] == {"hidden": 3}
    assert list_files(tmp_path / "t.zip") == sorted([*found, *(f"in/{name}" for name in found)])
    assert list_files(tmp_path / "t" / "b") == list_files(tmp_path / "t.zip" / "b") == ["10", "2", "c/1"]
    assert all(map(is_folder, [tmp_path / "t", tmp_path / "t.zip", tmp_path / "t.zip" / "b", tmp_path / "t" / "b"]))
    assert not any(
        map(is_folder, [tmp_path / "t" / "a", tmp_path / "t.zip" / "a", tmp_path / "t.zip" / "none", "none"])
    )


def test_links_that_lead_back_are_counted(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1").touch()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert survey_files(tmp_path) == (["a/1"], {"links to a folder above": 1})


def test_a_zip_cannot_name_files_outside_it(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        for name in ("/etc/passwd", "../outside", "a/../../outside", "a//b", "inside"):
            archive.writestr(name, b"")
    assert list_files(tmp_path / "t.zip") == ["inside"]


def test_what_holds_no_files_says_so(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("a/b", b"")
    with pytest.raises(InputError, match=r"t.zip: holds no folder 'c'$"):
        list_files(tmp_path / "t.zip" / "c")
    with pytest.raises(InputError, match=r"none: no such folder$"):
        list_files(tmp_path / "none")
    (tmp_path / "text").write_text("text")
    with pytest.raises(InputError, match=r"text: neither a folder nor a zip that can be read: File is not a zip file$"):
        list_files(tmp_path / "text")


def test_a_zip_that_is_damaged_anywhere_says_so(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("cat/1.txt", "meow " * 50)
        archive.writestr("dog/", "")
    content, random = path.read_bytes(), np.random.default_rng(0)
    for i in range(300):
        damaged = bytearray(content)
        damaged[int(random.integers(len(content)))] ^= int(random.integers(1, 256))
        (tmp_path / f"{i}.zip").write_bytes(damaged)
        with suppress(InputError):
            list_files(tmp_path / f"{i}.zip")
            list_folders(tmp_path / f"{i}.zip")
        with suppress(InputError):
            read_file(tmp_path / f"{i}.zip" / "cat/1.txt")


def test_names_in_a_zip_may_begin_with_a_dot_and_a_slash(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("./cat/1.txt", "meow")
        archive.writestr("./dog/", "")
    assert list_files(tmp_path / "a.zip") == ["cat/1.txt"] and list_folders(tmp_path / "a.zip") == ["cat", "dog"]
    assert read_file(tmp_path / "a.zip/cat/1.txt") == b"meow"


def test_a_name_that_is_too_long_is_no_file():
    with pytest.raises(InputError, match="no such file"):
        find_file("x" * 300 + "/y")


def test_a_zip_that_changed_within_its_time_is_read_anew(tmp_path):
    path = tmp_path / "a.zip"
    seen = []
    for text in ("old", "new one"):
        with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
            archive.writestr("t.txt", text)
        os.utime(tmp_path / "b.zip", (1e9, 1e9))
        os.replace(tmp_path / "b.zip", path)
        with open_binary(f"{path}/t.txt") as file:
            seen.append((file.read(), file_stamp(f"{path}/t.txt")))
    assert [content for content, _ in seen] == [b"old", b"new one"]
    assert seen[0][1] != seen[1][1]


@pytest.mark.parametrize("name", ["t.csv.gz", "a.zip/t.csv", "a.zip/t.csv.gz"])
def test_damage_and_a_full_disk_are_told_apart_where_a_file_is_unpacked(tmp_path, name):
    """In a process of its own, that cannot write files of more than 4,000 bytes."""
    content = np.random.default_rng(0).bytes(20_000)
    packed = gzip.compress(content) if name.endswith(".gz") else content
    path = tmp_path / name
    if path.parent != tmp_path:
        with zipfile.ZipFile(path.parent, "w") as archive:
            archive.writestr(path.name, packed)
    else:
        path.write_bytes(packed)
    with open_binary(str(path)) as file:
        assert file.read() == content

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
        with pytest.raises(WriteError, match=r"t.csv(.gz)?, unpacked, cannot be written: .*; TMPDIR names the folder$"):
            open_binary(str(path))

    assert in_a_fork(fill) == 0
    place = path if path.is_file() else path.parent
    damaged = bytearray(place.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    place.write_bytes(damaged)
    with pytest.raises(InputError, match=r"damaged or truncated: ") as caught:
        open_binary(str(path))
    assert not isinstance(caught.value, MachineError)
