"""What a policy would do in recorded episodes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from anyformer.errors import InputError
from anyformer.tasks.decide.batch import WindowChopper
from anyformer.tasks.decide.replay import flat_row
from anyformer.tokens import TokenSet
from tests.helpers.worlds import decider, walks


def test_a_step_is_what_the_model_predicts_of_the_episode_up_to_it() -> None:
    source = walks("box", 5)
    task = decider(source, context=12)
    with pytest.raises(InputError, match="sweep, plan and video are for playing"):
        task.predict(source, replace(task.options, plan=True))
    found = task.predict(source)
    chopper: WindowChopper = task.chopper(False)
    view = task.view(source, False)
    for number in range(5):
        # The episodes are no longer than the context, so that a window is a whole one, and its returns are its own.
        batch = chopper.collate([chopper(view[number])])
        with torch.no_grad():
            hidden = task.read(batch)
            ((name, before, _),) = task._predicted(batch, hidden)
            wanted = task.tokenizers[name].decode(TokenSet(task.head(name).choose(before)))
        steps = found[number]["steps"]
        assert [step["step"] for step in steps] == list(range(len(source.episode(number))))
        assert np.allclose([step["action"] for step in steps], wanted, atol=1e-5)
        assert [step["true_action"] for step in steps] == np.asarray(source.episode(number).actions).tolist()
    assert np.std([step["action"] for result in found for step in result["steps"]], axis=0).min() > 0.01
    for i, together in enumerate(found):
        (alone,) = task.predict([source[i]])
        actions = ([step["action"] for step in result["steps"]] for result in (alone, together))
        assert np.allclose(*actions, atol=1e-5)


def test_nested_actions_become_columns() -> None:
    source = walks("pair", 2)
    task = decider(source)
    (first, _) = task.predict(source)
    row = task.rows(first)[0]
    assert row == flat_row(first["steps"][0]) and task.rows(first, whole=True) == first["steps"]
    assert {name for name in row if name.startswith("true_")} == {
        f"true_{name}" for name in row if name.startswith("action")
    }
    assert all(isinstance(value, int | float) for value in row.values())
