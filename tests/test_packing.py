"""How samples are laid into rows, and what is known of a batch on the host."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anyformer.batch import Batch, read_before
from anyformer.errors import InputError
from anyformer.packing import collate, group_by_length, pack
from anyformer.tokens import UNSEEN, Sample, TokenSet
from tests.helpers.graphs import Nodes
from tests.helpers.toys import TOYS, Toy, samples_in_rows, words

Laid = tuple[int, int, int, object]


def lay(samples: list[Sample], rows: list[int]) -> list[list[Laid]]:
    """The layout as the docstrings define it, made by sorting: (segment, order, field, content) of every place."""
    laid: list[list[Laid]] = [[] for _ in range(max(rows) + 1)]
    segments = [0] * len(laid)
    for sample, row in zip(samples, rows, strict=True):
        segments[row] += 1
        tokens = []
        for field, name in enumerate(TOYS):
            if name in sample:
                part = sample[name]
                for i in range(len(part)):
                    place = (int(part.order[i]), field, part.position[i].tolist())
                    tokens.append((place, (segments[row], *place[:2], part.content[i].tolist())))
        laid[row] += [token for _, token in sorted(tokens, key=lambda token: token[0])]
    return laid


def read_back(batch: Batch) -> list[list[Laid]]:
    """(segment, order, field, content) of every place of a batch that holds a token."""
    rows, length = batch.shape
    content: dict[int, object] = {}
    for tokens in batch.fields.values():
        content |= dict(zip(tokens.index.tolist(), tokens.content.tolist(), strict=True))
    segment, order, field = (part.flatten().tolist() for part in batch.layout)
    return [
        [(segment[p], order[p], field[p], content[p]) for p in range(r * length, (r + 1) * length) if segment[p]]
        for r in range(rows)
    ]


# The layout of a batch


@given(samples_in_rows())
def test_a_sample_is_laid_by_order_then_field_then_position(case: tuple[list[Sample], list[int]]) -> None:
    samples, rows = case
    assert read_back(collate(samples, TOYS, rows)) == lay(samples, rows)


@given(samples_in_rows())
def test_content_stays_in_the_sequence_of_the_samples_and_tokens(case: tuple[list[Sample], list[int]]) -> None:
    samples, rows = case
    batch = collate(samples, TOYS, rows)
    assert list(batch.fields) == list(TOYS)
    for name, tokens in batch.fields.items():
        parts = [TOYS[name].empty(), *(sample[name] for sample in samples if name in sample)]
        assert torch.equal(tokens.content, torch.cat([part.content for part in parts]))
        assert torch.equal(tokens.position, torch.cat([part.position for part in parts]))
        owners = [i for i, sample in enumerate(samples) for _ in range(len(sample.get(name, ())))]
        assert tokens.sample.tolist() == owners
        assert sum(map(math.prod, tokens.extents)) == len(tokens.content)


@given(samples_in_rows())
def test_every_token_has_a_place_of_its_own_and_all_else_is_padding(case: tuple[list[Sample], list[int]]) -> None:
    batch = collate(case[0], TOYS, case[1])
    index = torch.cat([tokens.index for tokens in batch.fields.values()])
    assert len(index.unique()) == len(index)
    assert batch.padded == (len(index) < batch.layout.segment.numel())
    padding = torch.ones(batch.layout.segment.numel(), dtype=torch.bool)
    padding[index] = False
    assert torch.equal(padding, batch.layout.segment.flatten() == 0)
    for i, tokens in enumerate(batch.fields.values()):
        assert (batch.layout.field.flatten()[tokens.index] == i).all()


@given(st.permutations(range(4)), st.lists(st.integers(0, 2), min_size=4, max_size=4))
def test_permuting_a_set_changes_nothing_in_the_layout(by: list[int], order: list[int]) -> None:
    tokens = words(5, 6, 7, 8, order=order)
    permuted = TokenSet(tokens.content[by], tokens.position[by], tokens.order[by])
    others = {"bag": TokenSet(torch.arange(3)).at(1)}
    assert read_back(collate([{"word": permuted, **others}], TOYS)) == read_back(
        collate([{"word": tokens, **others}], TOYS)
    )


def test_tokens_without_positions_keep_the_sequence_they_came_in() -> None:
    batch = collate([{"bag": TokenSet(torch.tensor([5, 3, 4]))}], TOYS)
    assert batch.fields["bag"].index.tolist() == [0, 1, 2]


def test_positions_may_be_continuous() -> None:
    batch = collate([{"bag": TokenSet(torch.tensor([5, 3, 4]), torch.tensor([[0.5], [-0.25], [0.25]]))}], TOYS)
    assert batch.fields["bag"].index.tolist() == [2, 0, 1]


def test_samples_of_a_row_are_numbered_from_1_and_padding_is_0() -> None:
    samples = [{"word": words(*range(n))} for n in (2, 3, 1, 2)]
    batch = collate(samples, TOYS, rows=[0, 1, 0, 0], length=7)
    assert batch.layout.segment.tolist() == [[1, 1, 2, 3, 3, 0, 0], [1, 1, 1, 0, 0, 0, 0]]
    assert batch.fields["word"].index.tolist() == [0, 1, 7, 8, 9, 2, 3, 4]
    assert (batch.n_samples, batch.one_per_row, batch.padded) == (4, False, True)
    assert batch.shape == (2, 7)


def test_a_batch_knows_how_far_its_positions_reach() -> None:
    far = TokenSet(torch.zeros(2, 3), torch.tensor([[4, 1], [0, 6]]))
    batch = collate([{"patch": far, "bag": TokenSet(torch.arange(3))}], TOYS)
    assert {name: tokens.reach for name, tokens in batch.fields.items()} == {"bag": (), "word": (), "patch": (4, 6)}


def test_rows_are_as_long_as_the_fullest() -> None:
    assert collate([{"word": words(*range(n))} for n in (2, 5, 3)], TOYS).shape == (3, 5)
    assert collate([{"word": words(*range(n))} for n in (2, 5, 3)], TOYS, rows=[0, 1, 0]).shape == (2, 5)


def test_an_absent_field_has_content_of_its_shape_and_no_tokens() -> None:
    batch = collate([{"word": words(1, 2)}], TOYS)
    patch, bag = batch.fields["patch"], batch.fields["bag"]
    assert (patch.content.shape, patch.content.dtype) == ((0, 3), torch.float32)
    assert (bag.content.shape, bag.content.dtype) == ((0,), torch.int64)
    assert patch.position.shape == (0, 2)
    assert patch.index.shape == patch.sample.shape == (0,)
    assert patch.extents == ()


def test_content_that_gives_no_tokens_still_has_its_extent() -> None:
    """A recording shorter than its stem's stride: the lift is told of all the content that it is given."""
    short = TokenSet(torch.zeros(2, 3), torch.zeros(0, 2, dtype=torch.int64), extent=(2,))
    batch = collate([{"patch": short}], TOYS)
    assert batch.fields["patch"].content.shape == (2, 3)
    assert batch.fields["patch"].extents == ((2,),)


