"""Schedules, weight decay, layer-wise rates, and which parameter goes to which optimizer."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from anyformer.errors import InputError
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import ExpertsConfig, TransformerConfig
from anyformer.model.lora import LoraConfig, adapt
from anyformer.optim.muon import orthogonalize
from anyformer.optim.optimizer import (
    OptimizerConfig,
    Unfreezing,
    decaying,
    layer_distances,
    make_optimizer,
    rate_factors,
)
from tests.helpers.witnesses import Vectors


def net():
    torch.manual_seed(0)
    return nn.ModuleDict({"trunk": nn.Sequential(nn.Linear(4, 7), nn.LayerNorm(7)), "head": nn.Linear(7, 3)})


def train(module, optimizer, steps):
    for step in range(steps):
        x = torch.randn(5, 4, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        module["head"](module["trunk"](x)).square().sum().backward()
        optimizer.step()
    return [p.detach().clone() for p in module.parameters()]


def test_the_learning_rate_rises_holds_and_falls():
    config = OptimizerConfig(warmup=2, schedule="linear", hold=0.5, final=0.2)
    rates = [config.factor(step, 8) for step in range(8)]
    assert rates[:5] == [0.5, 1.0, 1.0, 1.0, 1.0]
    assert rates[5:] == pytest.approx([0.8, 0.6, 0.4])


def test_a_cosine_is_half_way_down_in_the_middle_and_stays_at_its_end():
    config = OptimizerConfig(warmup=0, schedule="cosine", final=0.1)
    assert config.factor(50, 100) == pytest.approx(0.55)
    assert config.factor(100, 100) == config.factor(140, 100) == pytest.approx(0.1)


def test_a_warmup_of_a_part_of_a_step_does_not_overshoot():
    assert max(OptimizerConfig(warmup=2.5).factor(step, 9) for step in range(9)) == 1.0


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("warmup", [0, 0.01, 0.05, 0.99, 1, 7, 50], ids=str)
@pytest.mark.parametrize("hold", [0.0, 0.5])
def test_no_step_has_a_learning_rate_of_0_and_one_the_highest(schedule, warmup, hold):
    config = OptimizerConfig(schedule=schedule, warmup=warmup, hold=hold)
    for total in (1, 2, 3, 10, 100):
        rates = [config.factor(step, total) for step in range(total)]
        n_rising = min(math.ceil(warmup if warmup >= 1 else warmup * total), total)
        assert all(0 < rate <= 1 for rate in rates)
        assert max(rates) == 1.0 or n_rising == total
        assert rates[:n_rising] == sorted(rates[:n_rising])
        assert rates[n_rising:] == sorted(rates[n_rising:], reverse=True)


def test_a_warmup_below_one_is_a_part_of_the_run():
    assert OptimizerConfig(warmup=0.1).factor(4, 100) == pytest.approx(0.5)


def test_only_weights_of_linear_layers_decay():
    module = net()
    groups = make_optimizer(module, [module["trunk"]], OptimizerConfig(weight_decay=0.1)).param_groups
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    weights = decaying(module)
    assert len(weights) == 2
    assert len(decays) == len(list(module.parameters()))
    for parameter in module.parameters():
        assert decays[id(parameter)] == (0.1 if parameter in weights else 0.0)


def test_muon_takes_the_matrices_of_the_trunk_and_leaves_the_rest_to_adamw():
    module = net()
    config = OptimizerConfig(name="muon", lr=0.02, adamw_lr=0.003)
    optimizer = make_optimizer(module, [module["trunk"]], config)
    train(module, optimizer, 1)
    assert set(optimizer.state[module["trunk"][0].weight]) == {"momentum"}
    assert "exp_avg" in optimizer.state[module["head"].weight]
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates.pop(id(module["trunk"][0].weight)) == 0.02
    assert set(rates.values()) == {0.003}


def test_muon_orthogonalizes_each_expert_on_its_own_and_rates_go_by_block_and_name():
    experts = ExpertsConfig(n=3, active=1, every=2)
    module = nn.ModuleDict({"model": Anyformer({"x": Vectors(3)}, TransformerConfig(8, 2, 2, experts=experts))})
    layer = module["model"].transformer.blocks[1].mlp
    config = OptimizerConfig(
        "muon", lr=0.5, weight_decay=0.0, layer_decay=0.5, lr_mults={"*.router.*": 0.1, "*.experts.2.*": 0.2}
    )
    factors = rate_factors(module, layer_distances(module["model"]), config)
    optimizer = make_optimizer(module, [module["model"].transformer], config, factors)
    before = [each.up.weight.detach().clone() for each in layer.experts]
    for parameter in module.parameters():
        parameter.grad = torch.randn_like(parameter)
    # Of experts in one matrix the first would hide the others.
    layer.experts[0].up.weight.grad.mul_(1000)
    optimizer.step()
    for i, each in enumerate(layer.experts):
        step = (before[i] - each.up.weight).detach() / (0.5 * 0.5 * (0.2 if i == 2 else 1) * 2)
        momentum = optimizer.state[each.up.weight]["momentum"]
        assert torch.linalg.svdvals(step).min() > 0.6 and torch.linalg.svdvals(step).max() < 1.3
        expected = orthogonalize((0.05 * each.up.weight.grad + 0.95 * momentum)[None])[0]
        torch.testing.assert_close(step, expected, atol=1e-4, rtol=1e-3)
    rates = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates[layer.router.weight] == pytest.approx(0.5 * 0.5 * 0.1)


def test_adapters_are_adamws_do_not_decay_and_have_the_rate_of_their_block():
    module = nn.ModuleDict({"model": Anyformer({"x": Vectors(3)}, TransformerConfig(8, depth=2, n_heads=2))})
    adapt(module, LoraConfig(rank=2, on=["*.q"]))
    trunk = module["model"].transformer
    for name, parameter in module.named_parameters():
        parameter.requires_grad_("lora_" in name)
    config = OptimizerConfig("muon", lr=0.5, adamw_lr=0.1, weight_decay=0.3)
    factors = rate_factors(module, layer_distances(module["model"]), replace(config, layer_decay=0.5))
    optimizer = make_optimizer(module, [trunk], config, factors)
    found = {
        p: (group["adamw"], group["weight_decay"], group["lr"])
        for group in optimizer.param_groups
        for p in group["params"]
    }
    expected = {}
    for block, factor in zip(trunk.blocks, (0.25, 0.5), strict=True):
        layer = block.attention.q
        expected |= dict.fromkeys((layer.lora_a, layer.lora_b), (True, 0.0, 0.1 * factor))
    assert found == expected


@pytest.mark.parametrize("name", ["adamw", "muon", "lion"])
def test_an_optimizer_goes_on_from_its_state_bit_for_bit(name):
    config = OptimizerConfig(name=name, lr=0.01)
    whole = net()
    unbroken = train(whole, make_optimizer(whole, [whole["trunk"]], config), 6)

    first = net()
    optimizer = make_optimizer(first, [first["trunk"]], config)
    for step in range(6):
        if step == 3:
            state = optimizer.state_dict()
            second = net()
            second.load_state_dict(first.state_dict())
            first, optimizer = second, make_optimizer(second, [second["trunk"]], config)
            optimizer.load_state_dict(state)
        x = torch.randn(5, 4, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        first["head"](first["trunk"](x)).square().sum().backward()
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), unbroken, strict=True))


def test_a_schedule_reaches_both_halves_of_muon():
    module = net()
    optimizer = make_optimizer(module, [module["trunk"]], OptimizerConfig(name="muon"))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0)
    before = [p.detach().clone() for p in module.parameters()]
    train(module, optimizer, 1)
    schedule.step()
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), before, strict=True))


RATES = {
    "model.embeddings.": 0.0625,
    "model.transformer.first_norm.": 0.0625,
    "model.transformer.blocks.0.": 0.125,
    "model.transformer.blocks.1.": 0.25,
    "model.transformer.blocks.2.": 0.5,
    "model.transformer.final_norm.": 1.0,
    "head.": 1.0,
}
"""Factors on the learning rate for a decay of 1/2 over three blocks."""


@pytest.mark.parametrize("name", ["adamw", "muon", "lion"])
def test_the_learning_rate_falls_from_the_head_to_the_embeddings(name):
    field = Vectors(3, ("row",), (4,))
    sizes = TransformerConfig(d_model=4, n_heads=2, depth=3, first_norm=True)
    module = nn.ModuleDict({"model": Anyformer({"x": field}, sizes), "head": nn.Linear(4, 2)})
    config = OptimizerConfig(name=name, lr=0.8, adamw_lr=0.08, weight_decay=0.1, layer_decay=0.5)
    trunk = module["model"].transformer
    optimizer = make_optimizer(module, [trunk], config, rate_factors(module, layer_distances(module["model"]), config))
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert len(groups) == len(list(module.parameters()))
    muons = decaying(trunk) if name == "muon" else set(module.parameters())
    for path, parameter in module.named_parameters():
        (factor,) = (factor for part, factor in RATES.items() if path.startswith(part))
        group = groups[id(parameter)]
        assert group["lr"] == pytest.approx((0.8 if parameter in muons else 0.08) * factor), path
        assert group["weight_decay"] == (0.1 if parameter in decaying(module) else 0.0), path
    # A step moves every parameter; of AdamW's first, whose size is the rate alone, by its own rate.
    before = {path: p.detach().clone() for path, p in module.named_parameters()}
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for path, parameter in module.named_parameters():
        if parameter not in muons and path.endswith("bias"):
            torch.testing.assert_close(
                before[path] - parameter, torch.full_like(parameter, groups[id(parameter)]["lr"])
            )
        assert not torch.equal(before[path], parameter), path


def test_two_stacks_count_their_own_blocks():
    field, sizes = Vectors(3, ("row",), (4,)), TransformerConfig(d_model=4, n_heads=2, depth=2)
    model = Anyformer({"x": field}, sizes, encoder=TransformerConfig(d_model=4, n_heads=2, depth=1))
    distances = layer_distances(model)
    assert {distances[p] for p in model.embeddings.parameters()} == {3}
    assert {distances[p] for p in model.encoder.blocks[0].parameters()} == {1}
    assert {distances[p] for p in model.transformer.blocks[0].parameters()} == {2}
    assert {distances[p] for p in model.transformer.final_norm.parameters()} == {0}


def test_rates_by_pattern_multiply_with_layer_decay_and_the_first_that_fits_counts():
    module = net()
    trunk = dict.fromkeys(module["trunk"].parameters(), 1)
    config = OptimizerConfig(layer_decay=0.5, lr_mults={"trunk.*bias": 0.1, "trunk.*": 0.2})
    factors = rate_factors(module, trunk, config)
    for name, parameter in module.named_parameters():
        wanted = 1.0 if not name.startswith("trunk.") else 0.05 if name.endswith("bias") else 0.1
        assert factors[parameter] == pytest.approx(wanted), name
    with pytest.raises(InputError, match=r"^optimizer.lr_mults: no parameter is named 'trnk\.\*'; did you mean 'trunk"):
        rate_factors(module, trunk, OptimizerConfig(lr_mults={"trnk.*": 0.2}))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: OptimizerConfig(lr_mults={"head.*": 0.0}),
            r"optimizer.lr_mults: head.\* must be above 0, got 0.0; freeze",
        ),
        (lambda: Unfreezing(after=0), r"optimizer.unfreeze needs after of at least 1 .*, got 0 and 1"),
    ],
)
def test_rates_of_nothing_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_frozen_parameter_is_not_given_to_the_optimizer():
    module = net()
    module["head"].requires_grad_(False)
    optimizer = make_optimizer(module, [module["trunk"]], OptimizerConfig())
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "adamvv"}, "optimizer.name: there is no optimiser 'adamvv'; did you mean 'adam'"),
        (
            {"options": {"momentun": 0.9}},
            "options do not fit adamw: .*momentun.*; there are amsgrad, betas, ",
        ),
    ],
)
def test_what_cannot_be_used_is_said(options, message):
    module = net()
    with pytest.raises(InputError, match=message):
        make_optimizer(module, [module["trunk"]], OptimizerConfig(**options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.0}, "lr .*must be above 0"),
        ({"warmup": -1}, "warmup must not be negative"),
        ({"weight_decay": -0.1}, "weight_decay must not be negative"),
        ({"hold": 1.0}, "hold must be at least 0 and below 1"),
        ({"layer_decay": 0.0}, "layer_decay must be above 0 and at most 1, got 0.0"),
        ({"layer_decay": 1.5}, "layer_decay must be above 0 and at most 1, got 1.5"),
        ({"ema": 1.0}, "ema must lie between 0 and 1"),
    ],
)
def test_values_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        OptimizerConfig(**options)


@pytest.mark.parametrize("name", ["adamw", "muon", "lion"])
def test_a_step_shows_in_the_versions_of_the_parameters(name):
    module = net()
    optimizer = make_optimizer(module, [module["trunk"]], OptimizerConfig(name=name))
    before = [parameter._version for parameter in module.parameters()]
    train(module, optimizer, 1)
    assert all(parameter._version > old for parameter, old in zip(module.parameters(), before, strict=True))
