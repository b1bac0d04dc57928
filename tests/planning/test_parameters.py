"""The counts are those that are published, and every parameter is in one of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from anyformer.errors import InputError
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import ExpertsConfig, RelativeConfig, TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.heads import Head, HeadConfig
from anyformer.model.learned_tokens import LearnedTokens
from anyformer.model.lora import LoraConfig, adapt, adapters
from anyformer.model.positions import PositionConfig
from anyformer.packing import collate
from anyformer.planning.parameters import Sizes, measure, token_counts
from anyformer.tokenizers.image.patches import ConvStem, ImagePatches
from tests.helpers.witnesses import Ids, Vectors, count

GPT = EmbeddingConfig(types=False, positions=[PositionConfig(("word",), "learned")])


def language_model(vocab_size: int, max_len: int, config: TransformerConfig, head: HeadConfig) -> nn.ModuleDict:
    with torch.device("meta"):
        model = Anyformer({"text": Ids(vocab_size, ("word",), max_len)}, config, GPT)
        return nn.ModuleDict({"model": model, "head": Head(model.embeddings.lifts["text"], config, head)})


def named(sizes: Sizes, part: str, name: str) -> int:
    return next(c.parameters for c in sizes.components if (c.part, c.name) == (part, name))


# Published counts


def test_gpt3_counts_what_is_published() -> None:
    made = language_model(50257, 2048, TransformerConfig(d_model=12288, depth=96, n_heads=96), HeadConfig())
    sizes = measure(made, token_counts(made))
    assert sizes.attention == 57_982_058_496
    assert sizes.matrices == 175_181_291_520
    assert sizes.total == sum(parameter.numel() for parameter in made.parameters()) == 174_604_259_328
    assert sizes.untied == sizes.total + 50257 * 12288
    # 2 FLOPs a weight and token, and 2 products of all pairs.
    weights = 12 * 96 * 12288**2 + 50257 * 12288
    assert sizes.flops == 2 * 2048 * weights + 96 * 4 * 2048**2 * 12288
    table = str(sizes).splitlines()
    assert any(line.split() == ["query", "14,495,514,624", "150,994,944", "59.4", "T"] for line in table)
    assert any(line.startswith("total, tied matrices counted apart") and "175,221,817,344" in line for line in table)
    assert any(line.startswith("without positions, biases and norms") and "175,181,291,520" in line for line in table)
    assert "FLOPs of one sample of 2,048 tokens (text 2,048)" in table[-1]


def test_gpt2_small_counts_what_is_published() -> None:
    made = language_model(50257, 1024, TransformerConfig(d_model=768, depth=12, n_heads=12), HeadConfig())
    sizes = measure(made, token_counts(made))
    assert sizes.total == 124_439_808
    assert named(sizes, "embeddings", "text") == 38_597_376
    assert named(sizes, "embeddings", "positions on word") == 786_432
    assert named(sizes, "transformer", "norms") + named(sizes, "transformer", "norms around") == 25 * 2 * 768


# Every parameter once


def full(encoder: bool = False, related: bool = True, **choices) -> Anyformer:
    """A model of all kinds of fields."""
    fields = {
        "text": Ids(11, ("word",)),
        "answer": Ids(11, ("word",)),
        "patch": Vectors(3, ("row", "column"), (2, 5)),
        "class": LearnedTokens(2, placed=True),
        "graph": Ids(5, n_relations=3 if related else 0),
    }
    config = TransformerConfig(**{"d_model": 12, "n_heads": 3, "depth": 2, **choices})
    reader = replace(config, depth=1) if encoder else None
    return Anyformer(fields, config, EmbeddingConfig(norm=True), reader)


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"gated": True, "n_kv_heads": 1, "qk_norm": "rmsnorm", "layer_scale": 1.0, "first_norm": True},
        {"encoder": True, "relative": RelativeConfig("t5", "word")},
        {"depth": 0},
        {"experts": ExpertsConfig(n=3, active=1, every=2, shared=2), "gated": True},
        {"encoder": True, "relative": RelativeConfig("shaw", "word")},
        {"patterns": ({"compress": 3}, {"linformer": 4, "length": 30}), "related": False},
    ],
    ids=str,
)
def test_every_parameter_is_counted_once(choices: dict) -> None:
    model = full(**choices)
    model.embeddings.lifts["answer"] = model.embeddings.lifts["text"]
    head = Head(model.embeddings.lifts["text"], model.transformer.config, HeadConfig(True, True, transform="gelu"))
    made = nn.ModuleDict({"model": model, "head": head, "pool": nn.Sequential(nn.Linear(12, 4), nn.LayerNorm(4))})
    made.register_parameter("loose", nn.Parameter(torch.zeros(7)))
    sizes = measure(made, token_counts(made, {"graph": 6}))
    assert sizes.total == sum(parameter.numel() for parameter in made.parameters())
    assert sizes.untied == sizes.total + 2 * 11 * 12
    assert named(sizes, "task", "other") == 7
    assert named(sizes, "pool", "matrices") == 48


@pytest.mark.parametrize("experts", [None, ExpertsConfig(n=5, active=2, every=2, shared=1, d_ff=7)], ids=str)
@pytest.mark.parametrize("gated", [False, True])
def test_the_flops_are_those_of_the_products_that_run(gated: bool, experts: ExpertsConfig | None) -> None:
    fields = {"text": Ids(11, ("word",)), "patch": Vectors(3, ("row", "column"), (2, 5))}
    config = TransformerConfig(d_model=12, n_heads=3, d_head=6, n_kv_heads=1, depth=2, gated=gated, experts=experts)
    model = Anyformer(fields, config)
    sample = {"text": fields["text"].encode([1] * 13), "patch": fields["patch"].encode(torch.zeros(2, 5, 3))}
    sample = {name: count(tokens) for name, tokens in sample.items()}
    batch = collate([sample], fields)
    # A mask turns torch's count on, which knows its kernels by name.
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        model(batch)
    assert measure(model, token_counts(model)).flops == counter.get_total_flops()


@pytest.mark.parametrize(
    "choices",
    [
        {"patterns": ({"compress": 5},), "n_kv_heads": 1},
        {"patterns": ({"linformer": 4, "length": 30},), "n_kv_heads": 1},
        {"relative": RelativeConfig("shaw", "word", max_distance=3, on=("keys",))},
        {"relative": RelativeConfig("shaw", "word", max_distance=3)},
    ],
    ids=str,
)
def test_the_flops_of_fewer_keys_and_of_distances_are_those_that_run(choices: dict) -> None:
    fields = {"text": Ids(11, ("word",), max_len=15)}
    model = Anyformer(fields, TransformerConfig(d_model=12, n_heads=3, depth=2, **choices))
    batch = collate([{"text": fields["text"].encode([1] * 15)}], fields)
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        model(batch)
    assert measure(model, token_counts(model)).flops == counter.get_total_flops()


def test_an_encoder_reads_its_conditions_alone() -> None:
    model = full(encoder=True)
    tokens = {"text": 7, "answer": 5, "patch": 0, "class": 0, "graph": 0}
    sizes = {(c.part, c.name): c.flops for c in measure(model, tokens, ["text"]).components}
    assert sizes["encoder", "query"] == 2 * 7 * 12 * 12
    assert sizes["transformer", "query"] == 2 * 2 * 5 * 12 * 12
    assert sizes["transformer", "cross key"] == 2 * 2 * 7 * 12 * 12
    assert sizes["transformer", "cross products of all pairs"] == 2 * 4 * 5 * 7 * 12


def test_a_stem_is_counted_at_the_sizes_that_it_runs_at() -> None:
    picture = ImagePatches(size=(8, 16), patch=4, channels=3, stem=ConvStem(d_hidden=5))
    with torch.device("meta"):
        model = Anyformer({"image": picture}, TransformerConfig(d_model=12, n_heads=3, depth=0))
    sizes = measure(model, token_counts(model))
    assert sizes.tokens == {"image": 8}
    assert sizes.flops == 2 * (8 * 16 * 3 * 5 + 4 * 8 * 5 * 12) * 9


# How many tokens


def test_how_many_tokens_a_field_has() -> None:
    fields = {"text": Ids(11, ("word",), max_len=9), "class": LearnedTokens(2)}
    positions = [PositionConfig(("word",), "learned", sizes=(6,))]
    model = Anyformer(fields, TransformerConfig(d_model=12, n_heads=3, depth=1), EmbeddingConfig(positions=positions))
    assert token_counts(model) == {"text": 6, "class": 2}
    assert token_counts(model, 4) == {"text": 4, "class": 2}
    assert token_counts(model, {"class": 1}) == {"text": 6, "class": 1}
    bag = Anyformer({"bag": Ids(), "text": Ids()}, TransformerConfig(d_model=12, n_heads=3, depth=1))
    with pytest.raises(InputError, match="how many tokens 'bag' has is not said by the config; give tokens bag=N"):
        token_counts(bag)
    with pytest.raises(InputError, match="tokens needs a number for a field, as bag=N; the fields are bag, text"):
        token_counts(bag, 4)
    with pytest.raises(InputError, match="tokens: there is no field 'word'; there are bag, text"):
        token_counts(bag, {"word": 4})


def test_adapters_are_counted_apart_and_what_is_trained_beside_the_whole() -> None:
    made = language_model(50, 8, TransformerConfig(d_model=12, depth=2, n_heads=2), HeadConfig(tied=False))
    before = measure(made, token_counts(made))
    assert before.trained == before.total and "trained" not in str(before)
    adapt(made, LoraConfig(rank=3, on=["*.q", "*.mlp.*", "head.output"]))
    of_adapters = [p for layer in adapters(made).values() for p in (layer.lora_a, layer.lora_b)]
    for parameter in made.parameters():
        parameter.requires_grad_(any(parameter is each for each in of_adapters))
    after, n = measure(made, token_counts(made)), sum(p.numel() for p in of_adapters)
    assert (after.trained, after.total) == (n, before.total + n) == (n, sum(p.numel() for p in made.parameters()))
    assert named(after, "transformer", "adapters (LoRA)") == 2 * 3 * (24 + 2 * 60)
    assert named(after, "head", "adapters (LoRA)") == 3 * (12 + 50)
    # A product with A and one with B, for each of 8 tokens; that of the head makes one matrix of both.
    assert after.flops - before.flops == 2 * 8 * 2 * 3 * (24 + 2 * 60)
    assert any(line.split() == ["trained", f"{n:,}"] for line in str(after).splitlines())


def test_of_experts_those_are_active_that_a_token_goes_through() -> None:
    experts = ExpertsConfig(n=8, active=2, every=2, shared=1, d_ff=10)
    config = TransformerConfig(d_model=12, depth=4, n_heads=2, d_ff=20, experts=experts)
    made = language_model(50, 8, config, HeadConfig(tied=False))
    sizes = measure(made, token_counts(made))
    assert sizes.total == sum(parameter.numel() for parameter in made.parameters())
    an_expert = 2 * 12 * 10 + 10 + 12
    assert sizes.total - sizes.active == 2 * (8 - 2) * an_expert
    dense = language_model(50, 8, TransformerConfig(d_model=12, depth=4, n_heads=2, d_ff=20), HeadConfig(tied=False))
    assert measure(dense, token_counts(dense)).active == sum(parameter.numel() for parameter in dense.parameters())
    # Two blocks have an MLP and two have experts.
    table = [line.split() for line in str(sizes).splitlines()]
    assert ["MLP", "up", "480", "240", "7.68", "k"] in table
    assert ["experts", "up", "1,920", "960", "7.68", "k"] in table
    assert ["router", "192", "96", "3.07", "k"] in table
    assert ["active", "for", "a", "token", f"{sizes.active:,}"] in table
    assert "active" not in str(measure(dense, token_counts(dense)))


def test_adapters_of_experts_are_active_as_the_experts_are() -> None:
    experts = ExpertsConfig(n=4, active=1)
    made = language_model(50, 8, TransformerConfig(d_model=12, depth=2, n_heads=2, experts=experts), HeadConfig())
    before = measure(made, token_counts(made))
    adapt(made, LoraConfig(rank=3, on=["*.mlp.experts.*", "*.router"]))
    after = measure(made, token_counts(made))
    of_experts, of_router = 2 * 4 * 2 * 3 * (12 + 48), 2 * 3 * (12 + 4)
    assert after.total == before.total + of_experts + of_router
    assert after.active == before.active + of_experts // 4 + of_router
    assert after.flops - before.flops == 2 * 8 * (of_experts // 4 + of_router)
