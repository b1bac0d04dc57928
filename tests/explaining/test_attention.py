"""Attention weights against the output of the model, in every option of the transformer."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from anyformer.errors import InputError
from anyformer.explaining.attention import read_attention
from anyformer.explaining.flow import sample_weights
from anyformer.faults import MachineError
from anyformer.model.attention.attention import Attention, Recorded
from anyformer.model.config import ExpertsConfig, RelativeConfig, RotaryConfig, TransformerConfig
from anyformer.model.lora import LoraConfig, adapt
from anyformer.packing import collate
from tests.helpers.explained import FIELDS, SIZES, WORDS, model_of, sample
from tests.helpers.witnesses import Ids, count, draw_ids, redraw

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rotary": {"rotary": RotaryConfig(("word",))},
    "alibi": {"relative": RelativeConfig("alibi", "word")},
    "t5": {"relative": RelativeConfig("t5", "word", 8, 16)},
    "normed queries and keys": {"qk_norm": "rmsnorm"},
    "grouped heads": {"n_kv_heads": 2, "d_head": 6},
    "one scale": {"attention_scale": 1.0, "q_bias": False, "v_bias": False, "o_bias": False},
    "window": {"patterns": ({"window": {"word": 1}}, {})},
    "global and random": {"patterns": ({"global": ["class"], "random": 1}, {"random": 2, "seed": 3})},
    "experts": {"experts": ExpertsConfig(n=4, active=2)},
    "post-norm": {"norm_position": "post", "layer_scale": 0.5},
    "sees": {"sees": {"left": ["left", "picture"], "right": ["right"]}},
    "gated": {"gated": True, "norm": "rmsnorm", "zero_output": True},
}


def output(maps: list, model: Any) -> None:
    """Weights times values through the output matrix are what the block was given, worked out here once more."""
    for found in maps:
        sums = torch.einsum("bhqk,bhkd->bqhd", found.weights, found.v).flatten(2)
        torch.testing.assert_close(sums, found.mixed, atol=1e-5, rtol=1e-6)
        rows = found.weights.sum(-1)
        torch.testing.assert_close(rows, found.seen.any(-1).expand_as(rows).float(), atol=1e-5, rtol=0)
        assert not found.weights[~found.seen.expand_as(found.weights)].any()


@pytest.mark.parametrize("name", OPTIONS)
def test_the_weights_give_the_output_of_every_layer(name: str) -> None:
    model = model_of(**OPTIONS[name])
    samples = [sample(), {each: tokens for each, tokens in sample(7, 2).items() if each != "picture"}]
    batch = collate(samples, FIELDS)
    hidden, maps = read_attention(model, batch)
    assert torch.equal(hidden, model(batch)), "the model's own path is as ever"
    assert [(found.layer, found.kind) for found in maps] == [(i, "self") for i in range(3)]
    assert all(block.attention.record is None for block in model.transformer.blocks)
    output(maps, model)


def test_the_weights_of_a_causal_text_and_of_relations_give_the_output_too() -> None:
    related = {"left": Ids(11, ("word",), 64, n_relations=3)}
    model = model_of(related)
    _, maps = read_attention(model, collate([{"left": related["left"].encode(draw_ids(6))}], related))
    output(maps, model)
    assert not maps[0].weights[0, :, 0, 2:].any(), "what is unrelated is unseen"

    model = model_of({"left": WORDS})
    batch = collate([{"left": count(WORDS.encode(draw_ids(6)))}], {"left": WORDS})
    assert batch.kind == "causal"
    _, maps = read_attention(model, batch)
    output(maps, model)
    assert not maps[0].weights[0, :, 0, 1:].any(), "what is later is unseen"


def test_the_weights_of_long_rows_in_blocks_give_the_output_too() -> None:
    model = model_of({"left": WORDS}, patterns=({"window": {"word": 8}},), rotary=RotaryConfig(("word",)))
    batch = collate([{"left": WORDS.encode(draw_ids(600))}], {"left": WORDS})
    assert model.engines(batch)["transformer"] == ["blocks"] * 3
    _, maps = read_attention(model, batch)
    output(maps, model)
    assert not maps[0].weights[0, :, 20, 29:].any()


def test_the_weights_of_cross_attention_give_the_output_too() -> None:
    model = model_of(encoder=TransformerConfig(**{**SIZES, "depth": 2, "n_heads": 2}), n_kv_heads=2)
    text = [{"left": count(WORDS.encode(draw_ids(4)))}, {"left": count(WORDS.encode(draw_ids(6)))}]
    read = [{"right": WORDS.encode(draw_ids(7))}, {}]
    _, maps = read_attention(model, collate(text, FIELDS), collate(read, FIELDS))
    kinds = [("encoder", "self")] * 2 + [("transformer", "self"), ("transformer", "cross")] * 3
    assert [(found.stack, found.kind) for found in maps] == kinds
    output(maps, model)
    assert not maps[3].weights[1].any(), "a sample without conditions looks at nothing"


def test_the_weights_of_adapters_give_the_output_too() -> None:
    model = model_of()
    holder = torch.nn.Module()
    holder.model = model
    adapt(holder, LoraConfig(rank=2, on=["*.q", "*.v", "*.o"], only_with=["picture"]))
    redraw(model)
    with_picture = sample()
    batch = collate([with_picture, {"left": with_picture["left"], "class": with_picture["class"]}], FIELDS)
    _, maps = read_attention(model, batch)
    output(maps, model)


def test_packed_rows_are_read_sample_by_sample_as_alone() -> None:
    model = model_of(relative=RelativeConfig("t5", "word", 8, 16))
    samples = [sample(5, 3), sample(2, 4), sample(7, 1)]
    packed = collate(samples, FIELDS, rows=[0, 1, 0])
    assert packed.n_per_row == 2
    together = [sample_weights(found, packed) for found in read_attention(model, packed)[1]]
    for i, own in enumerate(samples):
        batch = collate([own], FIELDS)
        for found, packed_weights in zip(read_attention(model, batch)[1], together, strict=True):
            alone, seen = sample_weights(found, batch)[0]
            torch.testing.assert_close(packed_weights[i][0], alone)
            assert torch.equal(packed_weights[i][1].expand_as(alone), seen.expand_as(alone))


class Sharper(Attention):
    """Attends by logits that are not those of its queries and keys."""

    def _attend(self, q, k, v, sight, adapts):
        record, self.record = self.record, None
        update = super()._attend(2 * q, k, v, sight, adapts)
        if record is not None:
            record.append(Recorded(q, k, v, sight, update, update, adapts))
        self.record = record
        return update


def test_an_attention_of_an_unknown_kind_is_an_error_that_names_the_layer() -> None:
    model = model_of()
    model.transformer.blocks[1].attention.__class__ = Sharper
    with pytest.raises(InputError, match=r"self-attention of layer 2 of the transformer: .* a kind that explain"):
        read_attention(model, collate([sample()], FIELDS))
    assert model.transformer.blocks[0].attention.record is None


def test_a_record_too_long_for_the_memory_says_how_much_it_takes() -> None:
    long = Ids(11, ("word",), 1 << 20)
    model = model_of({"left": long}, rotary=RotaryConfig(("word",)))
    batch = collate([{"left": long.encode([0] * (1 << 20))}], {"left": long})
    with pytest.raises(MachineError, match=r"1,048,576 tokens, .* take 196,608\.0 GiB, of which .* are free"):
        read_attention(model, batch)


@pytest.mark.parametrize(
    ("choices", "what"),
    [
        ({"relative": RelativeConfig(kind="shaw", axis="word")}, "relative: shaw"),
        ({"patterns": [{}, {"compress": 2}]}, "compress and linformer"),
    ],
)
def test_kinds_whose_weights_it_does_not_work_out_are_refused_by_name(choices: dict[str, Any], what: str) -> None:
    model = model_of(**choices)
    with pytest.raises(InputError, match=rf"layer \d of the transformer: explain does not know the weights of {what}"):
        read_attention(model, collate([sample()], FIELDS))
