"""Attention between fields."""

from __future__ import annotations

import torch

from anyformer.explaining.attention import read_attention
from anyformer.explaining.flow import field_flows, places_of_samples
from anyformer.model.config import TransformerConfig
from anyformer.packing import collate
from tests.helpers.explained import FIELDS, SIZES, WORDS, model_of, sample
from tests.helpers.witnesses import count, draw_ids

NAMES = list(FIELDS)


def test_the_flow_is_the_attention_between_the_tokens_of_two_fields() -> None:
    model, own = model_of(), sample(5, 3)
    batch = collate([own], FIELDS)
    maps = read_attention(model, batch)[1]
    ((first, *_),) = field_flows(maps, NAMES, batch)
    assert first.queries == first.keys == ("left", "right", "picture", "class")
    weights = maps[0].weights[0]
    # left 0 to 4, right 5 to 7, picture 8 to 13, class 14.
    torch.testing.assert_close(first.shares[:, 1, 2], weights[:, 5:8, 8:14].sum(2).mean(1))
    torch.testing.assert_close(first.shares.sum(2), torch.ones(4, 4))


def test_a_field_that_another_may_not_see_gets_nothing() -> None:
    model = model_of(sees={"left": ["left", "right"]})
    batch = collate([sample()], FIELDS)
    ((first, *_),) = field_flows(read_attention(model, batch)[1], NAMES, batch)
    assert not first.shares[:, 0, 2:].any()
    assert (first.shares[:, 0, :2] > 0).all()


def test_the_flow_of_cross_attention_is_from_the_fields_of_the_encoder() -> None:
    model = model_of(encoder=TransformerConfig(**SIZES))
    text = collate([{"left": count(WORDS.encode(draw_ids(4)))}], FIELDS)
    read = collate([{each: tokens for each, tokens in sample().items() if each in ("right", "picture")}], FIELDS)
    (flows,) = field_flows(read_attention(model, text, read)[1], NAMES, text, read)
    cross = [flow for flow in flows if flow.kind == "cross"]
    assert {(flow.queries, flow.keys) for flow in cross} == {(("left",), ("right", "picture"))}
    torch.testing.assert_close(cross[0].shares.sum(2), torch.ones(4, 1))


def test_samples_are_told_apart_in_packed_rows() -> None:
    batch = collate([sample(5, 3), sample(2, 4), sample(1, 1)], FIELDS, rows=[0, 1, 0])
    places = places_of_samples(batch)
    assert [row for row, _ in places] == [0, 1, 0]
    assert torch.equal(places[2][1], torch.arange(15, 24))
