"""Ids of elements: choices, bins and letters; the laws of all step tokenizers are in test_trajectory.py."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from anyformer.errors import InputError
from anyformer.tokenizers.episode.discrete import Bins, Categories, Choice, Letters
from anyformer.tokenizers.episode.steps import StepTokenizer, Stretch
from anyformer.tokens import TokenSet
from tests.helpers.witnesses import redraw

CHOICES = Categories(shape=(3,), counts=(2, 5, 3), starts=(0, -1, 7))


def ids(tokenizer: StepTokenizer, values: Any) -> list[int]:
    return tokenizer.encode(Stretch(np.array(values), np.arange(len(values)))).content.tolist()


# Categories


def test_the_ids_of_each_element_stand_behind_those_of_the_one_before() -> None:
    assert ids(CHOICES, [[0, -1, 7], [1, 3, 9]]) == [0, 2, 7, 1, 6, 9]
    assert CHOICES.n_ids == 10 and CHOICES.sizes == {"element": 3} and CHOICES.axes == ("step", "element")
    start = Categories(shape=(), counts=(3,), starts=(5,), dtype="int64")
    assert ids(start, [5, 7, 6]) == [0, 2, 1] and start.axes == ("step",) and start.sizes == {}


def test_choices_of_several_axes_are_laid_flat() -> None:
    table = Categories(shape=(2, 2), counts=(2, 2, 3, 3), dtype="int8")
    values = np.array([[[0, 1], [2, 0]], [[1, 1], [0, 2]]], dtype=np.int8)
    tokens = table.encode(Stretch(values, np.arange(2)))
    assert tokens.content.tolist() == [0, 3, 6, 7, 1, 3, 4, 9]
    assert (table.decode(tokens) == values).all() and table.decode(tokens).dtype == np.int8


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([0, 4, 8], r"step 1: value 1 is 4, and the space is from -1 to 3; mend the data or the space"),
        ([-1, 0, 8], r"step 1: value 0 is -1, and the space is from 0 to 1"),
        ([0, 0, 7.5], r"step 1: must be whole numbers, got 7\.5; mend the data"),
    ],
)
def test_a_choice_that_is_none_is_named_with_its_step(value: list[float], message: str) -> None:
    with pytest.raises(InputError, match=f"here, {message}"):
        CHOICES.check(np.array([[0, 0, 7], value]), "here")
    if "whole" not in message:
        with pytest.raises(InputError, match=message):
            ids(CHOICES, [[0, 0, 7], value])


def test_other_counts_do_not_agree() -> None:
    CHOICES.agree(replace(CHOICES), "action")
    with pytest.raises(InputError, match=r"action: other values than the model was trained with, \(2, 5, 4\) for \(2,"):
        CHOICES.agree(replace(CHOICES, counts=(2, 5, 4)), "action")
    with pytest.raises(InputError, match="counts must have 3 numbers, one for each element, got 1"):
        Categories(shape=(3,), counts=(4,))
    with pytest.raises(InputError, match="counts must be at least 1, got 0"):
        Categories(counts=(4, 0))


# Choice


def test_a_head_knows_the_ids_of_each_element_alone() -> None:
    head = CHOICES.head(7)
    redraw(head)
    hidden, content = torch.randn(6, 7), torch.tensor([0, 2, 7, 1, 6, 9])
    logits = head.output(hidden)
    ranges = [slice(0, 2), slice(2, 7), slice(7, 10)]
    expected = sum(
        F.cross_entropy(logits[i, ranges[i % 3]], content[i] - ranges[i % 3].start, reduction="sum") for i in range(6)
    )
    torch.testing.assert_close(head.loss(hidden, content), expected)
    right = [int(logits[i, ranges[i % 3]].argmax()) + ranges[i % 3].start == int(content[i]) for i in range(6)]
    assert head.metric(hidden, content) == (sum(right), 6)
    for j in range(3):
        chosen = head.choose(hidden, element=j)
        assert chosen.tolist() == [int(one[ranges[j]].argmax()) + ranges[j].start for one in logits]

    head.zero_grad()
    head.loss(hidden[:1], content[:1]).backward()
    assert head.output.weight.grad[:2].abs().sum() > 0 and not head.output.weight.grad[2:].any()


def test_a_single_range_is_shared_by_all_elements() -> None:
    head = Bins(8, shape=(3,)).head(7)
    redraw(head)
    hidden, content = torch.randn(6, 7), torch.tensor([0, 2, 7, 1, 6, 3])
    torch.testing.assert_close(
        head.loss(hidden, content), F.cross_entropy(head.output(hidden), content, reduction="sum")
    )
    assert torch.equal(head.choose(hidden, element=2), head.output(hidden).argmax(-1))


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_ids_are_drawn_as_often_as_their_logits_say(temperature: float) -> None:
    head = Choice((2, 3), 4)
    head.output.bias.data = torch.tensor([5.0, 5.0, 0.0, 1.0, -1.0])
    drawn = head.choose(torch.zeros(4000, 4), torch.Generator().manual_seed(1), temperature, element=1)
    shares = torch.bincount(drawn, minlength=5) / 4000
    expected = (torch.tensor([0.0, 1.0, -1.0]) / temperature).softmax(-1)
    assert not shares[:2].any()
    torch.testing.assert_close(shares[2:], expected, rtol=0, atol=0.03)
    again = head.choose(torch.zeros(4000, 4), torch.Generator().manual_seed(1), temperature, element=1)
    assert torch.equal(again, drawn)


# Bins


@given(st.floats(-256, 256), st.sampled_from([256, 1024]))
def test_a_number_comes_back_as_near_as_its_bin_is_wide(number: float, n_bins: int) -> None:
    bins = Bins(n_bins, shape=(), dtype="float64")
    tokens = bins.encode(Stretch(np.array([number]), np.arange(1)))
    again = float(bins.decode(tokens)[0])

    def companded(x: float) -> float:
        return math.copysign(math.log(100 * abs(x) + 1) / math.log(100 * 256 + 1), x)

    assert abs(companded(again) - companded(number)) <= 1 / (n_bins - 1) + 1e-9
    assert bins.encode(Stretch(np.array([again]), np.arange(1))).content.tolist() == tokens.content.tolist()


def test_bounds_within_one_are_even_and_come_back_exactly() -> None:
    bins = Bins(5, shape=(), low=(-1,), high=(1,))
    assert ids(bins, [-1, -0.6, -0.2, 0, 0.3, 1]) == [0, 1, 2, 2, 3, 4]
    wide = Bins(1024, shape=(2,), low=(-2, None), high=(2, None), dtype="float32")
    values = np.array([[-2, 300], [2, -256]], dtype=np.float32)
    again = wide.decode(wide.encode(Stretch(values, np.arange(2))))
    np.testing.assert_allclose(again[:, 1], [256, -256], rtol=1e-6)
    assert np.abs(again[:, 0]).max() <= 2 and np.abs(again[:, 0] - values[:, 0]).max() < 0.03


def test_bins_are_in_the_sequence_of_the_numbers() -> None:
    content = ids(Bins(shape=()), np.linspace(-300, 300, 999))
    assert content == sorted(content) and (content[0], content[-1]) == (0, 1023)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_has_no_bin(value: float) -> None:
    with pytest.raises(InputError, match=rf"values, step 1: is {value}, and must be finite"):
        ids(Bins(shape=()), [0.0, value])


def test_other_bins_do_not_agree() -> None:
    Bins(shape=()).agree(Bins(shape=(), low=(-2,), high=(2,)), "action")
    for other in (Bins(256, shape=()), Bins(shape=(), low=(-1,), high=(1,))):
        with pytest.raises(InputError, match="action: other bins than the model was trained with"):
            Bins(shape=()).agree(other, "action")
    with pytest.raises(InputError, match="n_bins must be at least 2, got 1"):
        Bins(1)


# Letters


def test_a_text_is_its_characters_and_an_end() -> None:
    letters = Letters(characters="xyz", max_len=4)
    tokens = letters.encode(Stretch(np.array(["zx", "", "y"], dtype=object), np.array([3, 4, 5])))
    assert tokens.content.tolist() == [3, 1, 0, 0, 2, 0]
    assert tokens.position.tolist() == [[3, 0], [3, 1], [3, 2], [4, 0], [5, 0], [5, 1]]
    assert letters.sizes == {"element": 5} and letters.n_each is None
    assert letters.decode(TokenSet(torch.tensor([1, 0, 2]))).tolist() == ["x"], "the second has not ended"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("xqy", "here, step 1: the space has no character 'q'; mend the data"),
        ("xyxyx", "here, step 1: a text of 5 characters, and the space holds 4; mend the data or the space"),
        (7, "here, step 1: must be a text, got int; mend the data"),
    ],
)
def test_a_text_that_is_none_of_the_space_is_named_with_its_step(text: Any, message: str) -> None:
    letters, values = Letters(characters="xyz", max_len=4), np.array(["x", text], dtype=object)
    with pytest.raises(InputError, match=message):
        letters.check(values, "here")
    if text != "xyxyx":
        with pytest.raises(InputError, match=message.replace("here", "values")):
            letters.encode(Stretch(values, np.arange(2)))


def test_other_characters_do_not_agree() -> None:
    with pytest.raises(InputError, match="state: other characters than the model was trained with"):
        Letters(characters="abc").agree(Letters(characters="abd"), "state")
    with pytest.raises(InputError, match=r"values must be 2 texts, one a step, got \(3,\)"):
        Letters(characters="abc").encode(Stretch(np.array(["a", "b", "c"]), np.arange(2)))
