"""Metrics without some inputs and by group are a table and bars, of the best model and of the test."""

from __future__ import annotations

import csv
import doctest
from pathlib import Path

import pytest
from PIL import Image

from anyformer.runs.metrics_file import MetricsFile, write_metrics
from anyformer.runs.reports import subsets
from anyformer.runs.reports.subsets import read_name, show_subsets, tables_of, write_subsets


def test_the_examples_hold() -> None:
    assert not doctest.testmod(subsets).failed


def test_the_names_of_all_metrics_are_read() -> None:
    assert read_name("lr-Adam") == ("", "all", "lr-Adam")
    assert read_name("val/digits/without_image/n_3/kind/f1", ["n"]) == ("val", "without image, n 3", "digits/kind/f1")
    assert read_name("val/n_3/kind/f1") == ("val", "all", "n_3/kind/f1")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    rows = MetricsFile(tmp_path)
    rows.begin()
    for step, value in enumerate([0.25, 0.75, 0.5]):
        metrics = {"val/accuracy": value, "val/without_title/accuracy": value / 5, "val/n_1/accuracy": value / 3}
        rows.log_metrics({"train/loss": 1.0, **metrics}, step)
    write_metrics(tmp_path, {"best/step": 1, "test/accuracy": 0.7, "test/without_title/accuracy": 0.1})
    return tmp_path


def test_the_validation_is_that_of_the_best_model(run: Path) -> None:
    assert tables_of(run, ["n"]) == {
        "val": {"all": {"accuracy": 0.75}, "n 1": {"accuracy": 0.25}, "without title": {"accuracy": 0.15}},
        "test": {"all": {"accuracy": 0.7}, "without title": {"accuracy": 0.1}},
    }
    rows = (run / "metrics.csv").read_text().splitlines()
    rows = [f"{row},{'val/of_the_whole_alone' if i == 0 else 0.5}" for i, row in enumerate(rows)]
    (run / "metrics.csv").write_text("\n".join(rows))
    write_subsets(run, ["n"])
    with open(run / "subsets.csv", newline="") as file:
        rows = [tuple(row.values()) for row in csv.DictReader(file)]
    assert rows[:3] == [
        ("validation", "all", "0.75"),
        ("validation", "n 1", "0.25"),
        ("validation", "without title", "0.15"),
    ]
    assert rows[3:] == [("test", "all", "0.7"), ("test", "without title", "0.1")]
    with Image.open(run / "subsets.png") as picture:
        assert picture.width > 200
    assert show_subsets(tables_of(run)["test"]).splitlines() == [
        "               accuracy",
        "all              0.7000",
        "without title    0.1000",
    ]


def test_a_run_without_subsets_has_no_table(tmp_path: Path) -> None:
    rows = MetricsFile(tmp_path)
    rows.begin()
    rows.log_metrics({"val/accuracy": 0.5}, 0)
    write_metrics(tmp_path, {"best/step": 0, "val/accuracy": 0.5})
    write_subsets(tmp_path)
    assert not list(tmp_path.glob("subsets.*"))
