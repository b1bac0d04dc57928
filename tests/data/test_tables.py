"""Tables and sets as the hub has them."""

from __future__ import annotations

import os
import zipfile
from collections import Counter
from pathlib import Path

import datasets
import pytest

from anyformer.data.files import read_file
from anyformer.data.tables import Hub, Table
from anyformer.errors import InputError
from tests.helpers.table_files import PETS, write, write_features
from tests.helpers.witnesses import Numbers

DATA = Path(os.environ.get("ANYFORMER_DATA", "data"))


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


def test_a_field_of_several_columns_is_a_dict_of_them(tmp_path):
    rows = [{"age": 4, "sex": "f", "y": 1}, {"age": "", "sex": "m", "y": 2}, {"age": "", "sex": "", "y": 3}]
    path = write(tmp_path / "t.csv", rows)
    table = Table(str(path), columns={"pet": ["age", "sex"], "label": "y"})
    pets = [{"age": "4", "sex": "f"}, {"age": None, "sex": "m"}, None]
    assert [table[i]["pet"] for i in range(3)] == table.column("pet") == pets
    with pytest.raises(InputError, match=r"no column 'aged'.*did you mean 'age'"):
        len(Table(str(path), columns={"pet": ["aged"]}))


def test_each_entry_of_a_list_may_be_a_record(tmp_path):
    path = write(tmp_path / "t.jsonl", [{"views": ["a", "b"], "y": 1}, {"views": ["c"], "y": 2}, {"views": [], "y": 3}])
    table = Table(str(path), columns={"image": "views", "label": "y"}, each="views")
    records = [{"image": "a", "label": 1}, {"image": "b", "label": 1}, {"image": "c", "label": 2}]
    assert [table[i] for i in range(len(table))] == records
    assert (table.column("image"), table.column("label")) == (["a", "b", "c"], [1, 1, 2])
    assert table.name(1).endswith("t.jsonl row 0, views 1")
    assert Table(str(path), rows=(1, 3), each="views")[0] == {"views": "c", "y": 2}
    with pytest.raises(InputError, match="row 0: each: column 'y' must hold lists, got 1"):
        len(Table(str(path), each="y"))
    with pytest.raises(InputError, match=r"no column 'view'.*did you mean 'views'"):
        len(Table(str(path), each="view"))


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
def test_series_of_several_channels_and_any_length_are_lists_of_lists(tmp_path, name):
    rows = [
        {"label": 0, "series": [[0.5, 1, None], [2, 3.25, 4]]},
        {"label": 1, "series": [[7, 8.125, 9, 1e-3], [1, 2, 3, 4]]},
    ]
    table = Table(str(write(tmp_path / name, rows)), {"x": "series"})
    assert [table[i]["x"] for i in range(2)] == table.column("x") == [row["series"] for row in rows]


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
        ("t.txt", b"a", "a table must end in .csv, .tsv, .jsonl, .json, .parquet, with or without .gz"),
        ("t.csv", b"a,b\n1,2\n1,2,3\n", "cannot be read as CSV: .*line 3"),
        ("t.csv.gz", b"a,b\n1,2\n", "damaged or truncated: .*gzip"),
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


def test_a_folder_with_brackets_is_never_taken_for_a_pattern(hub):
    hub.rename(hub.with_name("pets1"))
    (hub.parent / "pets[1]").mkdir()
    with pytest.raises(
        InputError, match=r"me/pets\[1\]: `datasets` takes \*, \? and \[ in a name for a pattern; rename"
    ):
        len(Hub("me/pets[1]"))


def test_no_code_of_a_set_is_run(hub):
    (hub / "data" / "train-00000-of-00001.parquet").unlink()
    (hub / "data" / "test-00000-of-00001.parquet").unlink()
    (hub / "pets.py").write_text(f"open({str(hub / 'ran')!r}, 'w')")
    with pytest.raises(InputError, match=r"me/pets: cannot be loaded: "):
        len(Hub("me/pets"))
    assert [path.name for path in hub.iterdir() if path.is_file()] == ["pets.py"]


def test_texts_named_missing_are_so_in_every_format_and_a_field_of_none_but_these_is_none(tmp_path):
    rows = [{"age": "?", "sex": "NA", "y": "1"}, {"age": "4", "sex": " ?", "y": "NAN"}]
    for name in ("t.csv", "t.jsonl", "t.parquet"):
        table = Table(str(write(tmp_path / name, rows)), {"pet": ["age", "sex"], "y": "y"}, missing=["NA", "?"])
        assert [table[i] for i in range(2)] == [{"pet": None, "y": "1"}, {"pet": {"age": "4", "sex": None}, "y": "NAN"}]
        assert table.column("pet") == [None, {"age": "4", "sex": None}]


def test_the_delimiter_is_the_tables_own_or_what_is_given(tmp_path):
    (tmp_path / "t.tsv").write_text("a\tb\n1,5\t2\n")
    (tmp_path / "t.csv").write_text('a;b\n1,5;"2;3"\n')
    assert Table(str(tmp_path / "t.tsv"))[0] == {"a": "1,5", "b": "2"}
    assert Table(str(tmp_path / "t.csv"), delimiter=";")[0] == {"a": "1,5", "b": "2;3"}
    with pytest.raises(InputError, match=r"the header has 1; the header holds semicolons: .*delimiter: ';'$"):
        len(Table(str(tmp_path / "t.csv"), {"x": "a"}))
    write(tmp_path / "t.jsonl", [{"a": 1}])
    with pytest.raises(InputError, match=r"t.jsonl: delimiter is what stands between the cells of a CSV or TSV"):
        len(Table(str(tmp_path / "t.jsonl"), delimiter=";"))
    for wrong in ("", "; ", '"', "\n", "\u00a7", "a"):
        with pytest.raises(InputError, match="delimiter must be one character"):
            Table("t.csv", delimiter=wrong)
