"""Tables, class folders, sets of the hub, picks and splits."""

from __future__ import annotations

import gzip
import json
import os
import zipfile
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st
from witnesses import Numbers

from anyformer.data import Folders, Hub, Pick, Table, open_source, split
from anyformer.errors import InputError
from anyformer.files import read_file

DATA = Path(os.environ.get("ANYFORMER_DATA", "data"))


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A table in the format that the file's name asks for."""
    opened = gzip.open if path.suffix == ".gz" else open
    kind = path.name.split(".")[1]
    if kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    with opened(path, "wt", encoding="utf-8") as file:
        if kind == "jsonl":
            file.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            file.write(",".join(rows[0]) + "\n")
            file.writelines(",".join(str(value) for value in row.values()) + "\n" for row in rows)
    return path


def write_features(path: Path, columns: dict[str, list[Any]], **features: Any) -> Path:
    """A Parquet file that says of its columns what `datasets` would."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns, schema=datasets.Features(features).arrow_schema), path)
    return path


PETS = [{"file": f"{i}.png", "kind": "cat" if i % 2 else "dog"} for i in range(5)]


# Tables


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.jsonl", "t.jsonl.gz", "t.parquet"])
def test_every_format_gives_the_same_records_and_writes_nothing(tmp_path, name):
    table = Table(str(write(tmp_path / name, PETS)), columns={"image": "file", "label": "kind"})
    assert len(table) == 5
    assert table[2] == {"image": "2.png", "label": "dog"}
    assert [table[i]["label"] for i in range(5)] == table.column("label") == ["dog", "cat", "dog", "cat", "dog"]
    assert Table(table.path)[4] == {"file": "4.png", "kind": "dog"}
    assert table.folder == str(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_text_in_a_csv_stays_text_and_an_empty_cell_is_none(tmp_path):
    (tmp_path / "t.csv").write_text('\ufeffcode,word,note\n007,NA,"a\nb, c"\n1e3,null,\n')
    table = Table(str(tmp_path / "t.csv"))
    assert table[0] == {"code": "007", "word": "NA", "note": "a\nb, c"}
    assert table[1] == {"code": "1e3", "word": "null", "note": None}


def test_a_jsonl_keeps_numbers_and_lists(tmp_path):
    write(tmp_path / "t.jsonl", [{"x": 1, "y": [[0.5, 1], [2, 3]]}, {"x": 2, "y": [[4]]}])
    assert Table(str(tmp_path / "t.jsonl"))[1] == {"x": 2, "y": [[4.0]]}


def test_pictures_and_sounds_in_a_parquet_file_stay_encoded(tmp_path):
    values = [{"bytes": b"no picture", "path": "a.png"}, {"bytes": b"nor this", "path": None}, None]
    path = write_features(
        tmp_path / "t.parquet",
        {"image": values, "sound": values, "views": [values[:2], [], None], "year": [1, 2, 3]},
        image=datasets.Image(),
        sound=datasets.Audio(),
        views=datasets.List(datasets.Image()),
        year=datasets.Value("int16"),
    )
    table = Table(str(path))
    assert table[0] == {"image": values[0], "sound": values[0], "views": values[:2], "year": 1}
    assert table[2] == {"image": None, "sound": None, "views": None, "year": 3}
    assert table.column("image") == values and table[1]["sound"] == values[1]
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]


def test_classes_in_a_parquet_file_go_by_their_names(tmp_path):
    pets = datasets.ClassLabel(names=["cat", "dog"])
    columns = {"kind": [1, 0, -1, None], "x": [1, 2, 3, 4]}
    path = write_features(tmp_path / "t.parquet", columns, kind=pets, x=datasets.Value("int64"))
    table = Table(str(path))
    assert table.column("kind") == ["dog", "cat", None, None]
    assert table[0] == {"kind": "dog", "x": 1} and list(table[0]) == ["kind", "x"]
    path = write_features(tmp_path / "u.parquet", {"kind": [0, 2]}, kind=pets)
    with pytest.raises(InputError, match=r"u.parquet: cannot be read as PARQUET: column 'kind' row 1 is class 2 of 2$"):
        len(Table(str(path)))


def test_rows_cut_a_table_and_names_count_in_the_file(tmp_path):
    path = str(write(tmp_path / "t.csv", PETS))
    table = Table(path, rows=(1, 4))
    assert (len(table), table[0]["file"], table.name(0)) == (3, "1.png", f"{path} row 1")
    assert table.column("file") == ["1.png", "2.png", "3.png"]
    with pytest.raises(IndexError):
        table[3]
    with pytest.raises(InputError, match=r"t.csv: rows 3 to 6 were asked for, the table has rows 0 to 5"):
        len(Table(path, rows=(3, 6)))


def test_the_root_is_beside_the_table_and_may_follow_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv("ANYFORMER_DATA", str(tmp_path))
    write(tmp_path / "val.csv", PETS)
    with zipfile.ZipFile(tmp_path / "val.zip", "w") as archive:
        archive.writestr("1.png", b"1")
    assert Table("val.csv", root="{stem}.zip").folder == str(tmp_path / "val.zip")
    assert Table("val.csv", root="val.zip").folder == str(tmp_path / "val.zip")
    with pytest.raises(InputError, match=r"none.zip: no such file"):
        _ = Table("val.csv", root="none.zip").folder


def test_a_missing_column_names_the_nearest(tmp_path):
    path = str(write(tmp_path / "t.csv", PETS))
    with pytest.raises(InputError, match=r"t.csv: no column 'knd'; there are file, kind; did you mean 'kind'\?"):
        Table(path, columns={"label": "knd"})[0]
    with pytest.raises(InputError, match=r"t.csv: no column 'lable'; there are label; did you mean 'label'\?"):
        Table(path, columns={"label": "kind"}).column("lable")
    with pytest.raises(InputError, match=r"numbers row 0: no column 'y'; there are x, kind"):
        Numbers(3).column("y")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("t.csv", b"", "the file is empty"),
        ("t.csv", b"a,b\n", "the table has no rows"),
        ("t.txt", b"a", "a table must end in .csv, .jsonl, .json, .parquet, with or without .gz"),
        ("t.csv", b"a,b\n1,2\n1,2,3\n", "cannot be read as CSV: .*line 3"),
        ("t.csv.gz", b"a,b\n1,2\n", "cannot be read as CSV: .*gzip"),
        ("t.csv", b"a,b\n\xff\xfe,2\n", "cannot be read as CSV: .*utf-8"),
        ("t.jsonl", b'{"a": 1}\n{"a": \n', "cannot be read as JSON: "),
        ("t.parquet", b"PAR1 but not really", "cannot be read as PARQUET: "),
    ],
)
def test_a_table_that_cannot_be_read_says_so_in_one_line(tmp_path, capfd, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}: {reason}") as caught:
        len(Table(str(tmp_path / name)))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_changed_table_is_read_again(tmp_path):
    path = write(tmp_path / "t.csv", PETS)
    assert len(Table(str(path))) == 5
    write(path, PETS[:2])
    os.utime(path, ns=(1, 1))
    assert len(Table(str(path))) == 2


@pytest.mark.skipif(not (DATA / "cifar10_small").exists(), reason="needs the cifar10_small set")
def test_pictures_of_a_real_set_lie_in_its_zip():
    table = Table("cifar10_small/train.csv", {"image": "file", "label": "class"}, root="{stem}.zip")
    assert len(table) == 8000
    assert read_file(os.path.join(table.folder, table[17]["image"]))[:2] == b"\xff\xd8"
    assert Counter(table.column("label")) == dict.fromkeys(set(table.column("label")), 800)


# Class folders


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
    write(tmp_path / "t.csv", PETS)
    for path, kind in (
        (str(tmp_path / "t.csv"), Table),
        (place(tmp_path / "pets.v2", "cat/1.png"), Folders),
        (packed(tmp_path / "pets.zip", "all/cat/1.png"), Folders),
        (str(tmp_path / "pets.zip" / "all"), Folders),
        ("absent", Table),
    ):
        assert open_source(path) == kind(path)
    (tmp_path / "broken.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"broken.zip: neither a folder nor a zip that can be read"):
        len(open_source(str(tmp_path / "broken.zip")))


@pytest.mark.skipif(not (DATA / "cifar10_small").exists(), reason="needs the cifar10_small set")
def test_a_real_zip_without_class_folders_says_so():
    flat = Folders("cifar10_small/val.zip")
    with pytest.raises(InputError, match=r"cifar10_small/val.zip: .* and the others lie in no class folder"):
        len(flat)
    assert len(Folders("cifar10_small/val.zip", {"image": "file"})) == 1000


# The hub


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """A set as the hub has them, in a local folder, where what `datasets` keeps goes beside it."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "kept"))
    monkeypatch.setenv("ANYFORMER_DATA", str(tmp_path))
    folder = tmp_path / "me" / "pets" / "data"
    folder.mkdir(parents=True)
    for part, kinds in (("train", [1, 0, 1]), ("test", [0, -1])):
        write_features(
            folder / f"{part}-00000-of-00001.parquet",
            {"img": [{"bytes": b"no picture", "path": f"{i}.png"} for i in range(len(kinds))], "kind": kinds},
            img=datasets.Image(),
            kind=datasets.ClassLabel(names=["cat", "dog"]),
        )
    return tmp_path / "me" / "pets"


