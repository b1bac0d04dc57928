"""Linformer: independent lines, and the laws of attention."""

from __future__ import annotations

import pytest
import torch

from anyformer.errors import InputError
from anyformer.model.anyformer import Anyformer
from anyformer.model.attention.cache import Cache
from anyformer.model.attention.places import places_of
from anyformer.model.attention.rotary import rotate
from anyformer.model.attention.visibility import self_sights
from anyformer.model.config import RelativeConfig, RotaryConfig, TransformerConfig
from anyformer.packing import collate
from anyformer.tokens import Sample
from tests.helpers.patterns import FIELDS, samples, text
from tests.helpers.witnesses import Ids, by_sample, error, redraw

PATTERN = {"linformer": 4, "length": 40}
ROTARY = {"none": None, "rotary": RotaryConfig(("word",))}


def build(*patterns: dict, fields: dict = FIELDS, sees: dict | None = None, **choices) -> Anyformer:
    sizes = {"d_model": 12, "n_heads": 3, "depth": 2, "d_ff": 10} | choices
    model = Anyformer(fields, TransformerConfig(**sizes, patterns=patterns or (PATTERN,)), sees=sees)
    redraw(model)
    return model.eval()


def at_once() -> list[Sample]:
    return [{name: part.at(0) for name, part in sample.items()} for sample in samples()]


