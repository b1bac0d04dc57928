"""What a cache keeps, and of which rows."""

from __future__ import annotations

import torch
from torch import Tensor

from anyformer.batch import Batch, Layout
from anyformer.model.attention.cache import Cache
from anyformer.model.attention.places import Places
from anyformer.packing import collate
from tests.helpers.witnesses import Ids


def test_a_cache_keeps_what_it_was_given_while_it_grows() -> None:
    cache, kept = Cache(), []
    for step, n in enumerate((3, 1, 1, 4, 1)):
        k, v = torch.randn(2, 5, n, 4), torch.randn(2, 5, n, 4)
        kept.append((k, v))
        place = torch.ones(2, n, dtype=torch.int64)
        row = Places(place, place * step, place * 0)
        cache.tracks[0].admit(row)
        for layer in (0, 1):
            keys, values = cache.tracks[0].extend(layer, k + layer, v - layer)
            assert torch.equal(keys, torch.cat([k for k, _ in kept], 2) + layer)
            assert torch.equal(values, torch.cat([v for _, v in kept], 2) - layer)
    assert len(cache) == 10


def filled(lengths: list[int], n: int, offset: int = 0) -> tuple[Cache, Places, Tensor]:
    """A cache of two layers with rows of these lengths in n places, their layout, and their keys, (b, 5, n, 4)."""
    segment = (torch.arange(n) < torch.tensor(lengths)[:, None]).long()
    row = Places(segment, segment * torch.arange(n), segment * offset)
    k, cache = torch.randn(len(lengths), 5, n, 4), Cache()
    cache.tracks[0].places = row
    for layer in (0, 1):
        cache.tracks[0].extend(layer, k + layer, k - layer)
    return cache, row, k


def keys_of(cache: Cache, layer: int) -> Tensor:
    """What a layer is given, but for a place that is added to see it."""
    track = cache.tracks[0]
    held, extra = track.places, track.places.map(lambda part: torch.zeros_like(part[:, :1]))
    track.admit(extra)
    keys, values = (
        part[:, :, :-1] for part in cache.tracks[0].extend(layer, *torch.zeros(2, len(extra.order), 5, 1, 4))
    )
    track.places = held
    real = cache.places.segment[:, None, :, None] > 0
    torch.testing.assert_close((keys - layer) * real, (values + layer) * real)
    return keys - layer


def test_a_new_token_sees_all_that_is_cached_only_where_nothing_of_it_is_later() -> None:
    ids, cache = Ids(11, ("word",)), Cache()

    def batch(*orders: int) -> Batch:
        return collate([{"text": ids.encode([1] * len(orders)).at(torch.tensor(orders))}], {"text": ids})

    for orders in ((0, 1, 5), (3,)):
        cache.admit(batch(*orders), Places(*batch(*orders).layout))
    assert [cache.all_visible_to(batch(order)) for order in (0, 3, 4, 5, 6)] == [False, False, False, True, True]
    assert not cache.all_visible_to(batch(6, 7)), "of two the first does not see the second"


def test_a_cache_keeps_the_rows_selected() -> None:
    cache, row, k = filled([3, 1, 4], 4)
    cache.memory, cache.memory_layout = {0: (k + 5, k - 5)}, Layout(*row[:3])
    rows = torch.tensor([2, 0, 2])
    cache.select(rows)
    for layer in (0, 1):
        torch.testing.assert_close(keys_of(cache, layer), k[rows])
    assert torch.equal(cache.memory[0][0], k[rows] + 5) and torch.equal(cache.memory[0][1], k[rows] - 5)
    assert torch.equal(cache.memory_layout.order, row.order[rows]) and torch.equal(
        cache.places.segment, row.segment[rows]
    )


def test_rows_of_a_cache_may_share_a_memory_and_part_again() -> None:
    cache, row, k = filled([3, 1, 4], 4)
    cache.memory, cache.memory_layout = {0: (k, -k)}, Layout(*row[:3])
    cache.select(torch.tensor([0, 0, 1, 1, 2, 2]), sharing=2)
    assert cache.sharing == 2 and torch.equal(cache.memory[0][0], k) and len(cache.places.order) == 6
    assert cache.memory_mask().squeeze().tolist() == (row.segment == 1).tolist()
    cache.select(torch.tensor([2, 3, 4, 5]), sharing=2)
    assert torch.equal(cache.memory[0][0], k[1:]) and torch.equal(cache.memory_layout.segment, row.segment[1:])
    assert cache.memory_mask().squeeze().tolist() == (row.segment[1:] == 1).tolist()
    cache.select(torch.tensor([3, 1, 2]))
    assert cache.sharing == 1 and torch.equal(cache.memory[0][1], -k[[2, 1, 2]])
    torch.testing.assert_close(keys_of(cache, 1), k[[2, 1, 2]])


