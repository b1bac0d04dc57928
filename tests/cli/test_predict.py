"""`anyformer predict`, called in the process, and once through a pipe."""

from __future__ import annotations

import csv
import json
import os
import re
import select
import shlex
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import anyformer
from anyformer.__main__ import main
from anyformer.tokenizers.text.corpus import Corpus
from tests.helpers.goods import goods, goods_run, write_goods
from tests.helpers.language_models import task as language_task
from tests.helpers.small_cli import pictures, refused

pytestmark = pytest.mark.usefixtures("at_home")


def test_predict_says_what_the_model_makes_of_a_picture(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "runs/small", "image=seven.png", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["label"] in result["probabilities"]
    assert sum(result["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert result == anyformer.load("runs/small").predict([{"image": "seven.png"}])[0]
    assert main(["predict", "runs/small", "image=seven.png"]) == 0
    assert f"{result['label']} " in capsys.readouterr().out.splitlines()[0]


LANGUAGE = """\
model:
  class_path: LanguageModel
  init_args:
    tokenizers: {text: {class_path: Text, init_args: {kind: characters}}}
    transformer: {d_model: 16, depth: 1, n_heads: 2}
    context: 16
    example: be
data:
  train: {class_path: Corpus, init_args: {path: play.txt, part: [0.0, 0.9]}}
  validation: {class_path: Corpus, init_args: {path: play.txt, part: [0.9, 1.0]}}
  batch_size: 4
trainer: {max_epochs: 1, accelerator: cpu, enable_progress_bar: false}
"""


def test_a_language_model_is_trained_goes_on_with_a_text_and_is_told_how(
    at_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("play.yaml").write_text(LANGUAGE)
    Path("play.txt").write_text("to be or not to be, that is the question\n" * 20)
    assert main(["fit", "--config", "play.yaml"]) == 0
    assert "\nA sample:\nbe" in capsys.readouterr().out
    drawn = ["--max_new_tokens", "12", "--temperature", "0.9", "--seed", "3"]
    assert main(["predict", "runs/play", "text=to be", *drawn]) == 0
    streamed = capsys.readouterr().out
    assert streamed.startswith("to be") and len(streamed) > len("to be\n")
    assert main(["predict", "runs/play", "text=to be", "--json", *drawn]) == 0
    result = json.loads(capsys.readouterr().out)
    assert f"to be{result['continuations'][0]}\n" == streamed
    assert main(["predict", "runs/play", "--n_samples", "2", *drawn, "--output", "out.csv", "text=to be"]) == 0
    (row,) = csv.DictReader(Path("out.csv").read_text().splitlines(keepends=True))
    assert row["continuation 1"] == result["continuations"][0] and row["continuation 2"]
    capsys.readouterr()
    assert refused(capsys, "predict", "runs/play", "text=a", "--stop", "") == (
        "stop must not hold an empty string, which every text contains"
    )
    assert "invalid int value: 'many'" in refused(capsys, "predict", "runs/play", "text=a", "--max_new_tokens", "many")
    assert "the prompt has 17 tokens, more than the 16" in refused(
        capsys, "predict", "runs/play", "text=" + "to be or not to b"
    )
    message = refused(capsys, "predict", "runs/play", "text=a", "--temprature", "1")
    assert "there is no option --temprature; did you mean" in message
    assert refused(capsys, "predict", "text=a").startswith("there is no run folder text=a")
    assert main(["predict", "runs/play", "--help"]) == 0
    help = capsys.readouterr().out
    assert "--top_p TOP_P" in help and "text: the record" in help


def test_predict_streams_a_table_of_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    pictures(Path("some"), 3, 10, 11)
    Path("some/notes.txt").write_text("not a picture, and not asked for")
    assert main(["predict", "runs/small", "image=some"]) == 0
    out, err = capsys.readouterr()
    assert err == "some: left out: .txt (1)\n"
    rows = list(csv.DictReader(out.splitlines()))
    assert [row["image"] for row in rows] == ["some/0/10.png", "some/1/11.png", "some/3/3.png"]
    assert list(rows[0]) == ["image", "label", "probability", *(f"p({i})" for i in range(10)), "error"]
    expected = anyformer.load("runs/small").predict([{"image": row["image"]} for row in rows])
    for row, result in zip(rows, expected, strict=True):
        assert (row["label"], row["error"]) == (result["label"], "")
        assert float(row["probability"]) == result["probabilities"][result["label"]]
        assert {name: float(row[f"p({name})"]) for name in result["probabilities"]} == result["probabilities"]
    assert main(["predict", "runs/small", "image=some/**/1*.png", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        {"image": path, **result} for path, result in zip(["some/0/10.png", "some/1/11.png"], expected, strict=False)
    ]


def test_predict_writes_a_table_whole(capsys: pytest.CaptureFixture[str]) -> None:
    pictures(Path("some"), 3, 10)
    for kind in ("csv", "jsonl", "json"):
        assert main(["predict", "runs/small", "image=some", "--output", f"out.{kind}"]) == 0
    assert capsys.readouterr() == ("", "")
    lines = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert json.loads(Path("out.json").read_text()) == lines
    assert [line["image"] for line in lines] == ["some/0/10.png", "some/3/3.png"]
    rows = read_csv(Path("out.csv"))
    assert [(row["image"], row["label"]) for row in rows] == [(line["image"], line["label"]) for line in lines]
    assert main(["predict", "runs/small", "image=seven.png", "--output", "out.csv"]) == 0
    assert [row["image"] for row in read_csv(Path("out.csv"))] == ["seven.png"]
    assert not list(Path().glob("*.part"))


def read_csv(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_predict_names_the_files_that_cannot_be_used_and_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    pictures(Path("some"), 3, 10)
    Path("some/bad.png").write_text("text")
    whole = Path("some/3/3.png").read_bytes()
    Path("some/0/cut.png").write_bytes(whole[: len(whole) // 2])
    assert main(["predict", "runs/small", "image=some", "--output", "out.csv"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    cut, bad, last = err.splitlines()
    assert re.fullmatch(r"field 'image': some/0/cut.png: damaged or truncated: .+", cut)
    assert re.fullmatch(r"field 'image': some/bad.png: not a picture that can be read \(.*\)", bad)
    assert last == "anyformer: 2 of 4 could not be used"
    rows = read_csv(Path("out.csv"))
    assert [(row["image"], row["error"]) for row in rows] == [
        ("some/0/10.png", ""),
        ("some/0/cut.png", cut),
        ("some/3/3.png", ""),
        ("some/bad.png", bad),
    ]
    assert [bool(row["label"]) for row in rows] == [True, False, True, False]
    assert main(["predict", "runs/small", "image=some/*.png"]) == 2
    assert capsys.readouterr().out.splitlines()[0] == "image,error"


def test_predict_shows_a_bar_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    termios, fcntl = pytest.importorskip("termios"), pytest.importorskip("fcntl")
    pictures(Path("some"), 3, 10)
    screen, line = os.openpty()
    fcntl.ioctl(line, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 90, 0, 0))
    with open(line, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        assert main(["predict", "runs/small", "image=some"]) == 0
        terminal.flush()
        shown = ""
        # What is written comes piece by piece.
        while "| 2/2 [" not in shown and select.select([screen], [], [], 10)[0]:
            shown += os.read(screen, 10_000).decode()
        assert "| 2/2 [" in shown
    os.close(screen)


def test_predict_ends_quietly_when_nobody_reads_on(at_home: Path) -> None:
    pictures(Path("some"), *range(300))
    argv = [sys.executable, "-m", "anyformer", "predict", "runs/small", "image=some"]
    done = subprocess.run(f"{shlex.join(argv)} | head -n 1", shell=True, capture_output=True, text=True)
    assert done.stdout.startswith("image,label,probability")
    assert done.stderr == ""


def test_predict_writes_the_records_of_a_table_and_names_one_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "goods"
    home.mkdir()
    goods_run(home)
    monkeypatch.chdir(home)
    write_goods(Path("new.csv"), goods(70, seed=3), ("sku", "title", "colour", "grams", "price"))
    assert main(["predict", "run", "--data", "goods.csv", "--output", "out.jsonl"]) == 0
    assert capsys.readouterr() == ("", "")
    lines = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines] == list(range(100))
    assert [(line["true_kind"], line["true_price"]) for line in lines] == [
        (row[4], float(row[5])) for row in goods(100)
    ]
    first = {"weight": {"grams": goods(1)[0][1]}, "colour": {"colour": goods(1)[0][2]}, "title": goods(1)[0][3]}
    result = anyformer.load("run").predict(first)
    assert lines[0]["price"] == pytest.approx(result["price"]) and lines[0]["kind"]["label"] == result["kind"]["label"]
    assert main(["predict", "run", "--data", "new.csv", "--id", "sku"]) == 0
    out, err = capsys.readouterr()
    rows = list(csv.DictReader(out.splitlines()))
    assert [row["sku"] for row in rows] == [f"S{i:04}" for i in range(70)]
    assert list(rows[0]) == ["sku", "true_price", "kind", "kind(car)", "kind(frog)", "price"]
    assert err == "new.csv: has no kind: no true values stand beside the predictions\n"
    bad = goods(3)
    bad[1][1] = "heavy"
    write_goods(Path("bad.csv"), bad)
    message = refused(capsys, "predict", "run", "--data", "bad.csv", "--output", "out.csv")
    assert message.startswith("bad.csv row 1: field 'weight': column 'grams' must hold a number, got 'heavy'; ")
    assert "; 1 of 3 records are done, in out.csv.parts; --on_bad_sample skip goes on" in message
    assert main(["predict", "run", "--data", "bad.csv", "--on_bad_sample", "skip", "--json"]) == 0
    out, err = capsys.readouterr()
    assert [list(json.loads(line)) for line in out.splitlines()][1] == ["row", "error"]
    assert "\n1 of 3 records could not be used; see the column 'error'\n" in err


def test_a_text_that_names_a_file_is_its_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = tmp_path / "play.txt"
    corpus.write_text("to be\nor not\n")
    monkeypatch.chdir(tmp_path)
    made = language_task(Corpus(str(corpus)), tmp_path)
    anyformer.save(made, "model")
    assert main(["predict", "model", "text=play.txt", "--json", "--max_new_tokens", "2"]) == 0
    out, err = capsys.readouterr()
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["to be", "or not"]
    assert "text: each line of the file play.txt is a record; to give its name itself, pipe it in: text=-\n" in err
    assert main(["predict", "model", "--data", "play.txt", "--score", "--output", "scores.csv"]) == 0
    rows = list(csv.DictReader(Path("scores.csv").read_text().splitlines()))
    assert [(row["text"], row["tokens"]) for row in rows] == [("to be", "5"), ("or not", "6")]
    assert float(rows[0]["loss"]) == pytest.approx(made.predict("to be", score=True)["loss"])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            "predict runs/small seven.png",
            "a field is given as FIELD=VALUE, got 'seven.png'; to predict all records of it give --data seven.png$",
        ),
        ("predict runs/small img=seven.png", r"has no field 'img'; (did you mean 'image'|there are image)"),
        ("predict runs/small image=absent.png", "absent.png: no such file"),
        ("predict runs/small image=small.yaml", "small.yaml"),
        ("predict runs/small image=seven.png image=seven.png", "the field 'image' is given twice; for many files give"),
        ("predict runs/small image=no*.png", r"field 'image': no file matches no\*.png$"),
        ("predict runs/small image=empty", "field 'image': empty is empty$"),
        ("predict runs/small image=runs/small/model", "none of the 4 files in runs/small/model ends in .png, .jpg"),
        (
            "predict runs/small image=seven.png --output x.txt",
            "--output must end in .csv, .jsonl, .json, .parquet, got x.txt",
        ),
        ("predict runs/small image=seven.png --output no/x.csv", "--output no/x.csv: there is no folder no$"),
        ("predict runs/small image=seven.png --output x.csv --json", "--json prints, and --output writes a file"),
        ("predict runs/absent image=seven.png", "there is no run folder runs/absent"),
        ("predict runs/small", "nothing to predict: give image=..., or --data FILE; see anyformer predict runs/small"),
        ("predict runs/small --data empty image=seven.png", "image=seven.png: --data takes paths; leave the field out"),
        ("predict runs/small --data empty", "empty: the folder is empty"),
        ("predict runs/small --data no.csv --output x.csv", "no.csv: no such file"),
        ("predict runs/small image=seven.png --id sku", "--id and --on_bad_sample are for the records of --data"),
    ],
)
def test_a_wrong_command_is_refused_in_one_line(argv: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert re.search(message, refused(capsys, *argv.split()))
