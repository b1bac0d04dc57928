"""`anyformer explain`, called in the process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import anyformer
from anyformer.__main__ import main
from anyformer.cli.explain.explain import summary
from tests.helpers.small_cli import refused

pytestmark = pytest.mark.usefixtures("at_home")

RUN = "runs/small"


def test_a_record_is_explained_as_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", RUN, "--answer", "7", "image=seven.png", "--rather_than", "1", "--output", "why"]) == 0
    out, err = capsys.readouterr()
    assert "attention, relevance 1 forward and 1 backward; fields 2 forward in float64 (exact); deletion 67" in err
    found = anyformer.load(RUN).explain({"image": "seven.png"}, answer="7", rather_than="1")
    assert out.splitlines() == [*summary(found).splitlines(), str(Path("why", "explanation.html"))]
    assert out.startswith("7: the log-odds of 7 against 1, ")
    assert json.loads(Path("why/explanation.json").read_text())["answer"] == "7"
    assert "Why 7?" in Path("why/explanation.html").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give the record as FIELD=VALUE, or many with --data validation; one of the two"),
        (["image=seven.png", "--data", "test"], "one of the two"),
        (["image"], "a field is given as FIELD=VALUE, got 'image'"),
        (["picture=seven.png"], "has no field 'picture'; there are image"),
        (["image=seven.png", "image=seven.png"], "the field 'image' is given twice; for many files give"),
        (["image=empty"], "field 'image': empty is empty"),
        (["image=seven.png", "--answer", "10"], "answer: '10' is no answer of the model"),
        (["image=seven.png", "--target", "digit"], "target: there is no 'digit'; there are label"),
        (["image=seven.png", "--layer", "2"], "layer must be from 1 to 1, or -1 for the last, got 2"),
        (["image=seven.png", "--head", "0"], "head must be from 1 to 2, got 0"),
        (["image=seven.png", "--cross"], "--cross: the model has no cross-attention, as it has no encoder"),
        (["image=seven.png", "--lyer", "2"], "there is no option --lyer; did you mean 'layer'?"),
        (["--data", "validation", "--answer", "7"], "--answer is of one record; with --data the true values are"),
        (["--data", "validation", "--records", "0"], "--records must be at least 1, got 0"),
        (["--data", "nowhere.csv"], "nowhere.csv"),
    ],
)
def test_what_is_wrong_is_one_line(capsys: pytest.CaptureFixture[str], options: list[str], message: str) -> None:
    assert message in refused(capsys, "explain", RUN, *options)


def test_several_files_are_no_one_record_and_a_run_must_be_there(capsys: pytest.CaptureFixture[str]) -> None:
    Path("two").mkdir()
    for name in ("a.png", "b.png"):
        Path("two", name).write_bytes(Path("seven.png").read_bytes())
    assert "field 'image': 2 records; explain takes one" in refused(capsys, "explain", RUN, "image=two")
    assert "there is no run folder runs/smal" in refused(capsys, "explain", "runs/smal", "image=seven.png")
