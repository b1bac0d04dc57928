import pytest
import torch

from anyformer.errors import InputError
from anyformer.tasks.targets.action import ActionTarget
from anyformer.tokenizers.episode.continuous import Vector
from anyformer.tokenizers.episode.discrete import Bins, Categories
from anyformer.tokenizers.episode.frames import Frames
from tests.tasks.targets.test_regression import SMALL, head_and_values
from tests.tasks.targets.test_target import column

ACTIONS = {
    "choice": (Categories(), [3, 5, 4, 3], "accuracy"),
    "choices": (Categories(), [[0, 2], [1, 0], [1, 1], [0, 0]], "accuracy"),
    "bins": (Bins(n_bins=9, low=(-1.0, -1.0), high=(1.0, 1.0)), [[1.0, -1.0], [0.5, 0.25], [0.0, 1.0]], "accuracy"),
    "vector": (Vector(), [[10.0, 2.0], [20.0, 2.5], [30.0, 3.0]], "error"),
}


@pytest.mark.parametrize("kind", ACTIONS)
def test_an_action_of_any_kind_is_learnt(kind):
    tokenizer, given, metric = ACTIONS[kind]
    target = ActionTarget(tokenizer).fit("action", column("action", [*given, None]))
    head, _, values = head_and_values(target, "action", [*given, None])
    vectors = torch.eye(6)[: len(given)]
    optimizer = torch.optim.Adam(head.parameters(), lr=0.3)
    for _ in range(80):
        loss, n = head.loss(vectors, values)
        optimizer.zero_grad()
        (loss / n).backward()
        optimizer.step()
    head.evaluate(vectors, values)
    for result, expected in zip(head.results(vectors), given, strict=True):
        assert result == pytest.approx(expected, abs=0.2)
    assert head.compute()[metric].item() == pytest.approx(1 if metric == "accuracy" else 0, abs=0.2)
    assert next(iter(target.metrics)) == metric


def test_an_action_that_cannot_be_is_named():
    target = ActionTarget(Categories(counts=(3,), shape=()))
    with pytest.raises(InputError, match="field 'action', step 0: is 7, and the space is from 0 to 2"):
        target.value("action", {"action": 7})
    with pytest.raises(InputError, match=r"field 'action' must hold a value of shape \(\), got one of \(2,\)"):
        target.value("action", {"action": [1, 2]})
    with pytest.raises(InputError, match="field 'action' must hold an action as numbers, got 'left'"):
        target.value("action", {"action": "left"})
    with pytest.raises(InputError, match="field 'action' must hold numbers below 1e308, and one is larger"):
        target.value("action", {"action": 10**400})
    with pytest.raises(InputError, match="tokenizer must be a Vector, Bins or Categories, got Frames"):
        ActionTarget(Frames())
    with pytest.raises(InputError, match=r"targets.action.tokenizer has no shape yet"):
        ActionTarget(Vector()).head("action", None, SMALL)
