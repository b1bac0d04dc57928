"""Records at another place are read as the run reads its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from PIL import Image

import anyformer
from anyformer.data.folders import Folders
from anyformer.data.source import Joined
from anyformer.data.tables import Table
from anyformer.errors import InputError, say_once
from anyformer.runs.predictions.opening import model_state, open_data, run_source, state_of
from anyformer.tasks.classify.classify import Classify
from anyformer.tasks.language.language import LanguageModel
from anyformer.tokenizers.audio.audio import Audio
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.text.corpus import Corpus
from anyformer.tokenizers.text.text import Text
from tests.helpers.goods import goods, write_goods


@pytest.fixture(autouse=True)
def forget_lines() -> None:
    say_once.cache_clear()


def test_the_columns_are_the_runs_and_true_values_may_be_missing(
    at_goods: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, like = anyformer.load("run"), run_source("run", anyformer.load("run"))
    assert like == Table("goods.csv", {**like.columns}) and like.columns["weight"] == ["grams"]
    write_goods(Path("new.csv"), goods(3), ("colour", "sku", "price", "grams", "title"))
    source = open_data(["new.csv"], task, like, "sku")
    assert capsys.readouterr().err == "new.csv: has no kind: no true values stand beside the predictions\n"
    assert source[2]["weight"] == {"grams": goods(3)[2][1]} and source[2]["sku"] == "S0002"
    assert "kind" not in source[0] and source[0]["price"] == goods(3)[0][5]
    both = open_data(["goods.csv", "new.csv"], task, like)
    assert isinstance(both, Joined) and len(both) == 103
    assert (both.id_name, both.id_of(0), both.id_of(102)) == ("row", "goods.csv row 0", "new.csv row 2")
    write_goods(Path("wrong.csv"), goods(3), ("colour", "grams", "kind"))
    with pytest.raises(InputError, match=r"wrong\.csv: no column 'title'"):
        open_data(["wrong.csv"], task, like)
    with pytest.raises(InputError, match="run is a folder, and the model reads no files; give a table"):
        open_data(["run"], task, like)
    with pytest.raises(InputError, match=r"absent\.csv: no such file"):
        open_data(["absent.csv"], task, like)


def test_a_table_for_a_run_without_columns_says_which_it_lacks(tmp_path: Path) -> None:
    pictures = Classify({"image": ImagePatches(size=(8, 8), patch=4)}, classes=["cat", "dog"])
    table = tmp_path / "new.csv"
    table.write_text("file,sku\na.png,x1\n")
    with pytest.raises(
        InputError, match=r"no column 'image'; there are file, sku: name what is to be read as 'image' so"
    ):
        open_data([str(table)], pictures, Folders("classes", {"image": "file", "label": "folder"}))
    table.write_text("image,sku\na.png,x1\n")
    assert len(open_data([str(table)], pictures, None)) == 1


def test_a_folder_is_read_by_the_one_field_that_reads_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.png", "in/deep/b.png", "in/c.wav", "classes/cat/1.png", "classes/dog/2.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(name, "png")
    pictures = Classify({"photo": ImagePatches(size=(8, 8), patch=4, channels=1)}, classes=["cat", "dog"])
    like = Folders("classes", {"photo": "file", "label": "folder"})
    flat = open_data(["in"], pictures, like)
    assert [flat.id_of(i) for i in range(len(flat))] == ["in/a.png", "in/deep/b.png"] and flat[0] == {"photo": "a.png"}
    assert open_data(["classes"], pictures, like)[1] == {"photo": "dog/2.png", "label": "dog"}
    # Of a run of a table, or of one that is not known.
    for before in (None, Table("list.csv", {"photo": "file", "label": "class"})):
        assert open_data(["in"], pictures, before)[1] == {"photo": "deep/b.png"}
    sounds = Classify({"sound": Audio()}, classes=["cat", "dog"])
    assert [open_data(["in"], sounds, None).id_of(0)] == ["in/c.wav"]


def test_the_root_of_the_run_holds_where_there_is_none_beside_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("data/images/1.png", "own/images/1.png", "new/list.csv", "own/list.csv", "data/train.csv"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("photo\n1.png\n")
    task = Classify({"photo": ImagePatches(size=(8, 8), patch=4, channels=1)}, classes=["cat", "dog"])
    like = Table("data/train.csv", {"photo": "photo"}, root="images")
    assert open_data(["own/list.csv"], task, like).folder == os.path.join("own", "images")
    assert open_data(["new/list.csv"], task, like).folder == str(tmp_path / "data" / "images")


def test_a_text_is_lines_and_a_folder_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("texts").mkdir()
    for name in ("texts/a.txt", "texts/b.txt", "lines.txt"):
        Path(name).write_text(f"to be\n\n{name}\n")
    task, like = LanguageModel({"text": Text("bytes")}), Corpus("play.txt", part=(0.0, 0.5))
    assert [record["text"] for record in map(open_data(["lines.txt"], task, like).__getitem__, range(2))] == [
        "to be",
        "lines.txt",
    ]
    assert "lines.txt: each line that is not empty is a record" in capsys.readouterr().err
    assert [open_data(["texts"], task, like)[i]["text"] for i in range(2)] == [
        Path("texts/a.txt").read_text(),
        Path("texts/b.txt").read_text(),
    ]
    Path("new.csv").write_text("text\nto be\n")
    assert isinstance(open_data(["new.csv"], task, like), Table)


def test_states_change_with_what_they_are_of(at_goods: Path) -> None:
    before, model = state_of(Table("goods.csv")), model_state("run")
    assert before == state_of(Table("goods.csv")) != state_of(Table("goods.csv", rows=(0, 3)))
    Path("goods.csv").write_text(Path("goods.csv").read_text().replace("red", "bad", 1))
    assert state_of(Table("goods.csv")) != before
    assert state_of(Joined((Table("goods.csv"),)))["sources"] == [state_of(Table("goods.csv"))]
    manifest = Path("run/model/manifest.jsonl")
    assert model_state("run") == model
    # The tasks of a mixture have one folder.
    assert len({model, model_state("run:one"), model_state("run:two")}) == 3
    manifest.write_text(manifest.read_text().replace("sha256", "sha255", 1))
    with pytest.raises(InputError, match="damaged"):
        model_state("run")


def test_a_task_of_a_mixture_has_records_of_its_own(at_goods: Path) -> None:
    part = {"train": [{"class_path": "Table", "init_args": {"path": "goods.csv"}}, "more.csv"]}
    data = {"class_path": "Mixed", "init_args": {"parts": {"goods": part, "other": {"train": "other.csv"}}}}
    Path("run/config.yaml").write_text(yaml.safe_dump({"data": data}))
    task = anyformer.load("run")
    assert run_source("run:goods", task) == Table("goods.csv")
    assert run_source("run:other", task) == Table("other.csv")


def test_a_run_without_a_config_has_no_source(at_goods: Path) -> None:
    Path("run/config.yaml").unlink()
    assert run_source("run", anyformer.load("run")) is None