def test_a_cache_copies_rows_from_a_place_on() -> None:
    cache, _, k = filled([4, 4, 4], 4)
    cache.copy([2], [0], 3)
    expected = k.clone()
    expected[0, :, 3:] = k[2, :, 3:]
    for layer in (0, 1):
        torch.testing.assert_close(keys_of(cache, layer), expected)


def test_caches_are_joined_with_padding_at_the_end() -> None:
    (one, row, k), (other, other_row, other_k) = filled([3, 2], 3), filled([5], 5, offset=1)
    joined = Cache.join([one, other])
    assert len(joined) == 5 and joined.places.segment.tolist() == [[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1] * 5]
    assert torch.equal(joined.places.order[:2, :3], row.order) and torch.equal(joined.places.field[2:], other_row.field)
    for layer in (0, 1):
        keys = keys_of(joined, layer)
        torch.testing.assert_close(keys[:2, :, :3], k)
        torch.testing.assert_close(keys[2:], other_k)
    assert not joined._plain, "padding is hidden by a mask"


def test_a_cache_that_begins_anew_keeps_the_memory_alone() -> None:
    cache, row, k = filled([3, 1], 3)
    cache.memory, cache.memory_layout = {0: (k, k)}, row
    cache.restart()
    assert len(cache) == 0 and cache.memory_layout is row and cache.memory[0][0] is k
    cache.tracks[0].places = row
    assert torch.equal(cache.tracks[0].extend(0, k + 7, k)[0], k + 7)


def test_rows_of_a_cache_begin_anew_and_places_that_none_sees_are_cut() -> None:
    cache, row, k = filled([3, 5, 4], 5)
    cache.hide(torch.tensor([0, 2]))
    assert cache.places.segment.tolist() == [[0] * 5, [1] * 5, [0] * 5]
    assert cache.n_hidden == 0
    cache.hide(torch.tensor([1]))
    assert cache.n_hidden == 5
    cache, row, k = filled([3, 5, 4], 5)
    cache.tracks[0].places = row._replace(coordinate=k[:, 0, :, :1])
    cache.cut(2, 4)
    assert torch.equal(cache.places.order, row.order[:, 2:4])
    assert torch.equal(cache.places.coordinate, k[:, 0, 2:4, :1])
    for layer in (0, 1):
        torch.testing.assert_close(keys_of(cache, layer), k[:, :, 2:4])


def test_rows_of_a_cache_hold_their_newest_places_anew_and_no_others() -> None:
    cache, _, k = filled([4, 5, 3], 5)
    part, _, new = filled([2, 3], 3)
    cache.renew(torch.tensor([2, 1]), part)
    assert cache.places.segment.tolist() == [[1, 1, 1, 1, 0], [0, 0, 1, 1, 1], [0, 1, 1, 0, 0]]
    assert cache.n_hidden == 0
    for layer in (0, 1):
        keys = keys_of(cache, layer)
        torch.testing.assert_close(keys[0, :, :4], k[0, :, :4])
        torch.testing.assert_close(keys[1, :, 2:], new[1])
        torch.testing.assert_close(keys[2, :, 1:3], new[0, :, :2])
    cache.hide(torch.tensor([0]))
    assert cache.n_hidden == 1


def test_a_track_lets_go_of_what_is_seen_no_more_and_its_rows_move_up() -> None:
    cache, _row, k = filled([4, 5, 2], 5)
    track = cache.tracks[0]
    assert not track.is_full, "a few places are not worth it"
    seen = torch.tensor([[0, 1, 0, 1, 1], [1, 0, 0, 0, 1], [0, 0, 0, 0, 0]]).bool()
    track.trim(seen)
    assert cache.places.segment.tolist() == [[1, 1], [1, 1], [0, 0]], "the last place of the first row was padding"
    assert cache.places.order[:2].tolist() == [[1, 3], [0, 4]]
    for layer in (0, 1):
        keys = keys_of(cache, layer)
        torch.testing.assert_close(keys[0], k[0, :, [1, 3]])
        torch.testing.assert_close(keys[1], k[1, :, [0, 4]])
    # Where beams part stands elsewhere by now: all of a row is overwritten.
    cache.copy([1], [0], 5)
    torch.testing.assert_close(keys_of(cache, 0)[0], k[1, :, [0, 4]])
    track.trim(None)
    assert len(track) == 2
