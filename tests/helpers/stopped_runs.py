"""A run that is stopped at a hook, and what one that goes on must have in common with one that was never stopped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file

from anyformer.saving.manifest import read_manifest


class Signal(Callback):
    """Sends a signal to its own process when a hook is called for the nth time."""

    def __init__(self, number: int, n: int, hook: str = "on_train_batch_end") -> None:
        self.number, self.left, self.hook, self.send = number, n, hook, os.kill
        setattr(self, hook, self._count)

    def _count(self, trainer: Any, *args: Any) -> None:
        if not trainer.sanity_checking or self.hook == "on_sanity_check_start":
            self.left -= 1
            if self.left == 0:
                self.send(os.getpid(), self.number)


def last_state(run: Path) -> dict[str, Any]:
    line = read_manifest(run / "checkpoints")[-1]
    return torch.load(run / "checkpoints" / line["file"], weights_only=True)


def assert_same(one: Any, other: Any, path: str = "") -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_same(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), path
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{path}.{i}")
    else:
        assert one == other, path


def assert_same_run(run: Path, whole: Path) -> None:
    assert (run / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    assert (run / "metrics.json").read_text() == (whole / "metrics.json").read_text()
    assert (run / "model/config.json").read_text() == (whole / "model/config.json").read_text()
    assert_same(load_file(run / "model/weights.safetensors"), load_file(whole / "model/weights.safetensors"))
    one, other = last_state(run), last_state(whole)
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "average", "anyformer", "global_step", "epoch"):
        assert_same(one[key], other[key], key)
