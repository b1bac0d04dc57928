"""Experts in the place of MLPs: equal to Mixtral's, nothing for padding, and what every part of a transformer does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

from anyformer.model.anyformer import Anyformer
from anyformer.model.config import ExpertsConfig, RotaryConfig, TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.experts.balance import expert_layers, recording
from anyformer.model.experts.experts import Experts
from anyformer.model.layers import MLP
from anyformer.model.lora import LoraConfig, adapt
from anyformer.model.transformer import Transformer
from anyformer.packing import collate, pack
from tests.helpers.witnesses import Ids, Vectors, by_sample, count, draw_ids, error, redraw

SMALL = TransformerConfig(d_model=12, n_heads=3, depth=3, d_ff=10, experts=ExpertsConfig(n=5, active=2))
GATED = {"activation": "silu", "gated": True, "mlp_bias": False}


def build(config: TransformerConfig = SMALL, **choices) -> Experts:
    layer = Experts(replace(config, experts=replace(config.experts, **choices)))
    redraw(layer)
    return layer


def written_out(layer: Experts, x: Tensor) -> Tensor:
    """The same token by token. x: (t, d)."""
    made = []
    for token in x:
        p = (layer.router.weight @ token).softmax(0)
        chosen = sorted(range(len(p)), key=lambda i: -p[i].item())[: layer.config.active]
        total = sum(p[i] for i in chosen) if layer.config.is_normalized else 1
        made.append(sum(p[i] / total * layer.experts[i](token) for i in chosen))
        if layer.shared is not None:
            made[-1] = made[-1] + layer.shared(token)
    return torch.stack(made)


# The sum


@pytest.mark.parametrize(
    "choices", [{}, {"active": 1}, {"active": 5}, {"normalize": False, "active": 3}, {"shared": 2}], ids=str
)
def test_a_token_is_the_weighted_sum_of_its_experts(choices: dict) -> None:
    layer, x = build(**choices), torch.randn(3, 7, 12)
    assert error(layer(x), written_out(layer, x.flatten(0, 1)).view(3, 7, 12)) < 1e-5


def test_the_block_of_mixtral_is_the_same_forward_and_backward() -> None:
    config = TransformerConfig(
        d_model=32, n_heads=4, depth=2, d_ff=48, experts=ExpertsConfig(n=8, active=2, balance=0.0), **GATED
    )
    theirs = MixtralSparseMoeBlock(
        MixtralConfig(hidden_size=32, intermediate_size=48, num_local_experts=8, num_experts_per_tok=2)
    )
    with torch.no_grad():
        theirs.gate.weight.normal_(0, 1.5 / 32**0.5)
        theirs.experts.gate_up_proj.normal_(0, 1.5 / 32**0.5)
        theirs.experts.down_proj.normal_(0, 1.5 / 48**0.5)
    ours = Experts(config)
    with torch.no_grad():
        ours.router.weight.copy_(theirs.gate.weight)
        for i, each in enumerate(ours.experts):
            gate, up = theirs.experts.gate_up_proj[i].chunk(2)
            for layer, matrix in ((each.gate, gate), (each.up, up), (each.down, theirs.experts.down_proj[i])):
                layer.weight.copy_(matrix)
    x = torch.randn(3, 50, 32)
    mine, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    made, expected = ours(mine), theirs(other)
    assert error(made, expected) < 1e-5
    weights = torch.randn_like(made)
    (made * weights).sum().backward()
    (expected * weights).sum().backward()
    assert error(mine.grad, other.grad) < 1e-5
    assert error(ours.router.weight.grad, theirs.gate.weight.grad) < 1e-5
    for i, each in enumerate(ours.experts):
        both = torch.cat([each.gate.weight.grad, each.up.weight.grad])
        assert error(both, theirs.experts.gate_up_proj.grad[i]) < 1e-5
        assert error(each.down.weight.grad, theirs.experts.down_proj.grad[i]) < 1e-5
    # One that weights its experts by the probabilities as they are is another.
    assert error(replaced(ours, normalize=False)(x), expected) > 1e-2


def replaced(layer: Experts, **choices) -> Experts:
    layer.config = replace(layer.config, **choices)
    return layer


def test_shared_experts_are_so_many_mlps_that_every_token_goes_through() -> None:
    layer, x = build(shared=2, d_ff=6), torch.randn(1, 9, 12)
    assert layer.shared.up.weight.shape == (12, 12)
    config = replace(SMALL, d_ff=6)
    halves = [MLP(config), MLP(config)]
    with torch.no_grad():
        for half, rows in zip(halves, (slice(0, 6), slice(6, 12)), strict=True):
            half.up.weight.copy_(layer.shared.up.weight[rows])
            half.up.bias.copy_(layer.shared.up.bias[rows])
            half.down.weight.copy_(layer.shared.down.weight[:, rows])
            half.down.bias.copy_(layer.shared.down.bias / 2)
    alone = replaced(layer, shared=0)
    expected = sum(half(x) for half in halves)
    whole = alone(x)
    alone.shared = None
    torch.testing.assert_close(whole, alone(x) + expected, atol=1e-5, rtol=1e-5)


# Where tokens are


def test_nothing_is_computed_for_padding() -> None:
    layer, x = build(shared=1), torch.randn(2, 6, 12)
    real = torch.tensor([[True] * 6, [True, True, False, False, True, False]])
    x[~real] = torch.nan
    seen: list[int] = []
    for part in (*layer.experts, layer.shared):
        part.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    out = layer(x, real=real)
    assert sum(seen[:-1]) == 2 * 9 and seen[-1] == 9, "each of 9 tokens by two experts and the shared one"
    assert (out[~real] == 0).all()
    torch.testing.assert_close(out[real], written_out(layer, x[real]), atol=1e-5, rtol=1e-5)


def test_experts_without_a_token_have_a_gradient_of_0() -> None:
    layer = build()
    with torch.no_grad():
        layer.router.weight[3] = -100
    x = torch.rand(2, 3, 12).requires_grad_()
    layer(x).sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())
    used = [bool((each.up.weight.grad != 0).any()) for each in layer.experts]
    assert any(used) and not used[3]
    layer.zero_grad()
    layer(torch.zeros(2, 0, 12)).sum().backward()
    assert all((parameter.grad == 0).all() for parameter in layer.parameters())


# In a model

FIELDS = {"text": Ids(11, ("word",)), "patch": Vectors(3, ("row", "column"))}


def model(**choices) -> Anyformer:
    config = replace(SMALL, rotary=RotaryConfig(("word",)), d_head=4, **choices)
    made = Anyformer(FIELDS, config, EmbeddingConfig(positions=[]))
    redraw(made)
    return made


def sample(n: int, *grid: int) -> dict:
    made = {"text": count(FIELDS["text"].encode(draw_ids(n)))}
    return made | ({"patch": FIELDS["patch"].encode(torch.randn(*grid, 3))} if grid else {})


def test_padded_packed_and_alone_agree_forward_and_backward() -> None:
    made = model()
    samples = [sample(5), sample(2, 2, 3), sample(9), sample(1), sample(4, 1, 2)]
    alone, weights = [], []
    for each in samples:
        batch = collate([each], FIELDS)
        (hidden,) = by_sample(batch, made(batch), [each])
        weights.append({name: torch.randn_like(vectors) for name, vectors in hidden.items()})
        alone.append(hidden)
    total(alone, weights).backward()
    expected = {name: p.grad.clone() for name, p in made.named_parameters() if p.grad is not None}
    for rows in (None, pack([5, 8, 9, 1, 6], 16)):
        made.zero_grad()
        batch = collate(samples, FIELDS, rows)
        assert batch.padded
        hidden = by_sample(batch, made(batch), samples)
        for ours, theirs in zip(hidden, alone, strict=True):
            for name in theirs:
                assert error(ours[name], theirs[name]) < 1e-5
        total(hidden, weights).backward()
        for name, gradient in expected.items():
            torch.testing.assert_close(made.get_parameter(name).grad, gradient, atol=1e-4, rtol=1e-4)


def total(hidden: list[dict[str, Tensor]], weights: list[dict[str, Tensor]]) -> Tensor:
    return sum((hidden[i][name] * weights[i][name]).sum() for i in range(len(hidden)) for name in weights[i])


def test_a_neighbour_changes_a_sample_by_no_more_than_a_millionth() -> None:
    """Not by no bit: how many tokens an expert multiplies at once depends on the neighbours."""
    made = model().eval()
    one, others = sample(40), [sample(40) for _ in range(6)]
    with torch.no_grad():
        first, *rest = (made(collate([one, other], FIELDS))[0] for other in others)
    assert all(error(each, first) < 1e-6 for each in rest)


def test_every_second_block_has_experts_and_the_others_an_mlp() -> None:
    stack = Transformer(replace(SMALL, depth=5, experts=ExpertsConfig(n=3, active=1, every=2)))
    assert [type(block.mlp) for block in stack.blocks] == [MLP, Experts, MLP, Experts, MLP]
    assert len(stack.blocks[1].mlp.experts) == 3


def test_only_the_places_that_are_read_reach_the_experts_of_the_last_block() -> None:
    made, read = model(), torch.tensor([[4], [1]])
    batch = collate([sample(5), sample(2)], FIELDS)
    layers = expert_layers(made)
    with recording(layers) as routed:
        hidden = made(batch, read=read)
    assert [int(routed[name][0].counts.sum()) for name in layers] == [14, 14, 4]
    assert error(hidden, made(batch).gather(1, read[:, :, None].expand(-1, -1, 12))) < 1e-5


def test_checkpointing_changes_nothing_and_is_noted_down_once() -> None:
    plain = model(dropout=0.1).train()
    again = model(dropout=0.1, checkpointing=True).train()
    again.load_state_dict(plain.state_dict())
    batch, results = collate([sample(5), sample(2)], FIELDS), []
    for made in (plain, again):
        torch.manual_seed(1)
        layers = expert_layers(made)
        with recording(layers) as routed:
            out = made(batch)
        said = sum((each.probability * torch.arange(5)).sum() for entries in routed.values() for each in entries)
        (out.square().sum() + said).backward()
        assert [len(entries) for entries in routed.values()] == [1, 1, 1]
        results.append([out, *(p.grad for p in made.parameters() if p.grad is not None)])
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)


# Precision


def test_the_router_stays_in_float32() -> None:
    layer = build()
    with torch.no_grad():
        # Two experts that bfloat16 cannot tell apart, whose logits are 1.001 and 1.
        layer.router.weight.zero_()
        layer.router.weight[:, 0] = torch.tensor([1.0, 0.0, 1.001, 0.0, 0.0])
    layer.config = replace(layer.config, active=1, normalize=False)
    x = torch.zeros(1, 4, 12)
    x[..., 0] = 1
    layer.record.passes = []
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.float32 and layer.record.passes[0].probability.dtype == torch.float32
    assert layer.record.passes[0].counts.tolist() == [0, 0, 4, 0, 0]
    assert error(out[..., :3], layer(x)[..., :3]) < 0.05


def test_a_model_that_was_cast_runs_in_half_precision() -> None:
    made = model().eval()
    batch = collate([sample(9)], FIELDS)
    whole = made(batch)
    half = made.bfloat16()(batch)
    assert half.dtype == torch.bfloat16
    assert error(half.float(), whole) < 0.5 and torch.isfinite(half).all()


# Adapters and the start


@pytest.mark.parametrize("only", [False, True])
def test_adapters_on_experts_and_router_act_where_they_are_to(only: bool) -> None:
    layer, x = build(shared=1), torch.randn(2, 6, 12)
    acts = torch.arange(12).view(2, 6) % 2 == 0
    whole = layer(x)
    adapt(nn.ModuleDict({"mlp": layer}), LoraConfig(2, ["mlp.experts.*", "mlp.shared.*", "*.router"]))
    assert torch.equal(layer(x), whole), "at first they add nothing"
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name.endswith("lora_b"):
                parameter.normal_(0, 0.5)
    adapted = layer(x)
    assert error(adapted, whole) > 0.1
    if only:
        some = layer(x, acts)
        torch.testing.assert_close(some[acts], adapted[acts], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(some[~acts], whole[~acts], atol=1e-5, rtol=1e-5)


def test_zero_output_starts_as_the_identity() -> None:
    experts = replace(SMALL.experts, shared=1)
    stack = Transformer(replace(SMALL, experts=experts, zero_output=True))
    assert all((each.down.weight == 0).all() for each in (*stack.blocks[0].mlp.experts, stack.blocks[0].mlp.shared))
    assert 0.01 < stack.blocks[0].mlp.router.weight.std() < 0.03
