"""A Vision Transformer of timm as a classifier of pictures: its config.json and weights as timm writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from anyformer.tasks.base.task import Task
from anyformer.weights.tensors import Report


def is_timm(path: Path) -> bool:
    return False


def open_timm(path: Path) -> tuple[Task, Callable[[], Report]]:
    raise NotImplementedError