def test_a_set_as_the_hub_has_them_comes_encoded_and_with_the_names_of_classes(hub, capfd):
    source = Hub("me/pets", columns={"image": "img", "label": "kind"})
    assert (len(source), source.name(2)) == (3, "me/pets train row 2")
    assert source[1] == {"image": {"bytes": b"no picture", "path": "1.png"}, "label": "cat"}
    assert source.column("label") == ["dog", "cat", "dog"]
    assert Hub(str(hub), split="test").column("kind") == ["cat", None]
    assert len(Hub("me/pets", split="train[:2]")) == 2
    with pytest.raises(IndexError):
        source[3]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "trian"}, r"me/pets: cannot be loaded: Unknown split \"trian\". Should be one of .*train.*test"),
        ({"subset": "birds"}, r"me/pets: cannot be loaded: .*birds.* not found. Available: \['default'\]"),
        ({"columns": {"label": "knd"}}, r"me/pets: no column 'knd'; there are img, kind; did you mean 'kind'\?"),
        ({"path": "nobody/no-such-set"}, r"^nobody/no-such-set: cannot be loaded: Couldn't reach .* on the Hub"),
        ({"path": "no such set"}, r"^no such set: cannot be loaded: "),
    ],
)
def test_a_set_that_cannot_be_loaded_says_so_in_one_line(hub, capfd, options, message):
    with pytest.raises(InputError, match=message) as caught:
        len(Hub(**{"path": "me/pets"} | options))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_no_code_of_a_set_is_run(hub):
    (hub / "data" / "train-00000-of-00001.parquet").unlink()
    (hub / "data" / "test-00000-of-00001.parquet").unlink()
    (hub / "pets.py").write_text(f"open({str(hub / 'ran')!r}, 'w')")
    with pytest.raises(InputError, match=r"me/pets: cannot be loaded: "):
        len(Hub("me/pets"))
    assert [path.name for path in hub.iterdir() if path.is_file()] == ["pets.py"]


