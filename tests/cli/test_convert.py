"""`anyformer import` and `anyformer export`, called in the process."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from safetensors.torch import load_file

from anyformer.__main__ import main
from tests.helpers.small_cli import refused

pytestmark = pytest.mark.usefixtures("at_home")


def test_weights_of_transformers_become_a_run_and_go_out_again(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    from tests.helpers.transformers_folders import gpt2

    gpt2(Path("hub"))
    capsys.readouterr()
    assert main(["import", "hub", "runs/gpt"]) == 0
    assert capsys.readouterr().out == (
        "weights from hub/model.safetensors: 36 tensors taken\n"
        "The model is in runs/gpt. Next:\n  anyformer predict runs/gpt text=...\n"
        "  anyformer fit --config runs/gpt/config.yaml --run_dir runs/mine    "
        "# fine-tunes it, once runs/gpt/config.yaml names your data\n"
    )
    assert main(["predict", "runs/gpt", "text=to be", "--max_new_tokens=5", "--temperature=0"]) == 0
    assert capsys.readouterr().out.startswith("to be")
    assert main(["export", "runs/gpt", "out"]) == 0
    assert capsys.readouterr().out == "The model is in out.\n"
    before, after = (Path(name, "model.safetensors") for name in ("hub", "out"))
    assert sorted(load_file(before)) == sorted(load_file(after))
    assert refused(capsys, "import", "hub", "runs/gpt") == "runs/gpt is there already; choose another folder"
    assert refused(capsys, "export", "runs/gpt", "out") == "out is there already; choose another folder"
    before.write_bytes(before.read_bytes()[:-9])
    assert re.search(r"hub/model\.safetensors is damaged .*; copy or convert", refused(capsys, "import", "hub", "b"))
    assert not Path("b").exists()


def test_a_run_of_pictures_goes_out_as_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    message = "vit: a model of pictures is written as a file for timm; give FILE.safetensors"
    assert refused(capsys, "export", "runs/small", "vit") == message
    assert main(["export", "runs/small", "vit.safetensors"]) == 0
    assert "patch_embed.proj.weight" in load_file("vit.safetensors")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("import empty runs/new", "empty holds no config.json; give a folder as save_pretrained"),
        ("import absent runs/new", "absent: no such file; looked for absent and"),
        ("import https://host/gpt2 runs/new", "nothing is loaded from the network"),
        ("import empty runs/small", "runs/small is there already; choose another folder"),
        ("import empty", "the following arguments are required: RUN; see anyformer import --help"),
        ("export absent out", "there is no run folder absent"),
        ("export empty out", "empty holds no model"),
    ],
)
def test_a_wrong_command_is_refused_in_one_line(argv: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert re.search(message, refused(capsys, *argv.split()))
