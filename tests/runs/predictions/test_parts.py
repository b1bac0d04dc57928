"""Parts of a table: whole or absent, each record once, and nothing of other predictions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anyformer.errors import InputError
from anyformer.runs.predictions import parts as module
from anyformer.runs.predictions.parts import Parts
from anyformer.tasks.base.given import AT_ONCE

ABOUT = {"model": "a", "data": {"files": "b"}, "options": {"views": None}}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / "out.csv.parts").mkdir()
    return tmp_path / "out.csv"


def test_a_part_is_written_at_whole_batches_and_gone_on_from(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_RECORDS", 10)
    first = Parts(output, ABOUT)
    assert first.n_begun == 0
    for i in range(AT_ONCE + 20):
        # The rows of a record are never apart.
        first.add([{"row": i, "step": step} for step in range(i % 3)])
    # Killed here: what was not yet a part is predicted again, and so is what was half written.
    (output.with_name("out.csv.parts") / f"{AT_ONCE:012}-{2 * AT_ONCE:012}.jsonl.part").write_text('{"row": 6')
    second = Parts(output, json.loads(json.dumps(ABOUT)))
    assert second.n_begun == AT_ONCE
    second.add([{"row": AT_ONCE, "step": 0}])
    second.flush()
    wanted = [{"row": i, "step": step} for i in range(AT_ONCE) for step in range(i % 3)]
    assert list(second.read()) == [*wanted, {"row": AT_ONCE, "step": 0}]
    assert not list(second.folder.glob("*.part"))
    second.remove()
    assert not second.folder.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "c"}, "the model has changed since"),
        ({"data": {"files": "c"}}, "the data has changed since"),
        ({"options": {"views": 8}}, "options.views was None and is now 8"),
    ],
)
def test_parts_of_other_predictions_are_refused_in_one_line(output: Path, change: dict, message: str) -> None:
    before = Parts(output, ABOUT)
    # Nothing is lost where there is nothing yet.
    before = Parts(output, ABOUT | {"model": "other"})
    before = Parts(output, ABOUT)
    before.add([{"row": 0}])
    before.flush()
    with pytest.raises(InputError, match=rf"holds a part of other predictions: {message}; give the same .* remove"):
        Parts(output, ABOUT | change)
    assert list(Parts(output, ABOUT).read()) == [{"row": 0}]


def test_a_part_that_is_missing_is_seen(output: Path) -> None:
    parts = Parts(output, ABOUT)
    for i in range(3):
        parts.add([{"row": i}])
        parts.flush()
    (parts.folder / "000000000001-000000000002.jsonl").unlink()
    with pytest.raises(InputError, match=r"000000000002-000000000003\.jsonl: the part before it is missing; remove"):
        Parts(output, ABOUT)