# Picks


def test_a_pick_is_so_many_records_of_each_value_in_the_order_of_the_source():
    assert Pick(Numbers(9), "kind", ("odd",)).column("x") == [1, 3, 5, 7]
    assert Pick(Numbers(9), "x", (7, 2)).column("x") == [2, 7]
    first = Pick(Numbers(9), "kind", each=2)
    assert first.column("x") == [0, 1, 2, 3] and first.name(3) == "numbers row 3" and first[1]["kind"] == "odd"


def test_a_drawn_pick_grows_with_each_and_does_not_depend_on_other_values():
    def drawn(seed: int, each: int, *values: str) -> list[int]:
        return Pick(Numbers(99), "kind", values, each, seed).column("x")

    few, many = drawn(3, 5, "odd"), drawn(3, 20, "odd")
    assert len(set(few)) == 5 and set(few) < set(many) and few == sorted(few) != [1, 3, 5, 7, 9]
    assert [x for x in drawn(3, 5, "even", "odd") if x % 2] == few
    assert drawn(4, 5, "odd") != few


def test_a_pick_of_what_is_not_there_says_so():
    with pytest.raises(InputError, match=r"^values: no record has 'red' as its 'kind'; there are even, odd$"):
        len(Pick(Numbers(9), "kind", ("odd", "red")))
    with pytest.raises(InputError, match=r"^each: 5 records are to be picked of every 'kind', but 'odd' has 4$"):
        len(Pick(Numbers(9), "kind", each=5))
    with pytest.raises(InputError, match=r"no column 'label'; there are x, kind"):
        len(Pick(Numbers(9)))
    with pytest.raises(InputError, match=r"each must be at least 1, got 0"):
        Pick(Numbers(9), each=0)


