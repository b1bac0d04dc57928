"""The Python of docs/run_folder.md runs as pasted, and what is exported there says what `predict` says."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

PAGE = Path(__file__).parents[1] / "docs" / "run_folder.md"


@pytest.fixture
def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_a_model_of_bfloat16_predicts_and_an_exported_one_is_equal_to_predict(
    blocks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    trained, exported = blocks
    assert "max_epochs=1)" in trained
    for i, code in enumerate((trained.replace("max_epochs=1)", "max_epochs=1, limit_train_batches=3)"), exported)):
        module = ModuleType(f"page_{i}")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(code, str(PAGE), "exec", dont_inherit=True), module.__dict__)
    assert float(capsys.readouterr().out.splitlines()[-1]) < 1e-6
    # It goes by what it is given.
    first, second = (module.cut(module.Digits()[i]["image"]).fields["image"].content for i in (0, 1))
    assert not torch.equal(module.program(first), module.program(second))
