"""Biases by distance: ALiBi's slopes, T5's buckets, and which pairs have one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from anyformer.batch import Batch, Edges
from anyformer.errors import InputError
from anyformer.model.anyformer import Anyformer
from anyformer.model.attention.bias import Alibi, RelationBias, alibi_slopes, bucket, make_relative
from anyformer.model.attention.cache import Cache
from anyformer.model.attention.places import Places, Wanted, places_of
from anyformer.model.config import RelativeConfig, TransformerConfig
from anyformer.model.learned_tokens import LearnedTokens
from anyformer.packing import collate
from anyformer.tokens import Sample
from tests.helpers.witnesses import Ids, Vectors, count, draw_ids, redraw

TEXT, PICTURE, CLASS = Ids(11, ("word",)), Vectors(3, ("row", "column"), (2, 5)), LearnedTokens()
FIELDS = {"text": TEXT, "picture": PICTURE, "class": CLASS}
AXES = {name: tuple(tokenizer.axes) for name, tokenizer in FIELDS.items()}
ALIBI, T5 = RelativeConfig("alibi", "word"), RelativeConfig("t5", "word", n_buckets=8, max_distance=6)


def text(n: int, start: int = 0) -> Sample:
    """n words whose positions begin anywhere."""
    tokens = count(TEXT.encode(draw_ids(n)), 0)
    return {"text": replace(tokens, position=tokens.position + start)}


def places(batch: Batch, cache: Cache | None = None) -> Places:
    """Where a batch stands, on the axis of the biases."""
    found = places_of(batch, AXES, Wanted(("word",)))
    if cache is not None:
        cache.admit(batch, found)
    return found


def bias(config: RelativeConfig, samples: list[Sample], rows: list[int] | None = None) -> tuple[Tensor, Tensor]:
    """The biases of a batch of 3 heads, and its segments."""
    module, batch = make_relative(config, AXES, 3), collate(samples, FIELDS, rows)
    redraw(module)
    return module(places(batch), places(batch)).detach(), batch.layout.segment


# Slopes


@pytest.mark.parametrize(
    ("n_heads", "powers"),
    [
        (8, [1, 2, 3, 4, 5, 6, 7, 8]),  # the paper's, section 3
        (1, [8]),
        (2, [4, 8]),
        (16, [0.5 * i for i in range(1, 17)]),
        (6, [2, 4, 6, 8, 1, 3]),
        (12, [1, 2, 3, 4, 5, 6, 7, 8, 0.5, 1.5, 2.5, 3.5]),
    ],
)
def test_the_slopes_of_alibi_for_any_number_of_heads(n_heads: int, powers: list[float]) -> None:
    assert alibi_slopes(n_heads) == pytest.approx([2**-power for power in powers])


def test_alibi_falls_with_the_distance_on_either_side() -> None:
    found, _ = bias(ALIBI, [text(4)])
    away = torch.tensor([[0, 1, 2, 3], [1, 0, 1, 2], [2, 1, 0, 1], [3, 2, 1, 0]])
    expected = torch.stack([-slope * away for slope in alibi_slopes(3)])[None]
    torch.testing.assert_close(found, expected)


def test_alibi_is_of_the_models_dtype() -> None:
    module, batch = Alibi(ALIBI, AXES, 3).bfloat16(), collate([text(300)], FIELDS)
    found = module(places(batch), places(batch))
    assert found.dtype == torch.bfloat16
    # Distances are worked out in float32: bfloat16 counts to 256.
    assert found[0, 0, 299, 0] == torch.tensor(-299 / 16).bfloat16()
    module = Alibi(ALIBI, AXES, 12).bfloat16()
    wide = -batch.fields["text"].position.flatten().float() * module.slopes[:, None].float()
    assert torch.equal(module(places(batch), places(batch))[0, :, :, 0], wide.bfloat16())


# Buckets


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("n_buckets", "max_distance"), [(32, 128), (8, 6), (4, 3)])
def test_the_buckets_are_those_of_t5(n_buckets: int, max_distance: int, bidirectional: bool) -> None:
    module = pytest.importorskip("transformers.models.t5.modeling_t5")
    distance = torch.arange(-300, 301)
    theirs = module.T5Attention._relative_position_bucket(distance, bidirectional, n_buckets, max_distance)
    ours = bucket(distance.float(), RelativeConfig("t5", "word", n_buckets, max_distance, bidirectional))
    assert torch.equal(ours, theirs)


def test_the_table_gives_every_head_the_bias_of_the_bucket() -> None:
    module, batch = make_relative(T5, AXES, 3), collate([text(9)], FIELDS)
    redraw(module)
    found = module(places(batch), places(batch))
    for query, key in ((0, 0), (0, 8), (8, 0), (3, 4), (4, 2)):
        of = bucket(torch.tensor(float(key - query)), T5)
        assert torch.equal(found[0, :, query, key], module.table[of])


# Which pairs


@pytest.mark.parametrize("config", [ALIBI, T5], ids=lambda config: config.kind)
def test_tokens_that_do_not_share_the_axis_have_no_bias(config: RelativeConfig) -> None:
    sample = {**text(4, start=2), "picture": PICTURE.encode(torch.randn(1, 2, 3)), "class": CLASS.encode()}
    batch = collate([sample], FIELDS)
    module = make_relative(config, AXES, 3)
    redraw(module)
    found = module(places(batch), places(batch)).detach()
    words = batch.layout.field[0] == 0
    pairs = words[:, None] & words
    assert not found[0, :, ~pairs].any()
    alone, _ = bias(ALIBI, [text(4)])
    if config == ALIBI:
        torch.testing.assert_close(found[0][:, pairs], alone[0].flatten(1))
    else:
        assert found[0][:, pairs].all()


@pytest.mark.parametrize("config", [ALIBI, T5], ids=lambda config: config.kind)
def test_rows_that_stand_alike_share_one_bias(config: RelativeConfig) -> None:
    torch.manual_seed(0)
    shared, _ = bias(config, [text(5), text(5), text(5)])
    torch.manual_seed(0)
    apart, segment = bias(config, [text(5), text(5), text(3)])
    assert shared.shape == (1, 3, 5, 5) and apart.shape == (3, 3, 5, 5)
    assert segment[2, 3:].eq(0).all()
    # Of which one has no such axis: all at place 0, but not alike.
    both = {"text": replace(text(2)["text"], position=torch.zeros(2, 1, dtype=torch.int64))}
    torch.manual_seed(0)
    fields_apart, _ = bias(config, [both, {"class": CLASS.encode(), **text(1)}])
    torch.manual_seed(0)
    alone, _ = bias(config, [{"class": CLASS.encode(), **text(1)}])
    assert fields_apart.shape[0] == 2
    torch.testing.assert_close(fields_apart[1:], alone)
    module, batches = make_relative(config, AXES, 3), [collate([text(5)] * 2, FIELDS), collate([text(5)], FIELDS)]
    torch.testing.assert_close(*(module(places(batch), places(batch)) for batch in batches))


def test_only_differences_of_position_count() -> None:
    for config in (ALIBI, T5):
        model = Anyformer(FIELDS, TransformerConfig(d_model=12, n_heads=3, depth=2, relative=config))
        redraw(model)
        near, far = text(5), text(5)
        far = {"text": replace(near["text"], position=near["text"].position + 1000)}
        apart = {"text": replace(near["text"], position=near["text"].position * 2)}
        ours, moved, stretched = (model(collate([sample], FIELDS)) for sample in (near, far, apart))
        torch.testing.assert_close(ours, moved, atol=1e-5, rtol=1e-5)
        assert (ours - stretched).abs().max() > 0.01


def test_a_cache_keeps_where_the_keys_stand() -> None:
    cache, module = Cache(), make_relative(ALIBI, AXES, 3)
    first, second = collate([text(2), text(2, 7)], FIELDS), collate([text(1, 2), text(1, 9)], FIELDS)
    places(first, cache)
    found = module(places(second, cache), cache.places)
    expected = -torch.tensor([2.0, 1.0, 0.0]) * torch.tensor(alibi_slopes(3))[:, None]
    torch.testing.assert_close(found, expected[None, :, None].expand(2, 3, 1, 3))
    cache.select(torch.tensor([1]))
    assert cache.places.coordinate.flatten().tolist() == [7.0, 8.0, 9.0]
    cache.restart()
    assert cache.places is None


# What cannot be


def test_relative_positions_need_no_table_and_name_an_axis_that_a_field_has() -> None:
    config = TransformerConfig(d_model=12, n_heads=3, depth=1, relative=ALIBI)
    assert [position.axes for position in Anyformer(FIELDS, config).embeddings.placed] == [("row", "column")]
    with pytest.raises(InputError, match=r"no field has the axis 'time' that positions name, .*; there are word, row"):
        Anyformer(FIELDS, replace(config, relative=RelativeConfig("alibi", "time")))


# Relations


def test_a_relation_bias_is_learned_for_each_relation_and_head() -> None:
    bias = RelationBias(3, 2)
    assert not bias.table.any(), "nothing at the start"
    redraw(bias)
    out = bias(torch.tensor([[[0, 1], [3, -1]]]))
    expected = torch.stack([torch.zeros(2), bias.table[0], bias.table[2], torch.zeros(2)], 1).view(1, 2, 2, 2)
    assert torch.equal(out, expected)


def test_biases_of_edges_add_up_and_pass_their_gradients_on() -> None:
    bias = RelationBias(3, 2)
    redraw(bias)
    edges = Edges(*torch.tensor([[0, 0, 1], [0, 1, 0], [0, 1, 0], [1, 0, 2]]).T, kind=torch.tensor([3, 1, 2, 0]))
    out = bias.along(edges, (2, 2, 3))
    expected = torch.zeros(2, 2, 2, 3)
    expected[0, :, 0, 1], expected[0, :, 1, 0] = bias.table[2].detach(), (bias.table[0] + bias.table[1]).detach()
    assert torch.equal(out, expected), "kind 0 is none"
    out.sum().backward()
    assert bias.table.grad.tolist() == [[1.0, 1.0]] * 3