def test_picks_start_from_the_folder_of_their_source(tmp_path):
    assert Pick(Folders(place(tmp_path, "cat/1.png", "dog/1.png"))).folder == str(tmp_path)


# Splits


def test_a_split_is_a_partition_that_keeps_the_order():
    rest, parts = split(Numbers(103), {"test": 0.2, "validation": 0.1}, seed=3)
    taken = [[part[i]["x"] for i in range(len(part))] for part in (rest, parts["test"], parts["validation"])]
    assert sorted(chain(*taken)) == list(range(103))
    assert [len(part) for part in taken] == [72, 21, 10]
    assert all(part == sorted(part) for part in taken)
    assert parts["test"].name(0) == f"numbers row {taken[1][0]}"


def test_the_test_part_does_not_depend_on_the_validation_part():
    _, both = split(Numbers(50), {"test": 0.2, "validation": 0.3}, seed=1)
    _, alone = split(Numbers(50), {"test": 0.2}, seed=1)
    _, other = split(Numbers(50), {"test": 0.2}, seed=2)
    assert both["test"].indices.tolist() == alone["test"].indices.tolist() != other["test"].indices.tolist()


def test_a_stratified_split_gives_every_part_each_value_in_proportion(tmp_path):
    rows = [{"label": label} for label in ["a"] * 60 + ["b"] * 30 + ["c"] * 10 + ["d"] * 2]
    table = Table(str(write(tmp_path / "t.csv", rows)))
    rest, parts = split(table, {"test": 0.2, "validation": 0.1}, stratify="label")
    assert Counter(parts["test"].column("label")) == {"a": 12, "b": 6, "c": 2}
    assert Counter(parts["validation"].column("label")) == {"a": 6, "b": 3, "c": 1}
    assert Counter(rest.column("label")) == {"a": 42, "b": 21, "c": 7, "d": 2}


@given(st.lists(st.integers(2, 9), min_size=1, max_size=6), st.floats(0.05, 0.95), st.integers(0, 5))
def test_a_stratified_split_leaves_one_of_each_and_is_off_by_less_than_one(counts, fraction, seed):
    values = [value for value, count in enumerate(counts) for _ in range(count)]

    class Values(Numbers):
        def column(self, name: str) -> list[int]:
            return values

    try:
        rest, parts = split(Values(len(values)), {"part": fraction}, seed, stratify="value")
    except InputError as error:
        assert "is none at all" in str(error)
        return
    left = Counter(rest.column("value"))
    for value, count in enumerate(counts):
        assert left[value] >= 1
        assert abs((count - left[value]) - min(fraction * count, count - 1)) < 1
    assert abs(len(parts["part"]) - min(fraction * len(values), len(values) - len(counts))) <= len(counts)


def test_impossible_splits_say_why(tmp_path):
    table = Table(str(write(tmp_path / "t.csv", [{"label": label} for label in ["a", "b", "a", "a"]])))
    with pytest.raises(
        InputError, match=r"stratify needs at least 2 records of each 'label', but 'b' has 1 \(.*t.csv row 1\)"
    ):
        split(table, {"test": 0.5}, stratify="label")
    with pytest.raises(InputError, match="no column 'kind'; there are label"):
        split(table, {"test": 0.5}, stratify="kind")
    for fraction in (0.0, 1.0, -0.5, 20.0):
        with pytest.raises(InputError, match=rf"test must be a fraction between 0 and 1 .* got {fraction}"):
            split(table, {"test": fraction})
    with pytest.raises(InputError, match="test and validation take 1 of train and leave nothing of it"):
        split(table, {"test": 0.5, "validation": 0.5})
    with pytest.raises(InputError, match=r"test=0.1 of 4 records is none at all"):
        split(table, {"test": 0.1})
