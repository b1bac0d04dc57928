"""`anyformer validate` and `anyformer test`, called in the process."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from anyformer.__main__ import main
from anyformer.runs.metrics_file import read_metrics
from tests.helpers.small_cli import refused

pytestmark = pytest.mark.usefixtures("at_home")


def test_test_and_validate_give_the_best_models_figures(capsys: pytest.CaptureFixture[str]) -> None:
    before = read_metrics(Path("runs/small"))
    assert main(["test", "runs/small"]) == 0
    assert f"test/accuracy  {before['test/accuracy']:.4f}" in capsys.readouterr().out
    assert main(["validate", "runs/small", "--data.n_workers=1"]) == 0
    assert f"val/accuracy  {before['best/val/accuracy']:.4f}" in capsys.readouterr().out
    assert read_metrics(Path("runs/small")) == before


def test_other_records_are_tested_without_changing_the_runs_figures(capsys: pytest.CaptureFixture[str]) -> None:
    before = read_metrics(Path("runs/small"))
    for override in (["--data.test=0.5"], ["--data.test", "0.5"], ["--trainer.limit_test_batches=1"]):
        assert main(["test", "runs/small", *override]) == 0
        assert "test/accuracy" in capsys.readouterr().out
        assert read_metrics(Path("runs/small")) == before


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("test", "the following arguments are required: RUN; see anyformer test --help"),
        ("test --data.test 0.5 runs/small", "the run's folder stands first, got --data.test: anyformer test RUN"),
        ("test runs/absent", "there is no run folder runs/absent; a run is a local folder that fit has written"),
        (
            "test runs/small --data.test=null",
            "there are no test records: give data.test a source, a path or a fraction",
        ),
        ("test runs/small --data.test=absent.csv", "absent.csv: no such file"),
    ],
)
def test_a_wrong_command_is_refused_in_one_line(argv: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert re.search(message, refused(capsys, *argv.split()))
