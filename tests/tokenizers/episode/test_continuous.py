"""What vectors and returns are."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from anyformer.errors import InputError
from anyformer.tokenizers.episode.continuous import Returns, Vector, VectorHead
from anyformer.tokenizers.episode.steps import Stretch
from tests.helpers.witnesses import redraw
from tests.tokenizers.episode.test_steps import KINDS, NUMBERS, STEPS, hidden_and_content

# Vectors


def test_squared_error_is_the_mean_over_the_values() -> None:
    hidden, content = hidden_and_content("vector")
    head = KINDS["vector"][0].head(7)
    expected = nn.functional.mse_loss(head.output(hidden), content) * len(content)
    torch.testing.assert_close(head.loss(hidden, content), expected)
    error, _ = head.metric(hidden, content)
    std = torch.tensor(KINDS["vector"][0].std)
    torch.testing.assert_close(error, ((head.output(hidden) - content).abs() * std).mean() * 6)


def test_a_gaussian_is_that_of_torch() -> None:
    hidden, content = hidden_and_content("gaussian")
    head = KINDS["gaussian"][0].head(7)
    mean, log_std = head(hidden)
    assert (log_std.exp() - 1).abs().max() < 0.5, "deviations of about 1 at the start"
    redraw(head)
    mean, log_std = head(hidden)
    expected = -torch.distributions.Normal(mean, log_std.exp()).log_prob(content).sum()
    torch.testing.assert_close(head.loss(hidden, content), expected)
    assert torch.equal(head.choose(hidden), mean)
    assert log_std.min() >= -5 and log_std.max() <= 2
    generator, deviation = torch.Generator().manual_seed(3), log_std.exp()
    drawn = torch.stack([head.choose(hidden, generator, 0.5) for _ in range(400)])
    assert ((drawn.mean(0) - mean) / deviation).abs().max() < 0.1
    torch.testing.assert_close(drawn.std(0), 0.5 * deviation, rtol=0.15, atol=0)


def test_tanh_keeps_what_is_predicted_within_the_bounds() -> None:
    low, high = (-2.0, 0.0), (2.0, 10.0)
    vector = Vector(tanh=True, shape=(2,), low=low, high=high, mean=(1.0, 5.0), std=(0.5, 3.0))
    head = vector.head(7)
    redraw(head)
    hidden = 100 * torch.randn(200, 7)
    values = head.choose(hidden) * torch.tensor(vector.std) + torch.tensor(vector.mean)
    torch.testing.assert_close(values.amin(0), torch.tensor(low))
    torch.testing.assert_close(values.amax(0), torch.tensor(high))
    plain = replace(vector, normalize=False, mean=None, std=None, low=(-1.0, -1.0), high=(1.0, 1.0)).head(7)
    hidden = torch.randn(5, 7)
    assert torch.equal(plain.choose(hidden), plain.output(hidden).tanh()), "the paper's"
    with pytest.raises(InputError, match="tanh needs a space with bounds, and this one is open"):
        replace(vector, high=(2.0, None))


@given(arrays(np.float32, (11, 2), elements=st.floats(-100, 100, width=32)), st.sets(st.integers(0, 11), max_size=4))
def test_mean_and_deviation_are_those_of_all_steps_however_they_are_cut(values: np.ndarray, cuts: set[int]) -> None:
    vector = Vector(shape=(2,)).fit(np.split(values, sorted(cuts)))
    np.testing.assert_allclose(vector.mean, values.mean(0, dtype=np.float64), rtol=1e-9, atol=1e-9)
    std = values.std(0, dtype=np.float64)
    expected = np.where(std <= 2**-23 * np.abs(vector.mean), 1, std)
    np.testing.assert_allclose(vector.std, expected, rtol=1e-6)


def test_a_large_offset_does_not_drown_the_deviation() -> None:
    parts = [1e7 + np.array([[0.0], [1.0]]), 1e7 + np.array([[2.0], [3.0], [4.0]])]
    assert Vector(shape=(1,)).fit(parts).std == pytest.approx((math.sqrt(2),), rel=1e-6)


def test_what_never_changes_is_not_blown_up() -> None:
    vector = Vector(shape=(2,)).fit([np.array([[3.0, 1.0], [3.0, 2.0]])])
    assert vector.std == (1.0, 0.5)
    assert vector.cut(np.array([[3.0, 2.0]], dtype=np.float32)).tolist() == [[0.0, 1.0]]
    assert Vector(shape=(2,)).fit([np.array([[0.0, 0.1]] * 7), np.array([[0.0, 0.1 + 1e-10]])]).std == (1.0, 1.0)


def test_small_units_are_scaled_as_large_ones_are() -> None:
    values = np.random.default_rng(0).normal(size=(100, 1)) * 5e-8
    vector = Vector(shape=(1,)).fit([values])
    assert vector.std == pytest.approx((values.std(),))
    assert vector.cut(values).std(correction=0).item() == pytest.approx(1)


def test_what_is_learnt_is_kept_and_inherited() -> None:
    one = Vector(shape=(3,)).fit([NUMBERS])
    assert one.fit([NUMBERS * 2]) == one
    assert Vector().inherit(one).mean == one.mean and Vector(normalize=False).inherit(one).mean is None
    other = Vector(shape=(3,)).fit([NUMBERS * 2])
    assert other.inherit(one) == other
    one.agree(replace(one), "state")
    with pytest.raises(InputError, match="state: values were normalised by another mean"):
        one.agree(other, "state")
    with pytest.raises(InputError, match="no step to learn a mean from"):
        Vector(shape=(3,)).fit([])
    with pytest.raises(InputError, match="has no mean yet: fit it to the training episodes first"):
        Vector(shape=(3,)).encode(Stretch(NUMBERS, STEPS))


def test_values_are_put_back_into_the_bounds_and_the_dtype() -> None:
    vector = Vector(shape=(2,), dtype="int32", normalize=False, low=(-1, None), high=(2, None))
    tokens = vector.encode(Stretch(np.array([[1.6, 7.4], [9, -9]]), np.arange(2)))
    values = vector.decode(tokens)
    assert values.tolist() == [[2, 7], [2, -9]] and values.dtype == np.int32


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (2.5, r"a\.npz episode 3: action, step 4: value 1 is 2\.5, and the space is from -1 to 2; mend the data"),
        (-1.1, r"step 4: value 1 is -1\.1, and the space is from -1 to 2"),
        (math.nan, r"step 4: value 1 is nan, and must be finite"),
        (math.inf, r"step 4: value 1 is inf, and must be finite"),
    ],
)
def test_a_value_outside_the_space_is_named_with_its_step(value: float, message: str) -> None:
    vector, values = Vector(shape=(2,), low=(None, -1), high=(None, 2)), np.zeros((6, 2))
    vector.check(values + np.array([1e9, 2.000001]), "a.npz episode 3: action")
    values[4:, 1] = value
    with pytest.raises(InputError, match=message):
        vector.check(values, "a.npz episode 3: action")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (2,), "low": (1.0,)}, "low must have 2 numbers, one for each value, got 1"),
        ({"std": (1.0, 0.0)}, "std must be above 0, got 0.0"),
        ({"max_steps": 0}, "max_steps must be at least 1, got 0"),
    ],
)
def test_options_that_cannot_be_say_why(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Vector(**options)


# Returns


def test_the_largest_return_of_the_data_is_one() -> None:
    returns = Returns().fit([np.array([-8.0, -5.0, -1.0]), np.array([2.0, 4.0]), np.array([])])
    assert returns == Returns(scale=8.0)
    tokens = returns.encode(Stretch(np.array([-8.0, 2.0]), np.arange(2)))
    assert tokens.content.tolist() == [[-1.0], [0.25]]
    assert returns.decode(tokens).tolist() == [-8.0, 2.0]
    assert Returns().fit([np.zeros(3)]).scale == 1.0
    given = Returns(scale=1000.0)
    assert given.fit([np.array([-8.0])]) == given


def test_the_head_of_returns_predicts_the_reward_and_what_comes_after() -> None:
    returns = Returns(scale=10.0)
    rewards = np.array([1.0, 2.0, 4.0])
    targets = returns.targets(rewards, np.array([7.0, 6.0, 4.0]))
    torch.testing.assert_close(targets, torch.tensor([[0.1, 0.6], [0.2, 0.4], [0.4, 0.0]]))
    head = returns.head(7)
    assert isinstance(head, VectorHead) and head.choose(torch.zeros(5, 7)).shape == (5, 2)
    error, n = head.metric(torch.zeros(3, 7), targets)
    assert n == 3 and error.item() == pytest.approx((7 + 10) / 2), "in the units of rewards"


def test_returns_are_inherited_and_compared() -> None:
    one = Returns(scale=8.0)
    assert Returns().inherit(one).scale == 8.0 and Returns(scale=3.0).inherit(one).scale == 3.0
    with pytest.raises(InputError, match=r"return: returns were scaled by 8\.0 and are by 3\.0; set scale"):
        one.agree(Returns(scale=3.0), "return")
    with pytest.raises(InputError, match="there is no step to learn returns from"):
        Returns().fit([])
    with pytest.raises(InputError, match="scale must be above 0, got 0"):
        Returns(scale=0.0)
    with pytest.raises(InputError, match="here, step 1: is nan, and must be finite"):
        one.check(np.array([1.0, math.nan]), "here")
