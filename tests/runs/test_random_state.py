"""The global generators go on where they were."""

from __future__ import annotations

import random

import numpy as np
import torch

from anyformer.runs.random_state import generators, set_generators


def test_generators_go_on_where_they_were() -> None:
    random.random(), np.random.randn(), torch.rand(3)
    state = generators()
    drawn = random.gauss(0, 1), np.random.randn(), torch.rand(3).tolist()
    set_generators(state)
    assert (random.gauss(0, 1), np.random.randn(), torch.rand(3).tolist()) == drawn
