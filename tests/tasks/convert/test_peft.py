"""An adapter of peft becomes a run on the run of its base, by the command line too, and goes out again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("transformers")

from anyformer.__main__ import main
from anyformer.errors import InputError
from anyformer.model.lora import LoraConfig, adapters
from anyformer.saving.model_folder import load
from anyformer.tasks.convert.peft import is_peft, to_peft
from tests.helpers.small_cli import refused
from tests.helpers.transformers_folders import gpt2
from tests.weights.test_peft import run_with_adapters

TEXT = ("text=to be", "--max_new_tokens=8", "--temperature=0")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A GPT-2 and an adapter as peft has it."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    gpt2(Path("hub"))
    to_peft(run_with_adapters(tmp_path, ["*.q", "*.mlp.down"]), "adapter")
    return tmp_path


def test_an_adapter_is_imported_used_merged_and_exported(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "adapter", "runs/a", "--base", "base"]) == 0
    said = "adapters from adapter: 4 linear maps, of rank 3\nThe model is in runs/a. Next:\n  anyformer predict runs/a"
    assert capsys.readouterr().out.startswith(f"{said} text=...\n")
    config = json.loads(Path("runs/a/model/config.json").read_text())["init_args"]["lora"]
    assert config["on"] == ["*.q", "*.down"] and (config["rank"], config["alpha"]) == (3, pytest.approx(2.0))
    assert main(["predict", "runs/a", *TEXT]) == 0
    adapted = capsys.readouterr().out
    assert main(["predict", "base", *TEXT]) == 0
    assert capsys.readouterr().out != adapted
    assert main(["export", "runs/a", "out", "--peft"]) == 0
    assert json.loads(Path("out/adapter_config.json").read_text()) == json.loads(
        Path("adapter/adapter_config.json").read_text()
    )
    before, after = (load_file(f"{name}/adapter_model.safetensors") for name in ("adapter", "out"))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=1e-6, atol=1e-7)
    # Without --peft it is one model for transformers, which comes in like any.
    assert main(["export", "runs/a", "whole"]) == 0
    assert main(["import", "whole", "runs/whole"]) == 0
    capsys.readouterr()
    assert main(["predict", "runs/whole", *TEXT]) == 0
    assert capsys.readouterr().out == adapted


def test_what_cannot_be_brought_in_or_out_is_said(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert is_peft("adapter") and not is_peft("hub") and not is_peft("nowhere")
    assert refused(capsys, "import", "adapter", "runs/b").startswith(
        "adapter is an adapter of peft; import its base first"
    )
    assert refused(capsys, "import", "hub", "runs/b", "--base", "base") == (
        "hub is no adapter of peft, which --base is for; leave it out"
    )
    assert re.search("peft: the run has no adapters", refused(capsys, "export", "base", "out", "--peft"))
    assert refused(capsys, "export", "base", "adapter", "--peft").startswith("adapter is there already")
    task = load("base")
    task.lora = LoraConfig(rank=2, only_with=["text"])
    with pytest.raises(InputError, match=r"peft: it does not support adapters that act in some samples alone"):
        to_peft(task, "out")
    assert not adapters(task) and not Path("out").exists()
