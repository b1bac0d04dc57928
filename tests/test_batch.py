"""Where predictions are read in a batch, and how it is taken apart and moved."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from torch import Tensor

from anyformer.batch import Batch, read_before
from anyformer.packing import collate
from anyformer.tokens import TokenSet
from tests.helpers.toys import TOYS, Toy, samples_in_rows, words


def test_hidden_vectors_are_taken_apart_by_field() -> None:
    batch = collate([{"word": words(1, 2), "bag": TokenSet(torch.arange(3))}, {"word": words(3)}], TOYS)
    hidden = torch.arange(10.0).reshape(2, 5, 1)
    apart = batch.by_field(hidden)
    assert apart["bag"].tolist() == [[0], [1], [2]]
    assert apart["word"].tolist() == [[3], [4], [5]]
    assert apart["patch"].shape == (0, 1)


# Where a prediction is read


def reads(batch: Batch, name: str) -> list[tuple[int, int]]:
    """(place read, place predicted) of every target."""
    places, tokens = read_before(batch, name)
    return list(zip(places.tolist(), batch.fields[name].index[tokens].tolist(), strict=True))


def test_a_causal_text_is_read_one_place_before_and_its_start_predicts_but_is_not_predicted() -> None:
    start, text = TokenSet(torch.tensor([0])), words(7, 8, 9, order=[1, 2, 3])
    batch = collate([{"bag": start, "word": text}], TOYS)
    places, tokens = read_before(batch, "word")
    assert (places.tolist(), tokens.tolist()) == ([0, 1, 2], [0, 1, 2])
    assert reads(batch, "bag") == []
    # Without a start token the first has nothing to be read from.
    places, tokens = read_before(collate([{"word": text}], TOYS), "word")
    assert (places.tolist(), tokens.tolist()) == ([0, 1], [1, 2])


def test_an_action_is_read_at_the_state_that_it_follows() -> None:
    """Return 3t, state 3t + 1, action 3t + 2, two steps; all moved up by 2, since 0 and 1 are for conditions."""
    toys = {"action": Toy(1), "return": Toy(1), "state": Toy(1)}
    step = torch.arange(2)
    kinds = {"return": 0, "state": 1, "action": 2}
    episode = {name: words(10, 11).at(2 + 3 * step + kind) for name, kind in kinds.items()}
    batch = collate([episode], toys)
    assert batch.layout.order.tolist() == [[2, 3, 4, 5, 6, 7]]
    assert batch.layout.field.tolist() == [[1, 2, 0, 1, 2, 0]]
    assert batch.kind == "causal"
    assert reads(batch, "action") == [(1, 2), (4, 5)]
    assert reads(batch, "state") == [(0, 1), (3, 4)]
    assert reads(batch, "return") == [(2, 3)]
    # Actions of two tokens, one generated after the other: each is read at the token before it.
    several = {"state": words(10), "action": words(20, 21, order=[1, 2])}
    assert reads(collate([several], toys), "action") == [(0, 1), (1, 2)]


def test_the_first_target_behind_a_prefix_is_read_at_the_prefix_s_last_token() -> None:
    batch = collate([{"bag": TokenSet(torch.arange(4)), "word": words(7, 8, order=[1, 2])}], TOYS)
    assert reads(batch, "word") == [(3, 4), (4, 5)]


def test_tokens_of_one_order_are_read_at_the_same_place() -> None:
    """Frames of three tokens: none of a frame may be read at a token of its own frame."""
    batch = collate([{"word": words(1, 2, 3, 4, 5, 6, 7, order=[0, 1, 1, 1, 2, 2, 2])}], TOYS)
    assert reads(batch, "word") == [(0, 1), (0, 2), (0, 3), (3, 4), (3, 5), (3, 6)]


def test_nothing_is_read_from_a_neighbour_in_the_row_or_the_row_above() -> None:
    text = {"word": words(1, 2, 3, order=[1, 2, 3])}
    batch = collate([text] * 3, TOYS, rows=[0, 0, 1])
    assert reads(batch, "word") == [(0, 1), (1, 2), (3, 4), (4, 5), (6, 7), (7, 8)]
    # Nor where the neighbour's order would do: here each sample is lower than the one behind it.
    steps = [{"word": words(1, order=n)} for n in range(4)]
    assert reads(collate(steps, TOYS, rows=[0, 0, 1, 1]), "word") == []
    assert reads(collate(steps, TOYS), "word") == []


@given(samples_in_rows())
def test_a_target_is_read_at_the_last_token_of_lower_order_in_its_sample(case: tuple) -> None:
    batch = collate(case[0], TOYS, case[1])
    segment, order, _ = (part.flatten().tolist() for part in batch.layout)
    length = batch.shape[1]
    for name, tokens in batch.fields.items():
        expected = []
        for place in tokens.index.tolist():
            row = range(place // length * length, place)
            lower = [p for p in row if segment[p] == segment[place] and order[p] < order[place]]
            if lower:
                expected.append((max(lower), place))
        assert reads(batch, name) == expected


# Moving


def tensors(batch: Batch) -> list[Tensor]:
    flat = [batch.relation, *batch.layout]
    for tokens in batch.fields.values():
        flat += [tokens.content, tokens.position, tokens.index, tokens.sample]
    return flat


def related() -> Batch:
    sample = {"bag": words(1, 2, relation=[[0, 1], [1, 0]]), "word": words(1, 2, 3, order=[0, 1, 2])}
    return collate([sample], TOYS | {"bag": Toy(1, kinds=2)})


def test_to_moves_every_tensor_and_keeps_the_rest() -> None:
    batch = related()
    moved = batch.to("meta")
    assert all(tensor.device.type == "meta" for tensor in tensors(moved))
    assert all(tensor.device.type == "cpu" for tensor in tensors(batch))
    assert [tensor.shape for tensor in tensors(moved)] == [tensor.shape for tensor in tensors(batch)]
    for host in ("n_samples", "kind", "one_per_row", "padded", "orders"):
        assert getattr(moved, host) == getattr(batch, host)
    assert moved.fields["word"].extents == batch.fields["word"].extents


@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory needs a GPU")
def test_pin_memory_pins_every_tensor() -> None:
    assert all(tensor.is_pinned() for tensor in tensors(related().pin_memory()))
