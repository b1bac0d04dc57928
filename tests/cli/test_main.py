"""The light front of the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import anyformer
from anyformer.__main__ import main
from tests.helpers.small_cli import CONFIG, refused


def test_help_version_and_a_misspelt_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for command in ("fit --config", "fit --resume", "test RUN", "predict RUN", "collect --env", "also called run"):
        assert command in out
    assert main([]) == 2
    assert "usage: anyformer" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"anyformer {anyformer.__version__}\n"
    assert refused(capsys, "fitt") == "there is no command 'fitt'; did you mean 'fit'?"
    assert refused(capsys, "xyz") == (
        "there is no command 'xyz'; "
        "there are fit, validate, test, predict, embed, explain, collect, plan, params, baseline, import, export, "
        "average, merge, help, list, schema"
    )


def test_windows_is_told_so_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "win32")
        code = main(["--help"])
    assert (code, *capsys.readouterr()) == (2, "", "anyformer: Windows is not supported; use Linux, macOS or WSL\n")


def test_run_is_another_name_of_predict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--help"]) == 0
    help = capsys.readouterr().out
    assert main(["predict", "--help"]) == 0
    assert capsys.readouterr().out == help
    assert help.startswith("usage: anyformer predict")


def test_every_name_the_package_offers_is_there() -> None:
    assert [name for name in anyformer.__all__ if getattr(anyformer, name, None) is None] == []
    assert set(anyformer.__all__) <= set(dir(anyformer))
    with pytest.raises(AttributeError, match=r"module 'anyformer' has no attribute 'absent'"):
        _ = anyformer.absent


LIGHT = """\
import sys
from anyformer.__main__ import main
import anyformer
codes = [main([word]) for word in ("--help", "--version", "fitt")]
assert codes == [0, 0, 2], codes
heavy = {"torch", "lightning", "numpy", "jsonargparse"} & sys.modules.keys()
assert not heavy, heavy
"""


def test_the_front_imports_nothing_heavy() -> None:
    subprocess.run([sys.executable, "-c", LIGHT], check=True, capture_output=True)


TABLE = """\
model:
  class_path: Classify
  init_args:
    tokenizers: {row: {class_path: Row}}
    transformer: {d_model: 8, depth: 1, n_heads: 2}
data:
  train: {class_path: Table, init_args: {path: train.csv, columns: {row: [x], label: label}}}
  validation: 0.2
trainer: {max_epochs: 1, accelerator: cpu, enable_progress_bar: false}
"""


def test_no_file_of_the_current_folder_is_run_in_place_of_a_package(tmp_path: Path) -> None:
    for name in ("datasets", "matplotlib", "train", "yaml"):
        (tmp_path / f"{name}.py").write_text("open('IMPORTED', 'w').close()\n")
    (tmp_path / "train.csv").write_text("x,label\n" + "0,a\n1,b\n" * 20)
    (tmp_path / "config.yaml").write_text(TABLE)
    command = [sys.executable, "-m", "anyformer", "fit", "--config", "config.yaml"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ended.returncode, (tmp_path / "IMPORTED").exists()) == (0, False), ended.stderr


def test_standard_output_that_is_full_is_one_line_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(CONFIG)
    command = [sys.executable, "-m", "anyformer", "params", str(tmp_path / "small.yaml")]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 4
    assert done.stderr == (
        "anyformer: what is printed, or a file, cannot be written: No space left on device; make room, or raise the "
        "limit\n"
    )
