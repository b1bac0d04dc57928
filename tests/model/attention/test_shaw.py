"""Shaw's vectors on keys and values: Wav2Vec2-BERT's, a loop in plain Python, and the laws of attention."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from anyformer.errors import InputError
from anyformer.model.anyformer import Anyformer
from anyformer.model.attention import visibility
from anyformer.model.attention.attention import Attention
from anyformer.model.attention.bias import ClippedDistances
from anyformer.model.attention.blocks import lay_blocks
from anyformer.model.attention.cache import Cache
from anyformer.model.attention.places import Places
from anyformer.model.attention.sight import Sight
from anyformer.model.config import RelativeConfig, TransformerConfig
from anyformer.packing import collate
from tests.helpers.patterns import FIELDS, samples, text
from tests.helpers.witnesses import by_sample, error, redraw
from tests.model.attention.test_blocks import Largest, engines
from tests.model.attention.test_patterns import one_by_one

BOTH = RelativeConfig("shaw", "word", max_distance=3)
KEYS = replace(BOTH, on=("keys",))
ALL = {"keys": KEYS, "values": replace(BOTH, on=("values",)), "both": BOTH}


def build(relative: RelativeConfig = BOTH, encoder: bool = False, **choices: Any) -> Anyformer:
    sizes = {"d_model": 12, "n_heads": 3, "depth": 2, "d_ff": 10}
    config = TransformerConfig(**(sizes | choices), relative=relative)
    model = Anyformer(FIELDS, config, encoder=config if encoder else None)
    redraw(model)
    return model.eval()


def words(n: int) -> Places:
    """n words of one row."""
    place = torch.arange(n)[None]
    return Places(torch.ones_like(place), place * 0, place * 0, place[:, :, None].float())


# Witnesses


@pytest.mark.parametrize("ours_is", ["right", "wrong"])
def test_keys_alone_are_the_relative_keys_of_wav2vec2_bert(ours_is: str) -> None:
    module = pytest.importorskip("transformers.models.wav2vec2_bert")
    config = module.Wav2Vec2BertConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=16,
        feature_projection_input_dim=5,
        left_max_position_embeddings=4,
        right_max_position_embeddings=4,
        position_embeddings_type="relative_key",
        conv_depthwise_kernel_size=3,
        attn_implementation="eager",
    )
    reference = module.Wav2Vec2BertModel(config).eval()
    redraw(reference)
    relative = RelativeConfig("shaw", "word", max_distance=4 if ours_is == "right" else 3, on=("keys",))
    met: list[tuple[Any, Tensor, Tensor]] = []
    handles = [
        layer.self_attn.register_forward_hook(
            lambda own, args, given, out: met.append((own, given["hidden_states"], out[0])), with_kwargs=True
        )
        for layer in reference.encoder.layers
    ]
    reference(torch.randn(2, 11, 5))
    for handle in handles:
        handle.remove()
    assert len(met) == 2
    for own, x, theirs in met:
        ours = Attention(TransformerConfig(d_model=24, n_heads=3, relative=relative))
        for name, part in (("q", "linear_q"), ("k", "linear_k"), ("v", "linear_v"), ("o", "linear_out")):
            getattr(ours, name).load_state_dict(getattr(own, part).state_dict())
        table, cut = own.distance_embedding.weight, 4 - relative.max_distance
        ours.vectors.keys.data.copy_(table[cut : len(table) - cut])
        noise, given = torch.randn_like(theirs), x.detach().requires_grad_()
        distance = ClippedDistances(relative, {"text": ("word",)})(words(11), words(11))
        found = ours(given, Sight(distance=distance))
        if ours_is == "wrong":
            assert error(found, theirs) > 1e-2
            continue
        assert error(found, theirs) < 1e-4
        gradients = torch.autograd.grad((found * noise).sum(), [given, ours.q.weight, ours.vectors.keys])
        read = x.detach().requires_grad_()
        expected = torch.autograd.grad(
            (own(read)[0] * noise).sum(), [read, own.linear_q.weight, own.distance_embedding.weight]
        )
        for mine, other in zip(gradients, expected, strict=True):
            assert error(mine, other) < 1e-4


def by_hand(attention: Attention, x: Tensor, where: list[int | None], seen: list[list[bool]]) -> Tensor:
    """Shaw et al. (2018), equations 3 and 4, for one row: x (n, d), where each stands on the axis."""
    k, most, heads = attention.d_head, attention.config.relative.max_distance, []
    keys, values = attention.vectors.keys, attention.vectors.values
    for h in range(attention.n_heads):
        part = slice(h * k, (h + 1) * k)
        q, key, value = (
            x @ layer.weight[part].T + layer.bias[part] for layer in (attention.q, attention.k, attention.v)
        )
        rows = []
        for i, own in enumerate(where):
            logits, met = [], []
            for j, other in enumerate(where):
                if not seen[i][j]:
                    continue
                both = own is not None and other is not None
                number = max(-most, min(most, other - own)) + most if both else None
                of_key = keys[number] if both and keys is not None else 0
                of_value = values[number] if both and values is not None else 0
                logits.append(q[i] @ (key[j] + of_key) / k**0.5)
                met.append(value[j] + of_value)
            weight = torch.stack(logits).softmax(0)
            rows.append(sum(w * each for w, each in zip(weight, met, strict=True)))
        heads.append(torch.stack(rows))
    return torch.cat(heads, 1) @ attention.o.weight.T + attention.o.bias


@pytest.mark.parametrize("relative", ALL.values(), ids=ALL)
@pytest.mark.parametrize("kind", ["everything", "causal", "mask", "added"])
def test_keys_and_values_are_the_papers_as_a_loop(relative: RelativeConfig, kind: str) -> None:
    attention = Attention(TransformerConfig(d_model=12, n_heads=3, relative=relative))
    redraw(attention)
    where = [0, 1, None, 2, 9, 4, None]
    n = len(where)
    row = words(n)
    row.field[0] = torch.tensor([int(each is None) for each in where])
    row.coordinate[0, :, 0] = torch.tensor([torch.nan if each is None else each for each in where])
    distance = ClippedDistances(relative, {"text": ("word",), "class": ()})(row, row)
    mask = torch.rand(n, n) < 0.5
    mask.fill_diagonal_(True)
    seen = {"everything": torch.ones(n, n), "causal": torch.ones(n, n).tril()}.get(kind, mask).bool()
    sight = {
        "everything": Sight(distance=distance),
        "causal": Sight(causal=True, distance=distance),
        "mask": Sight(mask[None, None], distance=distance),
        "added": Sight(torch.zeros(1, 1, n, n).masked_fill(~mask, -torch.inf), distance=distance),
    }[kind]
    x = torch.randn(1, n, 12, requires_grad=True)
    ours, theirs = attention(x, sight), by_hand(attention, x[0], where, seen.tolist())[None]
    assert error(ours, theirs) < 1e-5
    parameters = [x, *attention.vectors.parameters(), attention.v.weight]
    noise = torch.randn_like(ours)
    for mine, other in zip(
        torch.autograd.grad((ours * noise).sum(), parameters),
        torch.autograd.grad((theirs * noise).sum(), parameters),
        strict=True,
    ):
        assert error(mine, other) < 1e-4


def test_heads_may_share_keys_and_a_query_that_sees_nothing_gets_0() -> None:
    for relative in ALL.values():
        few = Attention(TransformerConfig(d_model=12, n_heads=4, n_kv_heads=2, relative=relative, o_bias=False))
        many = Attention(TransformerConfig(d_model=12, n_heads=4, relative=relative, o_bias=False))
        redraw(few)
        state = few.state_dict()
        for name in ("k.weight", "k.bias", "v.weight", "v.bias"):
            state[name] = state[name].unflatten(0, (2, 3)).repeat_interleave(2, 0).flatten(0, 1)
        many.load_state_dict(state)
        mask = torch.ones(1, 1, 5, 5, dtype=torch.bool)
        mask[..., 2, :] = False
        sight = Sight(mask, distance=ClippedDistances(relative, {"text": ("word",)})(words(5), words(5)))
        x = torch.randn(1, 5, 12, requires_grad=True)
        ours = few(x, sight)
        torch.testing.assert_close(ours, many(x, sight))
        assert not ours[0, 2].any() and ours[0, [0, 1, 3]].abs().amax(1).all()
        assert torch.autograd.grad(ours.square().sum(), x)[0].isfinite().all()


# Laws


@pytest.mark.parametrize("relative", ALL.values(), ids=ALL)
@torch.no_grad()
def test_padded_packed_and_one_by_one_are_the_same(relative: RelativeConfig) -> None:
    model, every = build(relative), samples()
    outputs = [by_sample(batch, model(batch), [s]) for s in every for batch in [collate([s], FIELDS)]]
    for rows in (None, [0, 1, 0, 0]):
        batch = collate(every, FIELDS, rows)
        torch.testing.assert_close(
            by_sample(batch, model(batch), every), [one for (one,) in outputs], atol=1e-5, rtol=0
        )


@pytest.mark.parametrize("relative", ALL.values(), ids=ALL)
@torch.no_grad()
def test_cached_is_uncached_in_a_decoder_with_an_encoder(relative: RelativeConfig) -> None:
    model, cache = build(relative, encoder=True), Cache()
    read = collate([{"text": text(7).at(0)}, {"text": text(4).at(0)}], FIELDS)
    prompts = [{"text": text(12)}, {"text": text(12)}]
    whole = collate(prompts, FIELDS)
    expected = by_sample(whole, model(whole, read), prompts)
    ours: list[list] = [[], []]
    for i, step in enumerate(zip(*(one_by_one(sample, 3) for sample in prompts), strict=True)):
        batch = collate(step, FIELDS)
        hidden = model(batch, None if i else read, cache)
        for own, part in zip(ours, by_sample(batch, hidden, step), strict=True):
            own.append(part["text"])
    torch.testing.assert_close([{"text": torch.cat(parts)} for parts in ours], expected, atol=1e-5, rtol=0)
    assert all(block.cross.vectors is None for block in model.transformer.blocks)


@pytest.mark.parametrize("relative", ALL.values(), ids=ALL)
def test_blocks_are_one_mask_in_outputs_and_gradients(
    relative: RelativeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lay_blocks, "__defaults__", (4,))
    monkeypatch.setattr(visibility, "GAIN", 0)
    model = build(relative, patterns=({"window": {"word": 3}, "global": ["class"]}, {}))
    batch, found = collate(samples(2), FIELDS, [0, 1, 0, 0]), []
    for long, engine in ((1, "blocks"), (10**9, "dense")):
        monkeypatch.setattr(visibility, "LONG", long)
        assert engines(model, batch) == [engine] * 2
        model.zero_grad()
        hidden = model(batch)
        hidden.square().mean().backward()
        found.append((hidden.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}))
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)
    assert found[0][1]["transformer.blocks.1.attention.vectors." + relative.on[0]].any()


def test_blocks_make_no_tensor_of_length_times_length() -> None:
    n, model = 4096, build(BOTH, depth=1, patterns=({"window": {"word": 16}},))
    batch = collate([{"text": text(n, 0)}], FIELDS)
    assert engines(model, batch) == ["blocks"]
    with Largest() as largest:
        model(batch).square().mean().backward()
    assert largest.n_bytes < n * n / 2


@torch.no_grad()
def test_a_neighbours_content_changes_no_bit_and_some_places_may_be_read_alone() -> None:
    model, own = build(), {"text": text(9)}
    for rows in (None, [0, 0]):
        batches = [collate([own, {"text": text(9)}], FIELDS, rows) for _ in range(2)]
        first, second = (model(batch).flatten(0, 1)[:9] for batch in batches)
        assert torch.equal(first, second)
    batch, read = collate([own, {"text": text(5)}], FIELDS), torch.tensor([[8, 2], [4, 0]])
    found = model(batch, read=read)
    torch.testing.assert_close(found, model(batch)[torch.arange(2)[:, None], read], atol=1e-5, rtol=0)


def test_no_parameter_is_without_a_gradient_though_a_batch_be_empty() -> None:
    for relative in ALL.values():
        model = build(relative)
        model(collate([], FIELDS)).sum().backward()
        missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
        assert not missing


# What cannot be


def test_a_wrong_config() -> None:
    assert RelativeConfig("shaw", "word", on=["keys"]).on == ("keys",)
    with pytest.raises(InputError, match=r"relative\.on must name keys, values or both, got none"):
        RelativeConfig("shaw", "word", on=())
    with pytest.raises(InputError, match=r"on must be keys or values, got 'queries'"):
        RelativeConfig("shaw", "word", on=("queries",))
    with pytest.raises(InputError, match=r"relative\.max_distance must be at least 1, got 0"):
        RelativeConfig("shaw", "word", max_distance=0)
    with pytest.raises(InputError, match=r"no field has the axis 'time'"):
        build(replace(BOTH, axis="time"))
