"""The moving average: it starts short, stands in for the weights and gives way again, and goes on from a checkpoint."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anyformer.tasks.base.weight_average import WeightAverage

CPU = torch.device("cpu")


def module(value: float) -> nn.Linear:
    made = nn.Linear(2, 1, bias=False)
    return set_to(made, value)


@torch.no_grad()
def set_to(made: nn.Linear, value: float) -> nn.Linear:
    made.weight.fill_(value)
    return made


def test_the_average_starts_short_and_becomes_as_long_as_it_is_told() -> None:
    made, average = module(0.0), WeightAverage()
    average.begin(made, CPU)
    set_to(made, 1.0)
    expected = 0.0
    for step in range(1, 30):
        average.update(made, 0.5)
        decay = min(0.5, step / (9 + step))
        expected = decay * expected + (1 - decay)
        assert average.weights["weight"].tolist() == [pytest.approx([expected] * 2)]


def test_swapping_twice_changes_nothing_and_once_puts_the_average_in() -> None:
    made, average = module(0.0), WeightAverage()
    average.begin(made, CPU)
    set_to(made, 1.0)
    average.swap(made)
    assert made.weight.tolist() == [[0.0, 0.0]] and average.weights["weight"].tolist() == [[1.0, 1.0]]
    average.swap(made)
    assert made.weight.tolist() == [[1.0, 1.0]] and average.weights["weight"].tolist() == [[0.0, 0.0]]
    assert average.replace(made.state_dict())["weight"].tolist() == [[0.0, 0.0]]


def test_one_that_has_not_begun_changes_nothing() -> None:
    made, average = module(1.0), WeightAverage()
    average.update(made, 0.5)
    average.swap(made)
    assert made.weight.tolist() == [[1.0, 1.0]] and not average.weights and average.n_steps == 0
    assert torch.equal(average.replace(made.state_dict())["weight"], made.weight)


def test_it_goes_on_from_a_checkpoint() -> None:
    made, average, again = module(0.0), WeightAverage(), WeightAverage()
    average.begin(made, CPU)
    set_to(made, 1.0)
    average.update(made, 0.9)
    checkpoint: dict = {}
    average.save(checkpoint)
    assert checkpoint.keys() == {"average", "averaged_steps"}
    again.load({name: value.copy() if isinstance(value, dict) else value for name, value in checkpoint.items()})
    again.begin(set_to(module(0.0), 5.0), CPU)
    assert torch.equal(again.weights["weight"], average.weights["weight"]) and again.n_steps == 1
    average.forget()
    assert not average.weights
