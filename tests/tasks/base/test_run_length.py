"""The length of a run is what comes first of its epochs and its steps."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from anyformer.tasks.base.run_length import run_length


@pytest.mark.parametrize(
    ("max_epochs", "max_steps", "of_epoch", "expected"),
    [
        (3, -1, 10, 30),
        (3, 20, 10, 20),
        (None, 20, 10, 20),
        (-1, -1, 10, math.inf),
        (None, -1, 0, math.inf),
        (3, -1, math.inf, math.inf),
    ],
)
def test_a_run_ends_at_its_first_limit(max_epochs: Any, max_steps: int, of_epoch: float, expected: float) -> None:
    trainer: Any = SimpleNamespace(max_epochs=max_epochs, max_steps=max_steps)
    assert run_length(trainer, of_epoch) == expected
    assert run_length(trainer, 2 * of_epoch, 2) == 2 * expected
