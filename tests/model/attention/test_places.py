"""Where tokens stand: coordinates on named axes, and their numbers within sample and field."""

from __future__ import annotations

from dataclasses import replace

import torch

from anyformer.model.attention.cache import Cache
from anyformer.model.attention.places import Wanted, coordinates, places_of
from anyformer.packing import collate
from anyformer.tokens import TokenSet
from tests.helpers.witnesses import Ids, count

TEXT, BAG = Ids(11, ("word",)), Ids(3)
FIELDS = {"text": TEXT, "bag": BAG}
AXES = {name: tuple(tokenizer.axes) for name, tokenizer in FIELDS.items()}


def move(tokens: TokenSet, by: int) -> TokenSet:
    return replace(tokens, position=tokens.position + by)


def test_coordinates_are_0_or_absent_without_the_axis_and_at_padding() -> None:
    short = {"text": move(TEXT.encode([1, 2]), 5), "bag": BAG.encode([1])}
    batch = collate([short, {"text": move(TEXT.encode([1, 2, 3, 4]), 1)}], FIELDS)
    assert coordinates(batch, AXES, ("row", "word")).tolist() == [
        [[0, 5], [0, 6], [0, 0], [0, 0]],
        [[0, 1], [0, 2], [0, 3], [0, 4]],
    ]
    found = places_of(batch, AXES, Wanted(("word",))).coordinate[:, :, 0]
    assert found.isnan().int().tolist() == [[0, 0, 1, 1], [0, 0, 0, 0]]
    assert places_of(batch, AXES, Wanted()).coordinate is None, "what nobody asks for is not worked out"


def test_tokens_are_numbered_within_their_sample_and_their_field() -> None:
    # Orders alternate: bag, text, bag, text.
    mixed = {"text": TEXT.encode([1, 2]).at(torch.tensor([1, 3])), "bag": BAG.encode([1, 2]).at(torch.tensor([0, 2]))}
    batch = collate([mixed, {"text": count(TEXT.encode([1, 2, 3]))}, mixed], FIELDS, [0, 0, 1])
    found = places_of(batch, AXES, Wanted(counts=True))
    assert found.rank.tolist() == [[0, 1, 2, 3, 0, 1, 2]] * 2
    assert found.nth[0].tolist() == [0, 0, 1, 1, 0, 1, 2]
    assert places_of(collate([], FIELDS), AXES, Wanted(("word",), True)).rank.shape == (0, 0)


def test_numbers_go_on_behind_a_cache_row_by_row() -> None:
    cache, wanted = Cache(), Wanted(counts=True)
    for lengths, ranks in (([2, 3], [[0, 1, 0], [0, 1, 2]]), ([1, 1], [[2], [3]]), ([2, 2], [[3, 4], [4, 5]])):
        batch = collate([{"text": count(TEXT.encode([1] * n))} for n in lengths], FIELDS)
        found = places_of(batch, AXES, wanted, cache.places)
        real = batch.layout.segment > 0
        assert found.rank[real].tolist() == torch.tensor(ranks)[real].tolist()
        assert torch.equal(found.nth[real], found.rank[real])
        cache.admit(batch, found)


def test_some_places_of_all_rows() -> None:
    batch = collate([{"text": count(TEXT.encode([1, 2, 3]))}, {"text": count(TEXT.encode([1, 2]), 7)}], FIELDS)
    found = places_of(batch, AXES, Wanted(("word",))).at(torch.tensor([[3, 1], [4, -1]]))
    assert found.order.tolist()[0] == [7, 2] and found.segment.tolist() == [[1, 1], [1, 0]]
    assert found.coordinate[0, :, 0].tolist() == [0, 1]
