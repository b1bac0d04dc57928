"""`anyformer merge`, and what the commands do with an adapter: it is used like any run, and becomes one model."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import anyformer
from anyformer.__main__ import main
from anyformer.errors import InputError
from anyformer.model.lora import adapters
from anyformer.saving.manifest import replace_folder
from anyformer.saving.model_folder import load, save
from anyformer.tasks.ensemble.ensemble import Ensemble
from anyformer.tokenizers.image.sources import Digits
from tests.helpers.small_cli import refused

CONFIG = """\
trainer: {max_epochs: 1, accelerator: cpu, enable_progress_bar: false, limit_train_batches: 1}
model:
  class_path: Classify
  init_args:
    tokenizers: {image: {class_path: ImagePatches, init_args: {size: [8, 8], patch: 4, channels: 1}}}
    transformer: {d_model: 8, depth: 1, n_heads: 2}
data: {train: Digits, validation: 0.1, test: 0.1, stratify: label, batch_size: 500}
"""
LORA = "    init_from: runs/small\n    lora: {rank: 2, on: ['*.q', '*.mlp.*', 'heads.*']}\n"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setattr("anyformer.runs.checkpointing.draw_curves", lambda *_: None)
        patch.setattr("anyformer.tasks.classify.classify.Classify.draw", lambda self, folder: None)
        Path("small.yaml").write_text(CONFIG)
        Path("lora.yaml").write_text(CONFIG.replace("data:", f"{LORA}data:"))
        assert main(["fit", "--config", "small.yaml"]) == 0
        assert main(["fit", "--config", "lora.yaml"]) == 0
        task = load("runs/lora")
        with torch.no_grad():
            for layer in adapters(task).values():
                layer.lora_b.normal_()
        save(task, Path("runs/lora/model"))
    # Where the adapter was trained there is nothing any more.
    return home.rename(home.with_name("moved"))


@pytest.fixture
def at_home(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(trained, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


def probabilities(run: str) -> torch.Tensor:
    records = [{"image": Digits()[i]["image"]} for i in range(20)]
    return torch.tensor([[*map(dict(each["probabilities"]).get, "0123456789")] for each in load(run).predict(records)])


def test_merged_equals_unmerged_and_is_a_run_like_any(at_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["merge", "runs/lora", "--output", "runs/merged"]) == 0
    assert capsys.readouterr().out == (
        "runs/merged is one model of runs/lora and its base.\nNext:\n  anyformer predict runs/merged image=...\n"
    )
    torch.testing.assert_close(probabilities("runs/merged"), probabilities("runs/lora"), rtol=0, atol=1e-6)
    assert (probabilities("runs/lora") - probabilities("runs/small")).abs().max() > 1e-3
    merged, small = (load_file(f"runs/{name}/model/weights.safetensors") for name in ("merged", "small"))
    assert {name: tensor.shape for name, tensor in merged.items()} == {n: tensor.shape for n, tensor in small.items()}
    assert not re.search("lora|init_from", Path("runs/merged/config.yaml").read_text().partition("\n")[2])


def test_commands_say_where_a_base_is_that_has_moved(at_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("runs/small").rename("moved")
    for argv in (
        ["merge", "runs/lora", "--output", "m"],
        ["export", "runs/lora", "a.safetensors"],
    ):
        assert re.search(
            r"holds an adapter on .*/runs/small, .*say where the base is now by --base", refused(capsys, *argv)
        )
        assert main([*argv, "--base", "moved"]) == 0
        capsys.readouterr()
    assert main(["params", "runs/lora", "--base", "moved"]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    n = sum(tensor.numel() for tensor in load_file("runs/lora/model/weights.safetensors").values())
    assert ["trained", str(n)] in shown
    assert sorted(load_file("a.safetensors"))[0] == "blocks.0.attn.proj.bias"


def test_params_counts_what_is_trained_before_it_is(at_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    n = sum(tensor.numel() for tensor in load_file("runs/lora/model/weights.safetensors").values())
    assert main(["params", "lora.yaml", "--classes", "10"]) == 0
    assert ["trained", str(n)] in [line.split() for line in capsys.readouterr().out.splitlines()]


def test_the_mean_of_predictions_holds_adapters_and_needs_no_base(at_home: Path) -> None:
    expected = (probabilities("runs/lora") + probabilities("runs/small")) / 2
    save(Ensemble([load("runs/lora"), load("runs/small")]), "mean")
    shutil.rmtree("runs/small")
    torch.testing.assert_close(probabilities("mean"), expected)


def test_what_cannot_be_merged_or_averaged_is_said(at_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "merge", "runs/small", "--output", "m") == (
        "runs/small holds a whole model and no adapter; there is nothing to merge"
    )
    assert refused(capsys, "merge", "runs/lora", "--output", "runs/small").startswith("runs/small is there already")
    line = refused(capsys, "average", "runs/lora", "--weights", "--output", "m")
    assert line.startswith("runs/lora holds an adapter, and the means of A and of B are not those of B A")
    for option, message in (
        ("--model.init_from=runs/lora", "runs/lora holds an adapter and no whole model"),
        ('--model.lora.on=["*.w"]', "lora.on: no linear map is named '*.w'"),
    ):
        assert main(["fit", "--config", "lora.yaml", "--run_dir=b", option]) == 2
        # Before it stands what is taken from the base.
        *_, line = capsys.readouterr().err.splitlines()
        assert line.startswith("anyformer: ") and message in line
    Path("runs/lora/model/base.json").unlink()
    assert "base.json is damaged (it is missing)" in refused(capsys, "test", "runs/lora")
    with pytest.raises(InputError, match="nothing is loaded from the network"):
        anyformer.merge("https://host/run", "m")


def test_training_goes_on_from_an_adapter_as_from_one_model(at_home: Path) -> None:
    task, merged = load("runs/small"), load("runs/lora")
    task.start_from("runs/lora")
    merged.merge()
    assert all(torch.equal(task.state_dict()[name], value) for name, value in merged.state_dict().items())


def test_weights_of_another_shape_are_refused(at_home: Path) -> None:
    weights = load_file("runs/lora/model/weights.safetensors")

    def write(part: Path) -> None:
        for name in ("config.json", "base.json"):
            shutil.copy(f"runs/lora/model/{name}", part / name)
        save_file({name: torch.cat([tensor, tensor]) for name, tensor in weights.items()}, part / "weights.safetensors")

    replace_folder(Path("odd"), write)
    with pytest.raises(InputError, match=r"odd/weights\.safetensors does not fit config\.json"):
        load("odd", base="runs/small")
