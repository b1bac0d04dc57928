"""The metrics of a run: a row a step, cut back and continued; the last of each; the curves."""

from __future__ import annotations

import hashlib
import json
import math
import pickle
from pathlib import Path

import pytest

from anyformer.errors import InputError
from anyformer.runs.metrics_file import MetricsFile, read_metrics, read_rows, write_metrics
from tests.helpers.synced_files import Disk


def test_what_is_logged_at_a_step_stands_in_its_row(tmp_path: Path) -> None:
    rows = MetricsFile(tmp_path)
    rows.begin()
    rows.log_metrics({"train/loss": 2.0, "epoch": 0}, 0)
    rows.log_metrics({"train/loss": 1.0, "epoch": 0}, 1)
    rows.log_metrics({"val/loss": 1.5, "epoch": 0}, 1)
    rows.log_metrics({"train/loss": 0.1, "epoch": 1}, 2)
    assert (tmp_path / "metrics.csv").read_text().splitlines() == [
        "step,epoch,train/loss,val/loss",
        "0,0,2.0,",
        "1,0,1.0,1.5",
        "2,1,0.1,",
    ]
    assert rows.last == {"step": 2, "epoch": 1, "train/loss": 0.1, "val/loss": 1.5}


def test_the_file_is_cut_back_to_a_checkpoint_and_continued(tmp_path: Path) -> None:
    def log(rows: MetricsFile, steps: range) -> None:
        for step in steps:
            rows.log_metrics({"train/loss": 1 / (step + 1), "epoch": 0}, step)
            if step % 2:
                rows.log_metrics({"val/loss": math.pi, "epoch": 0}, step)

    rows = MetricsFile(tmp_path)
    rows.begin()
    log(rows, range(2))
    rows.log_metrics({"train/loss": 0.7, "epoch": 0}, 2)
    state = rows.state_dict()
    log(rows, range(3, 5))
    rows.log_metrics({"test/loss": 0.7}, 9)
    with open(rows.path, "a") as file:
        file.write("10,0,")  # half a row, as a kill leaves it

    resumed = MetricsFile(tmp_path)
    resumed.load_state_dict(state)
    assert [row["step"] for row in read_rows(rows.path)] == ["0", "1", "2"]
    log(resumed, range(3, 5))

    whole = MetricsFile(tmp_path / "whole")
    whole.path.parent.mkdir()
    whole.begin()
    log(whole, range(2))
    whole.log_metrics({"train/loss": 0.7, "epoch": 0}, 2)
    log(whole, range(3, 5))
    assert resumed.path.read_text() == whole.path.read_text()
    assert resumed.last == whole.last


def test_rows_that_are_lost_or_changed_are_noticed_and_new_columns_are_not(tmp_path: Path) -> None:
    rows = MetricsFile(tmp_path)
    rows.begin()
    for step in range(4):
        rows.log_metrics({"train/loss": 1 / (step + 1), "epoch": 0}, step)
    state = rows.state_dict()
    rows.log_metrics({"another": 2.0}, 4)
    assert rows.columns != state["columns"]
    rows.check(state)
    text = rows.path.read_text()
    lines = text.splitlines(True)
    for other in ("", lines[0], "".join(lines[:3]), "".join(lines[:1] + lines[2:]), text.replace("0.5", "0.6"), "\0"):
        rows.path.write_text(other)
        with pytest.raises(InputError, match=r"metrics.csv is damaged: its first 3 rows are not those"):
            rows.check(state)


def test_the_rows_that_a_checkpoint_speaks_of_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = MetricsFile(tmp_path)
    rows.begin()
    disk = Disk(monkeypatch)
    rows.log_metrics({}, 0)
    assert not disk.has(rows.path), "not at every row, which would take as long as a step"
    rows.state_dict()
    assert disk.has(rows.path)


def test_a_checkpoint_reads_no_row_and_knows_them_all(tmp_path: Path) -> None:
    odd = [1.0, -0.0, 1e-300, math.nan, math.inf, 3, True, None, 'a, "b"\nc']
    rows = MetricsFile(tmp_path)
    rows.begin()
    states = [rows.state_dict()]
    for step, value in enumerate([*odd, *odd]):
        rows.log_metrics({"train/loss": value} | ({"val/loss": value} if step > 4 else {}), step)
        states.append(rows.state_dict())
    for state in states:
        rows.check(state)
    # The rows are read as JSON of texts, which a checkpoint from before also has.
    kept = [[row.get(name) or "" for name in states[-1]["columns"]] for row in read_rows(rows.path)[:-1]]
    assert states[-1]["sha256"] == hashlib.sha256(json.dumps(kept).encode()).hexdigest()
    resumed = MetricsFile(tmp_path)
    resumed.load_state_dict(states[9])
    assert resumed.state_dict() == states[9]
    for step, value in enumerate([*odd, *odd][9:], 9):
        resumed.log_metrics({"train/loss": value, "val/loss": value}, step)
    assert resumed.state_dict() == states[-1]
    assert pickle.loads(pickle.dumps(resumed)).state_dict() == states[-1]
    text = rows.path.read_text()
    # The file itself is not looked at.
    rows.path.write_text("")
    assert rows.state_dict() == states[-1]
    rows.path.write_text(text.replace("1e-300", "1e-301"))
    with pytest.raises(InputError, match=r"metrics\.csv is damaged"):
        rows.check(states[-1])


def test_metrics_that_are_damaged_are_set_aside_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "metrics.json").write_text('{"val/loss": 0.')
    write_metrics(tmp_path, {"test/loss": 1.0})
    assert read_metrics(tmp_path) == {"test/loss": 1.0}
    assert (tmp_path / "metrics.json.damaged").read_text() == '{"val/loss": 0.'
    (line,) = capsys.readouterr().err.splitlines()
    assert "metrics.json is damaged" in line and line.endswith("and written anew")


def test_figures_are_put_beside_those_there_are(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == {}
    write_metrics(tmp_path, {"val/loss": 0.5, "step": 7})
    write_metrics(tmp_path, {"test/accuracy": 0.75, "test/auroc": math.nan, "test/loss": math.inf})
    assert read_metrics(tmp_path) == {
        "step": 7,
        "test/accuracy": 0.75,
        "test/auroc": None,
        "test/loss": None,
        "val/loss": 0.5,
    }
    assert '"step": 7,' in (tmp_path / "metrics.json").read_text()
