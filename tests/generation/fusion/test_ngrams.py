"""Probabilities of n-grams, by hand and in sum."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyformer.generation.fusion.ngrams import END_UNIT, NGrams

units = st.sampled_from("abc")


@given(st.lists(st.lists(units, max_size=5), min_size=1, max_size=6), st.integers(1, 4), st.lists(units, max_size=6))
def test_after_any_context_the_probabilities_of_all_units_and_of_what_is_unknown_sum_to_1(texts, order, before) -> None:
    model, context = NGrams(texts, order), ()
    for unit in before:
        context = model.after(context, unit)
    seen = {unit for text in texts for unit in text}
    total = sum(math.exp(model.log_prob(context, unit)) for unit in [*seen, END_UNIT, "unknown"])
    assert total == pytest.approx(1) and model.n_units == len(seen) + 1


def test_a_bigram_is_mixed_with_its_unigram_by_how_many_units_followed() -> None:
    model = NGrams([["a", "b"], ["a", "c"], ["b"]], 2)
    # Units: a 2, b 2, c 1, end 3; of 4 kinds. One of unknown kind is the fifth.
    of_b = (2 + 4 / 5) / (8 + 4)
    assert math.exp(model.log_prob((), "b")) == pytest.approx(of_b)
    # Two kinds have followed a, b once.
    assert math.exp(model.log_prob(("a",), "b")) == pytest.approx((1 + 2 * of_b) / (2 + 2))
    assert math.exp(model.log_prob(model.start, "a")) == pytest.approx((2 + 2 * (2 + 4 / 5) / 12) / (3 + 2))
    assert model.log_prob(("never",), "b") == model.log_prob((), "b")
    assert math.exp(model.log_prob((), "never")) == pytest.approx(4 / 5 / 12)
    assert model.log_prob(("a",), "b") > model.log_prob(("b",), "b")


def test_units_that_are_spelt_as_the_ends_are_units_like_others() -> None:
    model = NGrams([["<s>", "</s>"]], 2)
    assert model.n_units == 3 and model.log_prob((), END_UNIT) == model.log_prob((), "</s>")
    assert NGrams([["a"]], 1).start == () and NGrams([["a"]], 1).after((), "a") == ()
    assert NGrams([["a"]], 3).after(("x", "y"), "z") == ("y", "z")
