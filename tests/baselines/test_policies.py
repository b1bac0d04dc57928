"""What episodes came to themselves, and what chance does."""

from __future__ import annotations

import numpy as np
import pytest

from anyformer.baselines.baseline import baseline
from anyformer.model.config import RotaryConfig, TransformerConfig
from anyformer.tasks.base.records import Records
from anyformer.tasks.decide.actor import PlayConfig
from anyformer.tasks.decide.decide import Decide
from tests.helpers.worlds import walks


def test_the_episodes_own_return_and_that_of_random_actions_are_told() -> None:
    source = walks("box")
    sizes = TransformerConfig(d_model=8, depth=1, n_heads=2, rotary=RotaryConfig(axes=("step",)))
    (section,) = baseline(
        Decide(transformer=sizes, context=3, play=PlayConfig(episodes=5)), Records(source, 0.25)
    ).sections
    found = {line.model: line.outcomes[0].metrics for line in section.lines}
    assert found.keys() == {"the training episodes themselves", "the validation episodes themselves", "random actions"}
    totals = [source[i]["episode"].total for i in range(12)]
    both = 9 * found["the training episodes themselves"]["val/return"]
    both += 3 * found["the validation episodes themselves"]["val/return"]
    assert both == pytest.approx(np.sum(totals))
    assert found["random actions"]["val/length"] > 0
    (section,) = baseline(Decide(transformer=sizes, context=3, play=None), Records(walks("box"), 0.25)).sections
    assert len(section.lines) == 2 and section.notes[0].startswith("no random policy")
