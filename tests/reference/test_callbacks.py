"""Lightning's callbacks that cannot do here what they promise."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from anyformer.reference.callbacks import NEEDS, NOT_IN_A_CONFIG, REFUSED, refusal
from anyformer.reference.source import of_lightning


def test_every_name_is_one_of_lightning() -> None:
    assert {*REFUSED, *NOT_IN_A_CONFIG, *NEEDS} <= {*of_lightning("callbacks")}


def test_what_descends_from_a_refused_one_is_refused() -> None:
    assert refusal(["EarlyStopping", "Callback"]) is None
    assert refusal(["Mine", "WeightAveraging", "Callback"]) == REFUSED["WeightAveraging"]


def test_what_takes_functions_is_for_python() -> None:
    assert refusal(["LambdaCallback", "Callback"]) is None
    assert (
        refusal(["LambdaCallback"], in_a_config=True) == "takes functions, which no config can hold; give it in Python"
    )


def test_a_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for name in NEEDS.values():
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert refusal(["DeviceStatsMonitor"]) == "needs the package psutil, which is not installed: pip install psutil"
    (tmp_path / "psutil.py").touch()
    assert refusal(["DeviceStatsMonitor"]) is None
