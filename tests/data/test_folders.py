"""Class folders, and what a path holds."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from anyformer.data.files import read_file
from anyformer.data.folders import Folders, find_parts, open_source
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
        (
            ["cat/a.heic", "dog/b.heic", "dog/c"],
            r"no file ends in .png, .jpg, .*; there are .heic \(2\), no ending \(1\)",
        ),
        (
            ["cat/a.png", "dog/b.png", "emu/c.heic"],
            r"the class folder 'emu' holds no file that ends in .png, .*, but .heic \(1\); fill it, or take it away",
        ),
    ],
    ids=["empty", "flat", "no pictures", "a class without pictures"],
)
def test_folders_that_are_no_class_folders_say_what_is_needed(tmp_path, packing, files, message):
    if packing is place:
        (tmp_path / "pets.zip").mkdir()
    with pytest.raises(InputError, match=rf"pets.zip: {message}") as caught:
        len(Folders(packing(tmp_path / "pets.zip", *files)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("packing", [place, packed])
def test_one_class_is_enough_but_to_learn_from(tmp_path, packing):
    if packing is place:
        for name in ("flat.zip", "deep.zip"):
            (tmp_path / name).mkdir()
    flat = Folders(packing(tmp_path / "flat.zip", "cat/a.png", "cat/b.png"))
    assert flat.column("label") == ["cat", "cat"]
    with pytest.raises(InputError, match=r"there is only one class folder, 'cat'; needed is a folder for each class"):
        flat.require_classes()
    deep = Folders(packing(tmp_path / "deep.zip", "all/cat/a.png", "all/dog/b.png"))
    with pytest.raises(InputError, match=r".* only one class folder, 'all'; give .*deep.zip/all, if its"):
        deep.require_classes()
    Folders(f"{tmp_path}/deep.zip/all").require_classes()
    Folders(str(tmp_path / "flat.zip"), {"image": "file"}).require_classes()


@pytest.mark.parametrize("packing", [place, packed])
def test_what_is_left_out_is_counted_by_kind_in_one_line(tmp_path, packing, capsys):
    files = [*FILES, "cat/c.HEIC", "dog/d.heic", "dog/raw", "emu/.keep"]
    if packing is place:
        (tmp_path / "pets.zip").mkdir()
    path = packing(tmp_path / "pets.zip", *files)
    if packing is place:
        (tmp_path / "pets.zip" / "cat" / "gone.png").symlink_to("nowhere.png")
        os.mkfifo(tmp_path / "pets.zip" / "cat" / "pipe.png")
    assert len(Folders(path)) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{path}: left out: hidden (5), .heic (2), ")
    kinds = {"hidden (5)", ".heic (2)", ".txt (1)", "no ending (1)", "beside the class folders (1)"}
    kinds |= {"broken links (1)", "devices and pipes (1)"} if packing is place else set()
    assert {*line.partition("left out: ")[2].split(", ")} == kinds | {"empty class folders", "as emu (1)"}
    # Once is enough.
    assert len(Folders(path)) == 4
    assert not capsys.readouterr().err


def test_whatever_there_is_of_kinds_adds_up(tmp_path, capsys):
    path = place(tmp_path, "cat/1.png", "dog/1.png", *(f"cat/{i}.x{i}" for i in range(20)))
    assert len(Folders(path)) == 2
    assert capsys.readouterr().err.endswith("others (12)\n")


def test_where_nothing_is_left_out_nothing_is_said(tmp_path, capsys):
    assert len(Folders(place(tmp_path, "cat/1.png", "dog/1.JFIF", "dog/2.avif", "dog/3.jp2"))) == 4
    assert not capsys.readouterr().err


def test_an_empty_class_folder_is_left_out_and_one_that_is_missing_named(tmp_path):
    path = place(tmp_path, "cat/1.png", "dog/1.png")
    (tmp_path / "emu").mkdir()
    assert Folders(path).column("label") == ["cat", "dog"]
    with pytest.raises(InputError, match=r"absent: no such file; looked for absent and "):
        len(Folders("absent"))
    with pytest.raises(InputError, match=r"1.png: neither a folder nor a zip that can be read: File is not a zip file"):
        len(Folders(f"{path}/cat/1.png"))
    with pytest.raises(InputError, match=r"no column 'label'; there are file, folder"):
        len(Folders(path, {"label": "label"}))


@pytest.mark.parametrize("packing", [place, packed])
@pytest.mark.parametrize(
    ("train", "other", "part"),
    [("train", "valid", "validation"), ("Training", "test", "test"), ("val", "test", "test")],
)
def test_parts_of_a_data_set_are_no_classes(tmp_path, packing, train, other, part):
    path = packing(tmp_path / "pets", f"{train}/cat/1.png", f"{train}/dog/1.png", f"{other}/cat/1.png")
    with pytest.raises(InputError, match=rf"holds parts of a data set, and no class folders; .*pets/{other} as {part}"):
        len(Folders(path))
    # Where no class is asked for, they are pictures like others.
    assert len(Folders(path, {"image": "file"})) == 3


def test_a_class_may_be_called_train(tmp_path):
    assert Folders(place(tmp_path, "train/1.png", "bus/1.png")).column("label") == ["bus", "train"]


def test_a_part_that_two_folders_may_be_is_not_guessed():
    with pytest.raises(InputError, match=r"^dev and val may each be the validation part; give data.validation and"):
        find_parts(["train", "val", "dev"])


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


def test_a_path_that_is_nowhere_and_near_the_name_of_a_source_is_said_to_be() -> None:
    with pytest.raises(InputError, match=r"^Tabel: there is no such file and no such source; did you mean 'Table'\?$"):
        open_source("Tabel")
    assert isinstance(open_source("tabel.csv"), Table)