def test_a_batch_may_be_empty() -> None:
    for samples in ([], [{}]):
        batch = collate(samples, TOYS)
        assert batch.shape == (len(samples), 0)
        assert batch.orders == (0, 0)
        places, tokens = read_before(batch, "word")
        assert places.shape == tokens.shape == (0,)


def test_the_span_of_orders_is_known_on_the_host() -> None:
    assert collate([{"word": words(1, 2, order=[3, 5])}, {"bag": TokenSet(torch.ones(1)).at(4)}], TOYS).orders == (3, 5)


def test_a_field_without_a_tokenizer_is_named() -> None:
    with pytest.raises(InputError, match="field 'sound' has no tokenizer; there are bag, word, patch"):
        collate([{"word": words(1), "sound": words(2)}], TOYS)


def test_a_row_fuller_than_the_length_is_refused() -> None:
    samples = [{"word": words(1, 2)}, {"word": words(3, 4, 5)}]
    with pytest.raises(ValueError, match="a row holds 5 tokens, more than the length of 4 asked for"):
        collate(samples, TOYS, rows=[0, 0], length=4)


# What the visibility rule comes down to

UPWARDS = {"word": words(1, 2, 3, order=[0, 1, 2])}
LEVEL = {"word": words(1, 2, 3)}
TIED = {"word": words(1, 2, 3, order=[0, 1, 1])}
ONE = {"word": words(1)}


