"""Plans of batches."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyformer.data.batch_plan import plan_batches
from anyformer.errors import InputError

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=60)


def flat(lists: Any) -> list[Any]:
    return list(chain.from_iterable(lists))


def indices(batches: Any) -> list[list[int]]:
    return [[draw.index for draw in batch] for batch in batches]


def test_batches_hold_batch_size_samples_and_the_rest_comes_last():
    plan = plan_batches(10, batch_size=4)
    assert [len(batch) for batch in plan.epoch(0)] == [4, 4, 2] and len(plan) == 3
    assert indices(plan_batches(5, batch_size=2, shuffle=False).epoch(7)) == [[0, 1], [2, 3], [4]]


def test_the_order_is_a_function_of_seed_and_epoch():
    first = [indices(plan_batches(20, batch_size=3, seed=seed).epoch(epoch)) for seed in (0, 1) for epoch in (0, 1)]
    again = [indices(plan_batches(20, batch_size=3, seed=seed).epoch(epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert first == again
    assert len({str(order) for order in first}) == 4
    assert indices(plan_batches(20, batch_size=3).epoch(1, start=4)) == first[1][4:]
    assert next(plan_batches(20, batch_size=3).epoch(5))[0].epoch == 5


@given(LENGTHS, st.integers(40, 200), st.sampled_from([None, 3]), st.booleans())
def test_a_token_budget_is_kept_padding_included_and_every_sample_comes_once(lengths, max_tokens, batch_size, shuffle):
    plan = plan_batches(len(lengths), max_tokens=max_tokens, lengths=lengths, batch_size=batch_size, shuffle=shuffle)
    for epoch in range(2):
        batches = indices(plan.epoch(epoch))
        assert sorted(flat(batches)) == list(range(len(lengths)))
        assert len(batches) == len(plan)
        for batch in batches:
            assert len(batch) * max(lengths[i] for i in batch) <= max_tokens
            assert len(batch) <= (batch_size or len(batch))


def test_samples_that_are_like_no_other_meet_others_in_the_next_epoch_too():
    lengths = [round(20 * 1.2**k) for k in range(12)]
    plan = plan_batches(12, max_tokens=10_000, lengths=lengths, batch_size=3)
    epochs = [{frozenset(batch) for batch in indices(plan.epoch(epoch))} for epoch in range(8)]
    assert len(set(map(frozenset, epochs))) > 1
    sequences = [[min(batch) for batch in indices(plan.epoch(epoch))] for epoch in range(8)]
    assert sum(sequence == sorted(sequence) for sequence in sequences) < 3, "nor do the short ones come first"
    still = plan_batches(12, max_tokens=10_000, lengths=lengths, batch_size=3, shuffle=False)
    assert indices(still.epoch(0)) == indices(still.epoch(1)) == [list(range(k, k + 3)) for k in range(0, 12, 3)]


def test_samples_of_like_length_come_together_and_mix():
    lengths = np.random.default_rng(0).integers(10, 200, 2000)
    plan = plan_batches(2000, max_tokens=3000, lengths=lengths)
    real = sum(lengths) / sum(len(batch) * lengths[batch].max() for batch in indices(plan.epoch(0)))
    assert real > 0.9
    neighbours = [{i: frozenset(batch) for batch in indices(plan.epoch(epoch)) for i in batch} for epoch in (0, 1)]
    assert np.mean([neighbours[0][i] == neighbours[1][i] for i in range(2000)]) < 0.01


@given(LENGTHS, st.integers(40, 200))
def test_packed_rows_and_their_number_keep_the_budget(lengths, max_tokens):
    plan = plan_batches(len(lengths), max_tokens=max_tokens, lengths=lengths, pack=True)
    for epoch in range(2):
        batches = list(plan.epoch(epoch))
        assert sorted(flat(indices(batches))) == list(range(len(lengths)))
        assert len(batches) == len(plan)
        for batch in batches:
            fill = np.bincount([draw.row for draw in batch], [lengths[draw.index] for draw in batch])
            assert fill.max() <= max(lengths) and len(fill) * max(lengths) <= max_tokens and fill.all()


def test_packing_fills_rows():
    lengths = np.random.default_rng(0).integers(3, 100, 5000)
    plan = plan_batches(5000, max_tokens=1000, lengths=lengths, pack=True)
    assert lengths.sum() / (1000 * len(plan)) > 0.9


@given(LENGTHS, st.integers(1, 4), st.sampled_from(["size", "tokens", "pack"]))
def test_ranks_share_all_samples_in_equal_numbers_of_batches(lengths, world, kind):
    options = {"size": {"batch_size": 4}}.get(kind, {"max_tokens": 90, "lengths": lengths, "pack": kind == "pack"})
    try:
        plans = [plan_batches(len(lengths), rank=rank, world=world, **options) for rank in range(world)]
    except InputError as error:
        assert "cannot be shared by" in str(error) and world > 1 and (len(lengths) < 2 * world or kind == "pack")
        return
    batches = [list(plan.epoch(1)) for plan in plans]
    assert len({len(rank) for rank in batches}) == 1 == len({len(plan) for plan in plans})
    assert sorted(flat(indices(flat(batches)))) == list(range(len(lengths)))
    assert all(batch for rank in batches for batch in rank)
    for batch in flat(batches):
        if kind == "pack":
            assert set(np.unique([draw.row for draw in batch])) == set(range(max(draw.row for draw in batch) + 1))


@given(LENGTHS, st.integers(1, 3), st.sampled_from(["size", "tokens", "pack"]), st.integers(0, 4), st.booleans())
def test_an_epoch_from_a_batch_on_is_the_rest_of_the_epoch_on_every_rank(lengths, world, kind, start, shuffle):
    options = {"size": {"batch_size": 2}}.get(kind, {"max_tokens": 90, "lengths": lengths, "pack": kind == "pack"})
    for rank in range(world):
        try:
            plan = plan_batches(len(lengths), rank=rank, world=world, shuffle=shuffle, seed=3, **options)
        except InputError:
            return  # Too few for so many.
        assert list(plan.epoch(2, start)) == list(plan.epoch(2))[start:]


def test_a_batch_that_processes_share_is_split_in_halves():
    sizes = [[len(batch) for batch in plan_batches(20, batch_size=10, rank=r, world=3).epoch(0)] for r in range(3)]
    assert sorted(sizes) == [[5], [5], [10]]


def test_plans_that_cannot_be_say_why():
    with pytest.raises(
        InputError, match=r"max_tokens=8 is less than the 9 tokens of numbers row 1; raise it to at least 9"
    ):
        plan_batches(2, max_tokens=8, lengths=[3, 9], name="numbers row {}".format)
    with pytest.raises(InputError, match="1 samples cannot be shared by 2 processes"):
        plan_batches(1, batch_size=4, world=2)


def test_a_large_plan_is_quick():
    lengths = np.random.default_rng(0).integers(3, 500, 200_000)
    plan = plan_batches(200_000, max_tokens=16_384, lengths=lengths)
    assert next(plan.epoch(0))


# Two lengths a sample

PAIRS = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 30)), min_size=1, max_size=60)


@given(PAIRS, st.integers(70, 200), st.sampled_from([None, 3]), st.booleans())
def test_a_budget_over_both_sides_is_kept_and_every_pair_comes_once(lengths, max_tokens, batch_size, shuffle):
    plan = plan_batches(len(lengths), max_tokens=max_tokens, lengths=lengths, batch_size=batch_size, shuffle=shuffle)
    for epoch in range(2):
        batches = indices(plan.epoch(epoch))
        assert sorted(flat(batches)) == list(range(len(lengths))) and len(batches) == len(plan)
        for batch in batches:
            longest = np.array([lengths[i] for i in batch]).max(0)
            assert len(batch) == 1 or len(batch) * longest.sum() <= max_tokens
            assert len(batch) <= (batch_size or len(batch))


def test_pairs_that_are_alike_on_both_sides_come_together_and_meet_others():
    random = np.random.default_rng(0)
    source = random.integers(4, 40, 20_000)
    lengths = np.stack([source, np.maximum(source + random.normal(0, 0.2 * source), 1).astype(int)], 1)
    plan = plan_batches(len(lengths), max_tokens=4000, lengths=lengths)
    batches = indices(plan.epoch(0))
    assert lengths.sum() / sum(len(batch) * lengths[batch].max(0).sum() for batch in batches) > 0.87
    alone = plan_batches(len(lengths), max_tokens=4000, lengths=lengths.sum(1))
    by_sum = sum(len(batch) * lengths[batch].max(0).sum() for batch in indices(alone.epoch(0)))
    assert sum(len(batch) * lengths[batch].max(0).sum() for batch in batches) < 0.95 * by_sum
    neighbours = [{i: frozenset(batch) for batch in indices(plan.epoch(epoch)) for i in batch} for epoch in (0, 1)]
    assert np.mean([neighbours[0][i] == neighbours[1][i] for i in range(len(lengths))]) < 0.01


@given(PAIRS, st.integers(70, 200))
def test_packed_rows_keep_the_budgets_of_both_sides(lengths, max_tokens):
    plan = plan_batches(len(lengths), max_tokens=max_tokens, lengths=lengths, pack=True)
    sizes = np.maximum(lengths, 1)
    for batch in (batches := list(plan.epoch(1))):
        rows, own = [draw.row for draw in batch], sizes[[draw.index for draw in batch]]
        fill = np.stack([np.bincount(rows, own[:, side]) for side in (0, 1)], 1)
        assert (fill <= sizes.max(0)).all() and len(fill) * sizes.max(0).sum() <= max_tokens
    assert sorted(flat(indices(batches))) == list(range(len(lengths)))
    with pytest.raises(InputError, match=r"less than the 9 tokens of a row that holds the longest of both sides"):
        plan_batches(2, max_tokens=8, lengths=[(5, 1), (2, 4)], pack=True)
    with pytest.raises(InputError, match=r"max_tokens=8 is less than the 9 tokens of sample 1; raise it to at least 9"):
        plan_batches(2, max_tokens=8, lengths=[(5, 1), (2, 7)])
