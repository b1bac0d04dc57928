"""What fields are worth over the records of a run, by the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import anyformer
from anyformer.__main__ import main
from anyformer.cli.explain.over_data import in_words
from anyformer.explaining.deletion import Deletions
from tests.helpers.goods import goods, goods_run, write_goods

pytestmark = pytest.mark.usefixtures("at_home")


def test_the_validation_records_of_a_run_are_read_as_it_reads_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "runs/small", "--data", "validation", "--records", "4"]) == 0
    out, err = capsys.readouterr()
    assert "4 of 180 records" in err
    lines = out.splitlines()
    assert lines[0].split() == ["field", "records", "Shapley", "value", "permuted"]
    assert lines[1].startswith("image        4  ")
    assert [line.split(" is ")[0] for line in lines[2:4]] == ["relevance", "rollout"]
    written = json.loads(Path(lines[4]).read_text())
    assert lines[4] == "runs/small/explain/importance.json"
    assert written["records"] == written["importance"][0]["n_records"] == written["deletion"]["n_records"] == 4


def test_records_of_a_table_are_given_with_their_true_values(capsys: pytest.CaptureFixture[str]) -> None:
    run = str(goods_run(Path()))
    write_goods(Path("new.csv"), goods(5, seed=2))
    assert main(["explain", run, "--data", "new.csv", "--target", "price", "--output", "why"]) == 0
    capsys.readouterr()
    (found,) = Path("why").iterdir()
    names = {each["name"] for each in json.loads(found.read_text())["importance"]}
    assert names == set(anyformer.load(run).inputs)


def test_maps_are_said_to_be_better_than_random_or_not() -> None:
    values = {"relevance": (0.1, 0.5, 0.7), "rollout": (0.1, 0.1, 0.2)}
    errors = {"relevance": (0.1, 0.2, 0.2), "rollout": (0.1, 0.1, np.nan)}
    first, second = in_words(Deletions(9, (0.1, 0.3, 0.5), values, errors)).splitlines()
    assert first.startswith("relevance is better than random: ")
    assert "0.500 ± 0.200 at 30%" in first and "(9 records)" in first
    assert second.startswith("rollout is no better than random: ")
