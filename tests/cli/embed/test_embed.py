"""`anyformer embed`, called in the process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

import anyformer
from anyformer.__main__ import main
from anyformer.model.config import TransformerConfig
from anyformer.tasks.decide.decide import Decide
from anyformer.tasks.language.language import LanguageModel
from anyformer.tokenizers.image.sources import Digits
from anyformer.tokenizers.text.text import Text
from tests.helpers.goods import goods, goods_run, write_goods
from tests.helpers.small_cli import refused

pytestmark = pytest.mark.usefixtures("at_home")

RUN = "runs/small"


def pictures(folder: Path, n: int) -> list[str]:
    """Class folders of digits."""
    for i in range(n):
        place = folder / Digits()[i]["label"]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(Digits()[i]["image"])).save(place / f"{i}.png")
    return sorted(str(path) for path in folder.rglob("*.png"))


def test_one_record_is_printed_and_many_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    model = anyformer.load(RUN)
    assert main(["embed", RUN, "image=seven.png"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["record"] == "seven.png"
    np.testing.assert_allclose(found["vector"], model.embed({"image": "seven.png"}), rtol=1e-5, atol=1e-5)
    files = pictures(Path("digits"), 5)
    wanted = model.embed([{"image": file} for file in files], layer=1, pool="mean", normalize=True)
    options = ["--layer", "1", "--pool", "mean", "--normalize"]
    assert main(["embed", RUN, "image=digits", *options, "--output", "v.parquet"]) == 0
    table = pyarrow.parquet.read_table("v.parquet").to_pydict()
    assert table["record"] == files
    np.testing.assert_allclose(table["vector"], wanted, rtol=1e-5, atol=1e-5)
    assert main(["embed", RUN, "--data", "digits", *options, "--output", "v.npz"]) == 0
    with np.load("v.npz") as file:
        np.testing.assert_allclose(file["vectors"], wanted, rtol=1e-5, atol=1e-5)
        assert file["records"].tolist() == files
    assert main(["embed", RUN, "image=seven.png", "--pool", "tokens", "--output", "t.npz"]) == 0
    with np.load("t.npz") as file:
        assert file["0/image"].shape == model.embed({"image": "seven.png"}, pool="tokens")["image"].shape


def test_all_documents_of_texts_and_all_rows_of_a_table_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    made = LanguageModel({"note": Text("bytes")}, TransformerConfig(d_model=12, depth=1, n_heads=3), context=8)
    made.build()
    anyformer.save(made, "runs/poet/model")
    Path("texts").mkdir()
    notes = ["to be, or not to be", "that is"]
    for i, note in enumerate(notes):
        Path(f"texts/{i}.txt").write_text(note)
    Path("notes.csv").write_text("note\n" + "".join(f'"{note}"\n' for note in notes))
    wanted = anyformer.load("runs/poet").embed(notes)
    for path in ("texts", "notes.csv"):
        assert main(["embed", "runs/poet", "--data", path]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        np.testing.assert_allclose([line["vector"] for line in lines], wanted, rtol=1e-4, atol=1e-5)
        assert path in lines[1]["record"]


def test_records_are_read_as_the_run_reads_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    run = str(goods_run(Path()))
    write_goods(Path("new.csv"), goods(3, seed=2), ("title", "grams", "colour"))
    assert main(["embed", run, "--data", "goods.csv", "new.csv", "--output", "v.npz"]) == 0
    assert capsys.readouterr().err.count("\n") <= 1  # The bar alone.
    records = [{"weight": {"grams": row[1]}, "colour": {"colour": row[2]}, "title": row[3]} for row in goods(3, seed=2)]
    with np.load("v.npz") as file:
        assert file["vectors"].shape == (103, 8) and file["records"][100] == "new.csv row 0"
        np.testing.assert_allclose(file["vectors"][100:], anyformer.load(run).embed(records), rtol=1e-4, atol=1e-5)
    # Any of the fields will do, though no file of the run lacks one.
    write_goods(Path("titles.csv"), goods(3, seed=2), ("title",))
    assert main(["embed", run, "--data", "titles.csv"]) == 0
    found = [json.loads(line)["vector"] for line in capsys.readouterr().out.splitlines()]
    titles = [{"title": record["title"]} for record in records]
    np.testing.assert_allclose(found, anyformer.load(run).embed(titles), rtol=1e-4, atol=1e-5)
    write_goods(Path("other.csv"), goods(3), ("price",))
    assert refused(capsys, "embed", run, "--data", "other.csv").endswith(
        "the model reads weight, colour, title; name the columns so"
    )


def test_the_lines_of_a_text_and_a_flat_folder_are_records(capsys: pytest.CaptureFixture[str]) -> None:
    made = LanguageModel({"text": Text("bytes")}, TransformerConfig(d_model=12, depth=1, n_heads=3), context=8)
    made.build()
    anyformer.save(made, "runs/poet/model")
    Path("lines.txt").write_text("to be\n\nthat is\n")
    assert main(["embed", "runs/poet", "--data", "lines.txt"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2 and "lines.txt: each line that is not empty is a record" in err
    pictures(Path("digits"), 2)
    Path("flat").mkdir()
    for file in Path("digits").rglob("*.png"):
        file.rename(Path("flat") / file.name)
    assert main(["embed", RUN, "--data", "flat"]) == 0
    assert [json.loads(line)["record"] for line in capsys.readouterr().out.splitlines()] == ["flat/0.png", "flat/1.png"]


def test_a_policy_is_given_episodes(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    arrays = {"observations": rng.normal(size=(10, 2)), "actions": rng.integers(0, 3, 10), "rewards": np.ones(10)}
    np.savez("demos.npz", **arrays, episode_lengths=np.array([4, 6]))
    policy = Decide(transformer=TransformerConfig(d_model=16, depth=1, n_heads=2), context=5)
    policy.fit_tokenizers(policy.open("demos.npz"))
    policy.configure_model()
    anyformer.save(policy, "runs/policy/model")
    assert main(["embed", "runs/policy", "--data", "demos.npz"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    wanted = anyformer.load("runs/policy").embed(policy.open("demos.npz"))
    np.testing.assert_allclose([line["vector"] for line in lines], wanted, rtol=1e-4, atol=1e-5)
    assert [line["record"] for line in lines] == ["demos.npz episode 0", "demos.npz episode 1"]


def test_what_cannot_be_read_is_named_and_holds_up_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    files = pictures(Path("digits"), 3)
    Path(files[1]).write_bytes(b"no picture")
    for given in (["image=digits"], ["--data", "digits"]):
        assert main(["embed", RUN, *given, "--output", "v.npz"]) == 2
        said = capsys.readouterr().err
        assert files[1] in said and "anyformer: 1 of 3 could not be used" in said
        with np.load("v.npz") as file:
            assert np.isnan(file["vectors"]).all(1).tolist() == [False, True, False]
    assert files[1] in refused(capsys, "embed", RUN, f"image={files[1]}")


def test_bad_commands_are_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "embed", RUN) == "give the record as FIELD=VALUE, or many with --data PATH; one of the two"
    assert refused(capsys, "embed", RUN, "image=a", "--data", "b").startswith("give the record as FIELD=VALUE, or many")
    assert "there is no field 'imgae'" in refused(capsys, "embed", RUN, "image=a", "--field", "imgae")
    assert "has no field 'imag'; did you mean 'image'?" in refused(capsys, "embed", RUN, "imag=seven.png")
    assert refused(capsys, "embed", RUN, "seven.png") == "a field is given as FIELD=VALUE, got 'seven.png'"
    assert "is given twice" in refused(capsys, "embed", RUN, "image=a", "image=b")
    assert "layer must be from" in refused(capsys, "embed", RUN, "image=a", "--layer", "99")
    assert "--output must end in" in refused(capsys, "embed", RUN, "image=seven.png", "--output", "v.csv")
    Path("t.csv").write_text("image\n")
    assert "t.csv: the table has no rows" in refused(capsys, "embed", RUN, "--data", "t.csv")
    Path("t.jsonl").write_text('{"size": 1}\n')
    assert refused(capsys, "embed", RUN, "--data", "t.jsonl") == (
        "t.jsonl: no column 'image'; there are size: name what is to be read as 'image' so"
    )
