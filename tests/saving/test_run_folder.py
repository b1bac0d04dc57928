"""What the path of a run means."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anyformer.errors import InputError
from anyformer.saving.run_folder import find_run, first_trial, holds_trials, read_trials, run_folder, split_run


@pytest.mark.parametrize("call", [run_folder, split_run, find_run])
def test_an_address_on_the_network_is_no_run(call) -> None:
    with pytest.raises(
        InputError, match=r"a run is a local folder, and nothing is loaded from the network, got s3://a"
    ):
        call("s3://a")


def test_what_follows_a_colon_is_a_task_unless_a_folder_is_called_so(tmp_path: Path) -> None:
    assert split_run(tmp_path / "all:digits") == (tmp_path / "all", "digits")
    assert split_run(tmp_path / "all") == (tmp_path / "all", "")
    (tmp_path / "all:digits").mkdir()
    assert split_run(tmp_path / "all:digits") == (tmp_path / "all:digits", "")


def test_weights_are_found_in_the_data_folder_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYFORMER_DATA", str(tmp_path))
    (tmp_path / "all").mkdir()
    assert find_run("all:digits") == (tmp_path / "all", ":digits")
    with pytest.raises(InputError, match="none: no such file"):
        find_run("none")


def test_a_folder_of_several_runs_is_told_from_one_of_a_single_run(tmp_path: Path) -> None:
    assert not holds_trials(tmp_path) and read_trials(tmp_path) == {}
    (tmp_path / "metrics.json").write_text(json.dumps({"val/loss": 1.0}))
    assert not holds_trials(tmp_path) and read_trials(tmp_path) == {}
    runs = {"seed_1": {"val/loss": 1.0}}
    (tmp_path / "metrics.json").write_text(json.dumps({"runs": runs}))
    assert holds_trials(tmp_path) and read_trials(tmp_path) == runs
    assert first_trial(tmp_path) == tmp_path / "seed_1"


def test_a_run_that_has_only_begun_is_named_too(tmp_path: Path) -> None:
    assert first_trial(tmp_path) == tmp_path / "seed_0"
    for name in ("fold_1_seed_0", "fold_0_seed_0", "pictures"):
        (tmp_path / name).mkdir()
    assert first_trial(tmp_path) == tmp_path / "fold_0_seed_0"
