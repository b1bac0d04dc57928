"""The engine that pays for what is seen: equal to one dense mask, and nothing in it as large as all pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from anyformer.batch import Batch
from anyformer.model.anyformer import Anyformer
from anyformer.model.attention import visibility
from anyformer.model.attention.blocks import lay_blocks
from anyformer.model.attention.patterns import Reach
from anyformer.model.attention.places import places_of
from anyformer.model.attention.visibility import View, self_sights, visible
from anyformer.model.config import RelativeConfig, RotaryConfig, TransformerConfig
from anyformer.packing import collate
from tests.helpers.largest import Largest
from tests.helpers.patterns import FIELDS, PATTERNS, samples, text
from tests.helpers.witnesses import Ids, count, redraw

RELATIVE = {"none": None, "alibi": RelativeConfig("alibi", "word"), "t5": RelativeConfig("t5", "word", 8, 20)}


def build(*patterns: dict[str, Any], fields: dict = FIELDS, sees: dict | None = None, **choices: Any) -> Anyformer:
    sizes = {"d_model": 12, "n_heads": 3, "depth": 2, "d_ff": 10, "rotary": RotaryConfig(("word",))}
    model = Anyformer(fields, TransformerConfig(**(sizes | choices), patterns=patterns), sees=sees)
    redraw(model)
    return model.eval()


def run(model: Anyformer, batch: Batch, **given: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Hidden vectors, and the gradients of a loss on them."""
    model.zero_grad()
    hidden = model(batch, **given)
    hidden.square().mean().backward()
    return hidden.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def both(model: Anyformer, batch: Batch, monkeypatch: pytest.MonkeyPatch, **given: Any) -> tuple[Any, Any]:
    """What blocks make of a batch, and what one mask does."""
    monkeypatch.setattr(visibility, "LONG", 1)
    monkeypatch.setattr(visibility, "GAIN", 0)
    ours = run(model, batch, **given)
    monkeypatch.setattr(visibility, "LONG", 10**9)
    return ours, run(model, batch, **given)


def engines(model: Anyformer, batch: Batch) -> list[str]:
    stack, axes = model.transformer, model.embeddings.axes
    places = places_of(batch, axes, stack.wanted)
    return [s.engine for s in self_sights(stack.patterns, batch, places, len(axes), None, model.sees)]


@pytest.mark.parametrize("rows", [None, [0, 1, 0, 0]], ids=["padded", "packed"])
@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_blocks_are_one_mask_in_outputs_and_gradients(
    pattern: dict, rows: list[int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lay_blocks, "__defaults__", (4,))
    model, batch = build(pattern, {}), collate(samples(2), FIELDS, rows)
    ours, theirs = both(model, batch, monkeypatch)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("relative", RELATIVE.values(), ids=RELATIVE)
def test_blocks_take_any_bias_shared_heads_and_what_fields_see(relative: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lay_blocks, "__defaults__", (4,))
    sees = {"text": ["text", "class"]}
    shared = {"n_heads": 4, "n_kv_heads": 2, "d_head": 4, "qk_norm": "rmsnorm", "relative": relative}
    model = build({"window": {"word": 3}, "global": ["class"]}, {}, sees=sees, **shared)
    # Of the last, several blocks of queries have the same keys.
    for lengths, rows in (((), None), ((), [0, 1, 0, 0]), ((8, 8), [0, 0])):
        every = [{"text": text(n, 0)} for n in lengths] or samples(2)
        ours, theirs = both(model, collate(every, FIELDS, rows), monkeypatch)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_blocks_take_relations_and_read_some_places_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lay_blocks, "__defaults__", (4,))
    fields = {"text": Ids(11, ("word",), 64, n_relations=3)}
    model = build({"window": {"word": 4}}, fields=fields)
    batch = collate([{"text": fields["text"].encode([1, 5, 3] * 7)}, {"text": fields["text"].encode([4] * 13)}], fields)
    read = torch.tensor([[20, 3], [12, 0]])
    for given in ({}, {"read": read}):
        ours, theirs = both(model, batch, monkeypatch, **given)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pattern", [None, *PATTERNS.values()], ids=["packed", *PATTERNS])