@pytest.mark.parametrize(
    ("kind", "samples", "layout"),
    [
        ("everything", [LEVEL], {}),
        ("everything", [LEVEL, {"word": words(4, 5, 6, order=7)}], {}),
        ("everything", [ONE, ONE], {}),
        ("everything", [{"word": words(1, 2), "bag": TokenSet(torch.ones(1, dtype=torch.int64))}], {}),
        ("causal", [UPWARDS], {}),
        ("causal", [UPWARDS, ONE], {}),
        ("causal", [UPWARDS], {"length": 5}),
        ("causal", [{"word": words(1, 2, order=[0, 1]), "bag": TokenSet(torch.ones(1, dtype=torch.int64)).at(2)}], {}),
        ("causal", [{"word": words(1, 2, 3, order=[4, 0, 2])}], {}),
        ("dense", [LEVEL], {"length": 5}),
        ("dense", [LEVEL, ONE], {}),
        ("dense", [TIED], {}),
        ("dense", [UPWARDS, LEVEL], {}),
        ("dense", [UPWARDS, UPWARDS], {"rows": [0, 0]}),
        ("dense", [LEVEL, LEVEL], {"rows": [0, 0]}),
        ("dense", [LEVEL, LEVEL], {"rows": [0, 2]}),
    ],
)
def test_the_batch_knows_when_no_mask_is_needed(kind: str, samples: list[Sample], layout: dict) -> None:
    assert collate(samples, TOYS, **layout).kind == kind


@given(samples_in_rows())
def test_a_kind_without_a_mask_says_the_same_as_the_rule(case: tuple[list[Sample], list[int]]) -> None:
    batch = collate(case[0], TOYS, case[1])
    segment, order, _ = batch.layout
    real = segment > 0
    rule = (segment[:, :, None] == segment[:, None]) & real[:, :, None] & (order[:, None] <= order[:, :, None])
    length = batch.shape[1]
    if batch.kind == "everything":
        assert rule.all()
    elif batch.kind == "causal":
        lower = torch.ones(length, length, dtype=torch.bool).tril().expand_as(rule)
        assert torch.equal(rule[real], (lower & real[:, None])[real])
        assert torch.equal(lower[real], rule[real])
    # One sample of several tokens in each row without padding: dense only where neither of the two would do.
    elif batch.one_per_row and not batch.padded and length > 1:
        assert not rule.all()
        assert not torch.equal(rule, torch.ones(length, length, dtype=torch.bool).tril().expand_as(rule))


# Relations


def test_a_tokenizer_with_relations_needs_a_mask_in_every_batch() -> None:
    graph = {"word": words(1, 2, relation=[[0, 0], [0, 0]])}
    assert collate([graph], {"word": Toy(1, kinds=1)}).kind == "dense"
    without = collate([LEVEL], {"word": Toy(1, kinds=1)})
    assert without.kind == "dense"
    assert not without.relation.any()
    assert collate([LEVEL], TOYS).relation is None


@pytest.mark.parametrize(("kinds", "got"), [(0, "0 to 0"), (2, "-2 to 1"), (2, "0 to 2")])
def test_a_relation_that_its_tokenizer_does_not_know_is_refused(kinds: int, got: str) -> None:
    lowest, highest = map(int, got.split(" to "))
    graph = {"word": words(1, 2, relation=[[lowest, 0], [0, highest]])}
    with pytest.raises(ValueError, match=f"relations of field 'word' must be -1 to {kinds - 1}, got {got}"):
        collate([graph], {"word": Toy(1, kinds=kinds)})


def test_relations_land_at_their_pairs_numbered_on_from_field_to_field() -> None:
    toys = {"bag": Toy(kinds=2), "word": Toy(1, kinds=3)}
    # Order turns the words around: word 0 stands behind word 1.
    word = words(7, 8, relation=[[0, 1], [UNSEEN, 2]]).at(torch.tensor([1, 0]))
    bag = TokenSet(torch.tensor([5]), relation=torch.tensor([[1]]))
    batch = collate([{"word": words(9)}, {"bag": bag, "word": word}], toys, rows=[0, 0])
    # Places: 0 the lone word; then the bag (1 + 1), word 1, word 0 (3 + r, after none and the bag's two).
    assert batch.layout.field.tolist() == [[1, 0, 1, 1]]
    assert batch.relation.tolist() == [[[0, 0, 0, 0], [0, 2, 0, 0], [0, 0, 5, UNSEEN], [0, 0, 4, 3]]]


@given(st.permutations(range(4)), st.permutations(range(3)))
def test_a_relation_moves_with_its_tokens(order: list[int], rows: list[int]) -> None:
    relation = torch.arange(16).reshape(4, 4) - 1
    tokens = TokenSet(torch.arange(4), relation=relation).at(torch.tensor(order))
    samples = [{"bag": tokens}] * 3
    batch = collate(samples, {"bag": Toy(kinds=15)}, rows)
    for number, place in enumerate(batch.fields["bag"].index.split(4)):
        columns = place % batch.shape[1]
        pairs = batch.relation[rows[number]][columns[:, None], columns]
        assert torch.equal(pairs, torch.where(relation == UNSEEN, UNSEEN, relation + 1))


