"""Class folders, and what a path holds."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from anyformer.data.files import read_file
from anyformer.data.folders import Folders, open_source
from anyformer.data.splits import split
from anyformer.data.tables import Table
from anyformer.errors import InputError

DATA = Path(os.environ.get("ANYFORMER_DATA", "data"))


def place(folder: Path, *files: str) -> str:
    """A folder with files of these names."""
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"")
    return str(folder)


def packed(path: Path, *files: str) -> str:
    """A zip with files of these names."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in files:
            archive.writestr(file, b"")
    return str(path)


FILES = [
    "dog/deep/2.JPG",
    "cat/10.png",
    "cat/9.png",
    "dog/1.webp",
    "dog/notes.txt",
    ".git/cat/1.png",
    "cat/.hidden.png",
    "cat/.more/3.png",
    "__MACOSX/cat/._10.png",
    "beside.png",
]


def test_class_folders_are_a_record_a_file_in_one_sequence_everywhere(tmp_path):
    path = place(tmp_path / "pets", *FILES)
    inside = packed(tmp_path / "pets.zip", *(f"all/{file}" for file in reversed(FILES)))
    for source in (Folders(path), Folders(f"{inside}/all")):
        assert source.column("label") == ["cat", "cat", "dog", "dog"]
        assert source.column("image") == ["cat/10.png", "cat/9.png", "dog/1.webp", "dog/deep/2.JPG"]
        assert source[1] == {"image": "cat/9.png", "label": "cat"}
        assert source.name(3) == f"{source.path}/dog/deep/2.JPG"
        assert source.folder == source.path
    with pytest.raises(IndexError):
        source[4]
    assert Folders(path, {"picture": "file"}, (".png",)).column("picture") == ["beside.png", "cat/10.png", "cat/9.png"]
    assert Folders(path, {"x": "file", "y": "folder"}, ("jpg", ".PNG"))[2] == {"x": "dog/deep/2.JPG", "y": "dog"}


def test_class_folders_are_found_in_the_data_folder_and_read_in_their_zip(tmp_path, monkeypatch):
    monkeypatch.setenv("ANYFORMER_DATA", str(tmp_path))
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        archive.writestr("cat/1.png", b"meow")
        archive.writestr("dog/1.png", b"woof")
    source = Folders("pets.zip")
    assert source.name(1) == "pets.zip/dog/1.png"
    assert read_file(os.path.join(source.folder, source[1]["image"])) == b"woof"


def test_linked_class_folders_are_followed_and_a_circle_is_not(tmp_path):
    place(tmp_path / "elsewhere", "1.png")
    path = place(tmp_path / "pets", "dog/2.png")
    (tmp_path / "pets" / "cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "pets" / "dog" / "again").symlink_to(tmp_path / "pets")
    assert Folders(path).column("image") == ["cat/1.png", "dog/2.png"]


@pytest.mark.parametrize("packing", [place, packed])
@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], r"the folder is empty; needed is a folder for each class, as in .*pets.zip/cat/1.png"),
        (["a.png", "b.png"], r"a.png and the others lie in no class folder; needed is a folder for each class"),
        (["cat/a.png", "cat/b.png"], r"there is only one class folder, 'cat'; needed is a folder for each class"),
        (
            ["all/cat/a.png", "all/dog/b.png"],
            r".* only one class folder, 'all'; give .*pets.zip/all, if its",
        ),
        (
            ["cat/a.heic", "dog/b.heic", "dog/c"],
            r"no file ends in .png, .jpg, .*; there are .heic \(2\), no ending \(1\)",
        ),
        (
            ["cat/a.png", "dog/b.png", "emu/c.heic"],
            r"the class folder 'emu' holds no file that ends in .png, .*, but .heic \(1\); fill it, or take it away",
        ),
    ],
    ids=["empty", "flat", "one class", "one too deep", "no pictures", "a class without pictures"],
)
def test_folders_that_are_no_class_folders_say_what_is_needed(tmp_path, packing, files, message):
    if packing is place:
        (tmp_path / "pets.zip").mkdir()
    with pytest.raises(InputError, match=rf"pets.zip: {message}") as caught:
        len(Folders(packing(tmp_path / "pets.zip", *files)))
    assert "\n" not in str(caught.value)


def test_a_class_folder_that_is_empty_or_missing_is_named(tmp_path):
    path = place(tmp_path, "cat/1.png", "dog/1.png")
    (tmp_path / "emu").mkdir()
    with pytest.raises(InputError, match=r"the class folder 'emu' is empty; fill it, or take it away$"):
        len(Folders(path))
    with pytest.raises(InputError, match=r"absent: no such file; looked for absent and "):
        len(Folders("absent"))
    with pytest.raises(InputError, match=r"1.png: neither a folder nor a zip that can be read: File is not a zip file"):
        len(Folders(f"{path}/cat/1.png"))
    with pytest.raises(InputError, match=r"no column 'label'; there are file, folder"):
        len(Folders(path, {"label": "label"}))


def test_a_class_folder_with_one_picture_is_named_by_it(tmp_path):
    path = place(tmp_path, "cat/1.png", "cat/2.png", "dog/only.png")
    with pytest.raises(
        InputError, match=rf"at least 2 records of each 'label', but 'dog' has 1 \({path}/dog/only.png\); add records"
    ):
        split(Folders(path), {"test": 0.5}, stratify="label")


def test_a_path_opens_as_what_it_is(tmp_path):
    (tmp_path / "t.csv").write_text("file,kind\n0.png,dog\n")
    for path, kind in (
        (str(tmp_path / "t.csv"), Table),
        (place(tmp_path / "pets.v2", "cat/1.png"), Folders),
        (packed(tmp_path / "pets.zip", "all/cat/1.png"), Folders),
        (str(tmp_path / "pets.zip" / "all"), Folders),
        ("absent", Table),
    ):
        assert open_source(path) == kind(path)
    parts = [place(tmp_path / "parts", "part-0.parquet", "part-1.parquet"), place(tmp_path / "wav", "0.csv", "1.png")]
    assert [open_source(part) for part in parts] == [Table(parts[0]), Folders(parts[1])]
    (tmp_path / "broken.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"broken.zip: neither a folder nor a zip that can be read"):
        len(open_source(str(tmp_path / "broken.zip")))


@pytest.mark.skipif(not (DATA / "cifar10_small").exists(), reason="needs the cifar10_small set")
def test_a_real_zip_without_class_folders_says_so():
    flat = Folders("cifar10_small/val.zip")
    with pytest.raises(InputError, match=r"cifar10_small/val.zip: .* and the others lie in no class folder"):
        len(flat)
    assert len(Folders("cifar10_small/val.zip", {"image": "file"})) == 1000
