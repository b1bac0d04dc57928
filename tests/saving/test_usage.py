"""What `predict` takes of a model, as it stands beside its weights."""

from __future__ import annotations

import json
from pathlib import Path

from anyformer.saving.usage import USAGE, read_usage


def test_it_is_read_from_a_run_and_from_a_folder_of_a_model_alone(tmp_path: Path) -> None:
    usage = {"inputs": {"text": {"endings": []}}, "options": None}
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / USAGE).write_text(json.dumps(usage))
    assert read_usage(tmp_path / "run") == read_usage(tmp_path / "run" / "model") == usage
    assert read_usage(tmp_path / "run", "digits") is None
    (tmp_path / "run" / "model" / USAGE).write_text(json.dumps({"members": {"digits": usage}}))
    assert read_usage(tmp_path / "run", "digits") == usage


def test_where_it_is_not_or_is_damaged_nothing_is_said(tmp_path: Path) -> None:
    assert read_usage(tmp_path) is None
    (tmp_path / USAGE).write_text('{"inputs": ')
    assert read_usage(tmp_path) is None