@pytest.mark.parametrize("rotary", ROTARY.values(), ids=ROTARY)
def test_the_attention_is_the_papers(rotary: RotaryConfig | None) -> None:
    """Wang et al. (2020), equation 7, of each sample by itself."""
    model = build(rotary=rotary, depth=1)
    attention = model.transformer.blocks[0].attention
    for sample in at_once():
        batch = collate([sample], FIELDS)
        n = batch.shape[1]
        places = places_of(batch, model.embeddings.axes, model.transformer.wanted)
        (sight,) = self_sights(model.transformer.patterns, batch, places, len(FIELDS))
        rotation = model.embeddings.rotation(batch)
        x = torch.randn(1, n, 12, requires_grad=True)
        ours = attention(x, sight, rotation)
        heads = []
        for h in range(3):
            part = slice(4 * h, 4 * h + 4)
            q, k, v = (x[0] @ one.weight[part].T + one.bias[part] for one in (attention.q, attention.k, attention.v))
            if rotation is not None:
                q, k = (rotate(each[None, None], rotation)[0, 0] for each in (q, k))
            projected_k, projected_v = attention.compression.keys[:n].T @ k, attention.compression.values[:n].T @ v
            heads.append((q @ projected_k.T / 2).softmax(1) @ projected_v)
        theirs = (torch.cat(heads, 1) @ attention.o.weight.T + attention.o.bias)[None]
        assert error(ours, theirs) < 1e-5
        noise, parameters = torch.randn_like(ours), [x, *attention.parameters()]
        for mine, other in zip(
            torch.autograd.grad((ours * noise).sum(), parameters),
            torch.autograd.grad((theirs * noise).sum(), parameters),
            strict=True,
        ):
            torch.testing.assert_close(mine, other, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("rotary", ROTARY.values(), ids=ROTARY)
@torch.no_grad()
def test_padded_packed_and_one_by_one_are_the_same(rotary: RotaryConfig | None) -> None:
    model, every = build(PATTERN, {}, rotary=rotary, n_heads=2, d_head=6, n_kv_heads=1), at_once()
    outputs = [by_sample(batch, model(batch), [s]) for s in every for batch in [collate([s], FIELDS)]]
    for rows in (None, [0, 1, 0, 0]):
        batch = collate(every, FIELDS, rows)
        assert model.engines(batch)["transformer"][0] == "linformer"
        torch.testing.assert_close(
            by_sample(batch, model(batch), every), [one for (one,) in outputs], atol=1e-5, rtol=0
        )


@torch.no_grad()
def test_a_neighbours_content_changes_no_bit_and_some_places_may_be_read_alone() -> None:
    model, own = build(), {"text": text(9).at(0)}
    for rows in (None, [0, 0]):
        batches = [collate([own, {"text": text(9).at(0)}], FIELDS, rows) for _ in range(2)]
        first, second = (model(batch).flatten(0, 1)[:9] for batch in batches)
        assert torch.equal(first, second)
        read = torch.tensor([[8, 2]]).expand(batches[0].shape[0], 2) + torch.tensor([0, 5])
        expected = model(batches[0])[torch.arange(len(read))[:, None], read]
        torch.testing.assert_close(model(batches[0], read=read), expected, atol=1e-5, rtol=1e-5)


def test_no_parameter_is_without_a_gradient_though_a_batch_be_empty() -> None:
    model = build()
    model(collate([], FIELDS)).sum().backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


# What cannot be


def test_in_what_is_written_token_by_token_it_is_refused() -> None:
    model, causal = build(), collate([{"text": text(5)}], FIELDS)
    with pytest.raises(InputError, match=r"patterns\.linformer takes a sample as a whole, .* \(orders 1 to 5\), .*"):
        model(causal)
    at_once = collate([{"text": text(5).at(0)}], FIELDS)
    with pytest.raises(InputError, match=r"patterns\.linformer takes a sample as a whole"):
        model(at_once, cache=Cache())
    config = TransformerConfig(d_model=12, n_heads=3, depth=1, patterns=(PATTERN,))
    with pytest.raises(InputError, match=r"transformer\.patterns\.0\.linformer cannot be in a decoder"):
        Anyformer(FIELDS, config, encoder=TransformerConfig(d_model=12, n_heads=3, depth=1))
    plain = TransformerConfig(d_model=12, n_heads=3, depth=1)
    translator = Anyformer(FIELDS, plain, encoder=config)
    assert translator(causal, at_once).isfinite().all() and translator.engines(causal, at_once) == {
        "transformer": ["plain"],
        "encoder": ["linformer"],
    }


def test_a_sample_past_its_length_is_refused() -> None:
    model = build({"linformer": 2, "length": 6})
    fits = {"text": text(6).at(0)}
    assert model(collate([fits, fits], FIELDS, [0, 0])).isfinite().all(), "the length is a sample's, not a row's"
    with pytest.raises(InputError, match=r"patterns\.linformer has a length of 6, and there is a sample of 7 tokens"):
        model(collate([fits, {"text": text(7).at(0)}], FIELDS))


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ({"linformer": 4}, r"patterns\.0\.linformer needs length beside it: \{linformer: 64, length: 512\}"),
        ({"length": 4}, r"patterns\.0\.length needs linformer beside it"),
        ({"linformer": 0, "length": 4}, r"patterns\.0\.linformer must be at least 1, got 0"),
        ({"linformer": 5, "length": 4}, r"patterns\.0\.length must be at least linformer, .*, got 4 and 5"),
        ({**PATTERN, "window": {"word": 2}}, r"patterns\.0\.linformer .* cannot stand beside window"),
        ({**PATTERN, "compress": 2}, r"patterns\.0\.compress .* cannot stand beside linformer, length"),
    ],
    ids=str,
)
def test_a_pattern_that_cannot_be(pattern: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(pattern)


def test_what_it_cannot_honour_is_refused() -> None:
    with pytest.raises(InputError, match=r"transformer\.patterns\.0\.linformer .* sees cannot hold"):
        build(sees={"text": ["text"]})
    with pytest.raises(InputError, match=r"patterns\.0\.linformer .* relations between them, as of the field 'graph'"):
        build(fields={"graph": Ids(11, ("word",), n_relations=3)})
    with pytest.raises(InputError, match=r"patterns\.0\.linformer .* relative \(shaw\) knows no distance"):
        build(relative=RelativeConfig("shaw", "word"))
