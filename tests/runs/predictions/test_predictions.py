"""Predictions of all records as one table: killed and gone on with, and refused where anything has changed."""

from __future__ import annotations

import csv
import errno
import os
import signal
from pathlib import Path

import pytest

import anyformer
from anyformer.data.tables import Table
from anyformer.errors import InputError
from anyformer.faults import WriteError
from anyformer.runs.predictions import parts, predictions
from anyformer.runs.predictions.opening import open_data, run_source
from anyformer.runs.predictions.predictions import keep_predictions, write_predictions
from anyformer.tasks.base.given import AT_ONCE
from tests.helpers.goods import goods, write_goods
from tests.helpers.small_run import in_a_fork


def predict(output: str, data: str = "new.csv", **options: object) -> int:
    task = anyformer.load("run")
    source = open_data([data], task, run_source("run", task), "sku")
    return write_predictions("run", task, source, Path(output), id_column="sku", **options)


def killed_after(n_parts: int) -> None:
    """Predict in this process, and be killed while a part is written."""
    write, left = parts.write_whole, n_parts

    def write_and_die(path: Path, *rest: object) -> None:
        nonlocal left
        if path.suffix == ".jsonl":
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
        write(path, *rest)

    parts.write_whole = write_and_die
    predict("out.csv")


def test_what_is_killed_twice_goes_on_without_a_row_lost_or_twice(
    at_goods: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(parts, "MOST_RECORDS", AT_ONCE)
    rows = write_goods(Path("new.csv"), goods(5 * AT_ONCE + 7, seed=2))
    assert predict("whole.csv") == 0
    for n in (2, 1):
        assert in_a_fork(lambda n=n: killed_after(n)) == -signal.SIGKILL
        assert not Path("out.csv").exists()
    capsys.readouterr()
    assert predict("out.csv") == 0
    assert capsys.readouterr().err == "out.csv: 192 of 327 records were there already; going on\n"
    assert Path("out.csv").read_bytes() == Path("whole.csv").read_bytes()
    written = [row["sku"] for row in csv.DictReader(Path("out.csv").read_text().splitlines())]
    assert written == [row["sku"] for row in csv.DictReader(rows.read_text().splitlines())]
    assert not list(Path().glob("*.part*"))


def test_a_bad_record_ends_it_and_what_is_done_stays(at_goods: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = goods(5)
    rows[3][1] = "heavy"
    write_goods(Path("new.csv"), rows)
    done = r"^new.csv row 3: .*got 'heavy'.*; 3 of 5 records are done, in out.csv.parts; (--)?on_bad_sample skip"
    with pytest.raises(InputError, match=done):
        predict("out.csv")
    with pytest.raises(InputError, match=r"out.csv.parts holds a part of other predictions: the data has changed"):
        predict("out.csv", data="goods.csv")
    assert not Path("out.csv").exists()
    assert predict("out.csv", skip=True) == 1
    assert "out.csv: 3 of 5 records were there already; going on\n" in capsys.readouterr().err
    found = list(csv.DictReader(Path("out.csv").read_text().splitlines()))
    assert [row["sku"] for row in found] == ["S0000", "S0001", "S0002", "", "S0004"]
    assert [bool(row["error"]) for row in found] == [False, False, False, True, False]


def test_the_data_is_not_written_over(at_goods: Path) -> None:
    before = Path("goods.csv").read_bytes()
    with pytest.raises(InputError, match=r"output goods.csv would be written over the data; give another file"):
        predict("goods.csv", data="goods.csv")
    assert Path("goods.csv").read_bytes() == before


def test_a_full_disk_is_the_machines_fault_and_what_is_done_stays(
    at_goods: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "MOST_RECORDS", AT_ONCE)
    write, done = parts.write_whole, []

    def write_one(path: Path, text: str) -> None:
        if path.suffix == ".jsonl" and done:
            raise WriteError(path, OSError(errno.ENOSPC, "No space left on device"))
        done.extend([path] if path.suffix == ".jsonl" else [])
        write(path, text)

    monkeypatch.setattr(parts, "write_whole", write_one)
    with pytest.raises(WriteError, match="No space left on device"):
        predict("out.csv", data="goods.csv")
    assert [path.name for path in Path("out.csv.parts").glob("0*")] == [f"{0:012}-{AT_ONCE:012}.jsonl"]


def refuse_as_in_use() -> None:
    with pytest.raises(InputError, match="is in use: process"):
        predict("out.csv", data="goods.csv")


def test_two_commands_do_not_write_one_table(at_goods: Path) -> None:
    with predictions.locked(parts.folder_of(Path("out.csv"))):
        assert in_a_fork(refuse_as_in_use) == 0
    assert not Path("out.csv").exists()


def test_the_predictions_of_an_evaluation_are_kept_in_the_runs_folder(at_goods: Path) -> None:
    task = anyformer.load("run")
    source = run_source("run", task).take([5, 2])
    assert keep_predictions(task, source, Path("run")) == Path("run/predictions.csv")
    found = list(csv.DictReader(Path("run/predictions.csv").read_text().splitlines()))
    # By their rows in the table.
    assert [(row["row"], row["true_kind"]) for row in found] == [("5", goods(6)[5][4]), ("2", goods(6)[2][4])]
    # What is no number and no text is kept whole.
    Path("list.jsonl").write_text('{"weight": {"grams": 1}, "kind": ["a"], "title": "old car"}\n')
    assert keep_predictions(task, Table("list.jsonl"), Path("run")) == Path("run/predictions.jsonl")
    assert not Path("run/predictions.csv").exists() and not list(Path("run").glob("*.part"))
    # A task may have rows of its own.
    task.rows_of_test = lambda given: ({"row": given.id_of(i), "length": 2} for i in range(len(given)))
    assert keep_predictions(task, source, Path("run")).read_text() == "row,length\n5,2\n2,2\n"