def test_a_key_stands_once_in_a_block_and_none_that_is_seen_is_left_out(pattern: dict | None) -> None:
    model, rows = build(pattern or {}), [0, 1, 0, 0]
    places = places_of(collate(samples(2), FIELDS, rows), model.embeddings.axes, model.transformer.wanted)
    rule = model.transformer.patterns[0]
    reach = rule[-1] if isinstance(rule[-1], Reach) else None
    seen, n = visible(places, places, pattern=rule), places.segment.shape[1]
    found = torch.zeros_like(seen).int()
    blocks = lay_blocks(places, reach, None, len(FIELDS), 4)
    for block in blocks:
        for query, key in zip(block.query.tolist(), block.key.tolist(), strict=True):
            key = [k for k in key if k >= 0]
            assert len({*key}) == len(key)
            for q in (q for q in query if q >= 0):
                found[q // n, q % n, [k % n for k in key]] += 1
                assert all(k // n == q // n for k in key)
    assert found.max() == 1 and (found[seen] == 1).all()
    asked = torch.cat([block.query[block.query >= 0] for block in blocks])
    assert sorted(asked.tolist()) == list(range(places.segment.numel()))


# What is taken, and what it costs


def long(lengths: Sequence[int], rows: Sequence[int] | None = None) -> Batch:
    return collate([{"text": text(n, 0)} for n in lengths], FIELDS, rows)


def test_the_engine_follows_from_the_shapes_of_the_batch() -> None:
    local = build({"window": {"word": 16}}, {})
    assert engines(local, long([1024])) == ["blocks", "plain"]
    assert engines(local, long([300])) == ["dense", "plain"], "short rows are not worth it"
    both_ways = collate([{"text": text(1024).at(0)}], FIELDS)
    assert engines(build({"window": {"word": 16}}), both_ways) == ["blocks"]
    assert engines(build({"window": {"word": 500}}), both_ways) == ["dense"], "nor is a window of nearly all"
    plain = build()
    assert engines(plain, long([1024, 900])) == ["plain"]
    assert engines(plain, long([128] * 8, [0] * 8)) == ["blocks"]
    assert engines(plain, long([1000, 24], [0] * 2)) == ["dense"]
    assert engines(plain, long([64] * 4, [0] * 4)) == ["dense"]


@pytest.mark.parametrize(
    "pattern", [{"window": {"word": 16}}, {"window": {"word": 16}, "global": {"text": 2}, "random": 1}, None], ids=str
)
def test_no_tensor_is_of_length_times_length(pattern: dict | None) -> None:
    n, model = 4096, build(pattern or {}, depth=1)
    batch = long([n]) if pattern else long([64] * (n // 64), [0] * (n // 64))
    assert engines(model, batch) == ["blocks"]
    with Largest() as largest:
        run(model, batch)
    assert largest.n_bytes < n * n / 2
    with Largest() as largest:
        View(*[places_of(batch, model.embeddings.axes, model.transformer.wanted)] * 2, visibility.RULE).mask()
    assert largest.n_bytes >= n * n, "as one mask would be"


def test_a_neighbours_content_changes_no_bit() -> None:
    model = build({"window": {"word": 8}, "random": 1}, {})
    own, others = {"text": text(600, 0)}, [{"text": text(600, 0)} for _ in range(2)]
    for rows in (None, [0, 0]):
        batches = [collate([own, other], FIELDS, rows) for other in others]
        first, second = (model(batch).flatten(0, 1)[:600] for batch in batches)
        assert torch.equal(first, second)


@torch.no_grad()
def test_packed_and_alone_agree_though_the_engines_differ() -> None:
    model = build().double()
    every = [{"text": count(FIELDS["text"].encode([i % 11, 3, 5] * 33), 0)} for i in range(8)]
    packed = model(collate(every, FIELDS, [0] * 8))[0].view(8, 99, -1)
    for own, output in zip(every, packed, strict=True):
        alone = model(collate([own], FIELDS))[0]
        assert (output - alone).abs().max() < 1e-6 * alone.std()
