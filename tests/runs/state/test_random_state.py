"""The global generators go on where they were."""

from __future__ import annotations

import random

import numpy as np
import torch

from anyformer.runs.state.random_state import generators, set_generators


def test_generators_go_on_where_they_were() -> None:
    def draw() -> list[float]:
        # Normal numbers come in pairs, of which the second is kept: the first here may be one that was.
        normal = [random.gauss(0, 1), np.random.randn()]
        return [*normal, random.random(), *np.random.rand(3).tolist(), *torch.rand(3).tolist()]

    draw()
    state = generators()
    drawn = draw()
    assert draw() != drawn
    set_generators(state)
    assert draw() == drawn
