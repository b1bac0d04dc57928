"""Memory-compressed attention: a loop in plain Python, and the laws of attention."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from anyformer.errors import InputError
from anyformer.model.anyformer import Anyformer
from anyformer.model.attention.attention import Attention
from anyformer.model.attention.cache import Cache
from anyformer.model.attention.places import places_of
from anyformer.model.attention.rotary import rotate
from anyformer.model.attention.visibility import self_sights
from anyformer.model.config import RelativeConfig, RotaryConfig, TransformerConfig
from anyformer.packing import collate
from anyformer.tokens import Sample, TokenSet
from tests.helpers.patterns import CLASS, FIELDS, picture, samples, text
from tests.helpers.witnesses import Ids, by_sample, error, redraw
from tests.model.attention.test_patterns import one_by_one

ROTARY = {"none": None, "rotary": RotaryConfig(("word",))}


def build(*patterns: dict, fields: dict = FIELDS, sees: dict | None = None, **choices) -> Anyformer:
    sizes = {"d_model": 12, "n_heads": 3, "depth": 2, "d_ff": 10} | choices
    model = Anyformer(fields, TransformerConfig(**sizes, patterns=patterns), sees=sees)
    redraw(model)
    return model.eval()


def windows_by_hand(order: list[int], stride: int) -> list[list[int | None]]:
    """The places of each window of a sample, from those of its lowest order, counted back from their end, on."""
    n_lowest = order.count(min(order))
    given: list[int | None] = [*range(n_lowest)]
    given = [None] * (-n_lowest % stride) + given
    later = [*range(n_lowest, len(order))]
    found = [given[i : i + stride] for i in range(0, len(given), stride)]
    return found + [later[i : i + stride] for i in range(0, len(later) - stride + 1, stride)]


def attention_by_hand(
    attention: Attention, x: Tensor, order: list[int], rotation: tuple[Tensor, Tensor] | None
) -> Tensor:
    """Of one sample, x (n, d), a head, a query and a window at a time."""
    k, heads = attention.d_head, []
    compression = attention.compression
    for h in range(attention.n_heads):
        part = slice(h * k, (h + 1) * k)
        q, key, value = (
            x @ layer.weight[part].T + layer.bias[part] for layer in (attention.q, attention.k, attention.v)
        )

        def turned(one: Tensor, i: int) -> Tensor:
            if rotation is None:
                return one
            return rotate(one[None, None, None], tuple(each[:1, :, i : i + 1] for each in rotation))[0, 0, 0]

        cells = []
        for window in windows_by_hand(order, compression.stride):
            joined = []
            for convolution, of in ((compression.keys, key), (compression.values, value)):
                total = convolution.bias[part]
                for slot, place in enumerate(window):
                    if place is not None:
                        total = total + convolution.weight[part, :, slot] @ of[place]
                joined.append(total)
            cells.append((window[-1], joined[0], joined[1]))
        rows = []
        for i in range(len(order)):
            seen = [(turned(a, end), b) for end, a, b in cells if order[end] <= order[i]]
            weight = torch.stack([turned(q[i], i) @ a / k**0.5 for a, _ in seen]).softmax(0)
            rows.append(sum(w * b for w, (_, b) in zip(weight, seen, strict=True)))
        heads.append(torch.stack(rows))
    return torch.cat(heads, 1) @ attention.o.weight.T + attention.o.bias


@pytest.mark.parametrize(("stride", "rotary"), [(2, None), (3, ROTARY["rotary"]), (5, ROTARY["rotary"])], ids=str)
def test_the_attention_is_the_papers_as_a_loop(stride: int, rotary: RotaryConfig | None) -> None:
    model = build({"compress": stride}, rotary=rotary, depth=1)
    attention, every = model.transformer.blocks[0].attention, samples()
    for sample in every:
        batch = collate([sample], FIELDS)
        places = places_of(batch, model.embeddings.axes, model.transformer.wanted)
        (sight,) = self_sights(model.transformer.patterns, batch, places, len(FIELDS))
        rotation = model.embeddings.rotation(batch)
        assert (rotation is None) == (rotary is None)
        x = torch.randn(*batch.shape, 12, requires_grad=True)
        ours = attention(x, sight, rotation)
        theirs = attention_by_hand(attention, x[0], batch.layout.order[0].tolist(), rotation)[None]
        assert error(ours, theirs) < 1e-5
        noise, parameters = torch.randn_like(ours), [x, *attention.parameters()]
        for mine, other in zip(
            torch.autograd.grad((ours * noise).sum(), parameters),
            torch.autograd.grad((theirs * noise).sum(), parameters),
            strict=True,
        ):
            torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)


def test_windows_by_example() -> None:
    assert windows_by_hand([0, 1, 2, 3, 4, 5], 2) == [[None, 0], [1, 2], [3, 4]], "a causal text: 5 is not yet in one"
    assert windows_by_hand([0, 0, 0, 0, 0], 3) == [[None, 0, 1], [2, 3, 4]], "what is given at once is all in one"
    batch = collate([{"text": text(6, 0)}, {"text": text(5).at(0)}], FIELDS)
    model = build({"compress": 2}, {"compress": 3})
    places = places_of(batch, model.embeddings.axes, model.transformer.wanted)
    assert places.step[0].tolist() == [-1, 0, 1, 2, 3, 4] and places.step[1, :5].tolist() == [-5, -4, -3, -2, -1]
    two, three = (pattern[-1] for pattern in model.transformer.patterns)
    assert two.window_of(places)[0].tolist() == [0, 2, 2, 4, 4, -1]
    assert three.window_of(places)[1].tolist() == [1, 1, 4, 4, 4, -1]


# Laws


@pytest.mark.parametrize("rotary", ROTARY.values(), ids=ROTARY)
@torch.no_grad()
def test_padded_packed_and_one_by_one_are_the_same(rotary: RotaryConfig | None) -> None:
    model, every = build({"compress": 3}, {}, rotary=rotary, n_heads=2, d_head=6, n_kv_heads=1), samples()
    outputs = [by_sample(batch, model(batch), [s]) for s in every for batch in [collate([s], FIELDS)]]
    for rows in (None, [0, 1, 0, 0]):
        batch = collate(every, FIELDS, rows)
        assert model.engines(batch)["transformer"][0] == "compressed"
        torch.testing.assert_close(
            by_sample(batch, model(batch), every), [one for (one,) in outputs], atol=1e-5, rtol=0
        )


@torch.no_grad()
def test_a_neighbours_content_changes_no_bit_and_some_places_may_be_read_alone() -> None:
    model, own = build({"compress": 2}), {"text": text(9)}
    for rows in (None, [0, 0]):
        batches = [collate([own, {"text": text(9)}], FIELDS, rows) for _ in range(2)]
        first, second = (model(batch).flatten(0, 1)[:9] for batch in batches)
        assert torch.equal(first, second)
    batch, read = collate([own, {"text": text(5)}], FIELDS), torch.tensor([[8, 2], [4, 0]])
    torch.testing.assert_close(model(batch, read=read), model(batch)[torch.arange(2)[:, None], read])


@pytest.mark.parametrize("stride", [2, 4])
def test_a_later_token_changes_no_bit_of_an_earlier_one_and_is_not_in_its_gradient(stride: int) -> None:
    model, n = build({"compress": stride}, depth=3), 11
    tokens = {"picture": picture(1, 3), "text": text(n)}
    batch = collate([tokens], FIELDS)
    before = model(batch)[0]
    for j in range(n):
        content = tokens["text"].content.clone()
        content[j] = (content[j] + 1) % 11
        moved = {**tokens, "text": TokenSet(content, tokens["text"].position, tokens["text"].order)}
        after = model(collate([moved], FIELDS))[0]
        assert torch.equal(after[: 3 + j], before[: 3 + j]) and not torch.equal(after[3 + j :], before[3 + j :])
    shorter = {
        **tokens,
        "text": TokenSet(*(part[:6] for part in (content, tokens["text"].position, tokens["text"].order))),
    }
    torch.testing.assert_close(model(collate([shorter], FIELDS))[0], before[:9], atol=1e-6, rtol=0)
    rows = model.embeddings(batch).detach().requires_grad_()
    model.embeddings.forward = lambda batch: rows
    (gradient,) = torch.autograd.grad(model(batch)[0, 3 + 4].square().sum(), rows)
    assert not gradient[0, 3 + 5 :].any() and gradient[0, :3].any()


@pytest.mark.parametrize("rotary", ROTARY.values(), ids=ROTARY)
@pytest.mark.parametrize("stride", [2, 5])
@torch.no_grad()
def test_cached_is_uncached_and_the_places_of_full_windows_may_be_forgotten(
    stride: int, rotary: RotaryConfig | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anyformer.model.attention.cache.SPARE", 1)
    model, cache = build({"compress": stride}, {}, depth=3, rotary=rotary), Cache()
    prompts: list[Sample] = [{"picture": picture(2, 3), "text": text(24)}, {"text": text(24)}]
    whole = collate(prompts, FIELDS)
    expected = [part["text"] for part in by_sample(whole, model(whole), prompts)]
    ours: list[list] = [[], []]
    for step in zip(*(one_by_one(sample, 4) for sample in prompts), strict=True):
        batch = collate(step, FIELDS)
        for own, part in zip(ours, by_sample(batch, model(batch, cache=cache), step), strict=True):
            own.append(part["text"])
        for track in cache.tracks:
            track._full = 0
        if batch.shape[1] == 1:
            model.forget(batch, cache)
    torch.testing.assert_close([torch.cat(parts) for parts in ours], expected, atol=1e-5, rtol=0)
    kept, everything = map(len, cache.tracks)
    assert everything == 10 + 20 and kept <= -(-30 // stride) + stride


@torch.no_grad()
def test_a_text_may_be_given_in_pieces() -> None:
    model, cache, sample = build({"compress": 4}), Cache(), {"text": text(19, 0)}
    parts, whole = [], sample["text"]
    for cut in (slice(0, 2), slice(2, 9), slice(9, 10), slice(10, 19)):
        piece = TokenSet(whole.content[cut], whole.position[cut], whole.order[cut])
        parts.append(model(collate([{"text": piece}], FIELDS), cache=cache)[0])
    torch.testing.assert_close(torch.cat(parts), model(collate([sample], FIELDS))[0], atol=1e-5, rtol=0)


def test_no_parameter_is_without_a_gradient_though_a_batch_be_empty() -> None:
    model = build({"compress": 3})
    model(collate([], FIELDS)).sum().backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


def test_at_first_a_window_is_the_mean_of_its_places() -> None:
    model = Anyformer(FIELDS, TransformerConfig(d_model=12, n_heads=3, depth=1, patterns=({"compress": 2},)))
    attention, x = model.transformer.blocks[0].attention, torch.randn(1, 3, 4, 4)
    batch = collate([{"text": text(4).at(0)}], FIELDS)
    places = places_of(batch, model.embeddings.axes, model.transformer.wanted)
    (sight,) = self_sights(model.transformer.patterns, batch, places, len(FIELDS))
    keys, values = attention.compression(x, 2 * x, sight, None, None, 0)
    torch.testing.assert_close(keys, x.unflatten(2, (2, 2)).mean(3))
    torch.testing.assert_close(values, 2 * keys)


# What cannot be


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ({"compress": 1}, r"patterns\.0\.compress must be at least 2, got 1"),
        (
            {"compress": 4, "window": {"word": 3}},
            r"patterns\.0\.compress is of a layer's own and cannot stand beside window; give a pattern more",
        ),
        ({"compress": 4, "global": ["class"]}, r"compress .* cannot stand beside global"),
        ({"compress": 4, "random": 1, "seed": 2}, r"compress .* cannot stand beside random, seed"),
        ({"compres": 4}, r"patterns\.0 has no 'compres', .*; did you mean 'compress'"),
    ],
    ids=str,
)
def test_a_pattern_that_cannot_be(pattern: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(pattern)


def test_what_a_compressed_layer_cannot_honour_is_refused() -> None:
    with pytest.raises(InputError, match=r"transformer\.patterns\.1\.compress .* sees cannot hold"):
        build({}, {"compress": 4}, sees={"text": ["text"]})
    graph = {"graph": Ids(11, ("word",), n_relations=3), "class": CLASS}
    with pytest.raises(InputError, match=r"patterns\.0\.compress .* relations between them, as of the field 'graph'"):
        build({"compress": 4}, fields=graph)
    with pytest.raises(InputError, match=r"patterns\.0\.compress .* relative \(alibi\) knows no distance; take rotary"):
        build({"compress": 4}, relative=RelativeConfig("alibi", "word"))