def test_edges_land_at_their_places_numbered_on_behind_other_relations() -> None:
    toys = {"bag": Toy(kinds=2), "graph": Nodes(True)}
    # Order turns the nodes around: node 0 stands behind node 1.
    graph = Nodes(True).encode(([7, 8], [(0, 1, 2), (1, 0, 0), (0, 1, 1)])).at(torch.tensor([1, 0]))
    bag = TokenSet(torch.tensor([5]), relation=torch.tensor([[1]]))
    batch = collate([{"graph": graph}, {"bag": bag, "graph": graph}], toys, rows=[0, 0])
    # Places: node 1, node 0; then node 1 of the other (order 0), the bag's token before it, node 0.
    assert batch.layout.field.tolist() == [[1, 1, 0, 1, 1]]
    found = sorted(zip(*(part.tolist() for part in vars(batch.edges).values()), strict=True))
    one = [(0, 0, 0), (0, 1, 3), (1, 0, 4), (1, 0, 5), (1, 1, 0)]
    assert found == [(0, query + shift, key + shift, kind) for shift in (0, 3) for query, key, kind in one]
    assert batch.relation.tolist() == [[[0] * 5, [0] * 5, [0, 0, 2, 0, 0], [0] * 5, [0] * 5]]
    assert collate([LEVEL], TOYS).edges is None


def test_a_kind_of_edge_that_its_tokenizer_does_not_know_is_refused() -> None:
    graph = Nodes().encode(([1, 2], [(0, 1, 3), (1, 1, 0)]))
    with pytest.raises(ValueError, match="kinds of edges of field 'graph' must be 0 to 2, got 0 to 3"):
        collate([{"graph": graph}], {"graph": Nodes()})


# Packing


@given(st.lists(st.integers(0, 7), max_size=12), st.integers(7, 20))
def test_packing_keeps_every_sample_and_never_overfills_a_row(lengths: list[int], budget: int) -> None:
    rows = pack(lengths, budget)
    assert len(rows) == len(lengths)
    assert sorted(set(rows)) == list(range(len(set(rows))))
    for row in set(rows):
        assert sum(n for n, r in zip(lengths, rows, strict=True) if r == row) <= budget
    # First fit leaves no two rows that would go into one.
    sums = [sum(n for n, r in zip(lengths, rows, strict=True) if r == row) for row in sorted(set(rows))]
    assert all(a + b > budget for i, a in enumerate(sums) for b in sums[:i])


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), min_size=1, max_size=12))
def test_packing_for_two_stacks_keeps_both_budgets(lengths: list[tuple[int, int]]) -> None:
    rows = pack(lengths, (7, 11))
    for stack, budget in enumerate((7, 11)):
        for row in set(rows):
            assert sum(pair[stack] for pair, r in zip(lengths, rows, strict=True) if r == row) <= budget


def test_packing_numbers_rows_by_their_first_sample() -> None:
    assert pack([5, 3, 2, 4], 7) == [0, 1, 0, 1]
    assert pack([1, 7, 7], 7) == [0, 1, 2]
    assert pack([(2, 3), (2, 3), (2, 3)], (4, 5)) == [0, 1, 2]
    assert pack([], 7) == []


def test_a_sample_longer_than_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match=r"sample 1 has \[9\] tokens, more than the \[7\] of a row"):
        pack([3, 9], 7)
    with pytest.raises(ValueError, match=r"sample 0 has \[3, 9\] tokens, more than the \[7, 7\] of a row"):
        pack([(3, 9)], 7)


# What is not shown


def test_masked_tokens_are_kept_through_an_order_and_a_batch() -> None:
    masked = torch.tensor([True, False])
    hidden = TokenSet(torch.tensor([3, 4]), masked=masked).at(torch.tensor([0, 1]))
    assert torch.equal(hidden.masked, masked)
    shown = TokenSet(torch.tensor([5, 6, 7]))
    batch = collate([{"bag": shown}, {}, {"bag": hidden}], TOYS)
    assert batch.fields["bag"].masked.tolist() == [False, False, False, True, False]
    assert batch.fields["word"].masked is None
    assert collate([{"bag": shown}], TOYS).fields["bag"].masked is None
    assert batch.to("meta").fields["bag"].masked.device.type == "meta"


def test_groups_hold_like_lengths_and_no_more_tokens_than_fit() -> None:
    assert group_by_length([2, 5, 30, 1, 5], 10) == [[2], [1, 4], [0, 3]]
    assert group_by_length([3, 12, 4, 4, 20, 1], 12) == [[4], [1], [2, 3, 0], [5]]
    assert group_by_length([], 12) == []
