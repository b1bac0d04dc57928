"""The balance loss: the paper's, transformers', the same however a batch is shared out; and what is noted down."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from anyformer.generation.prepacked import for_inference
from anyformer.model.config import ExpertsConfig, TransformerConfig
from anyformer.model.experts.balance import balance_loss, expert_layers, recording
from anyformer.model.experts.experts import Experts
from tests.helpers.witnesses import redraw


def build(**choices) -> Experts:
    config = ExpertsConfig(**{"n": 6, "active": 2, "balance": 0.5, **choices})
    layer = Experts(TransformerConfig(d_model=8, n_heads=2, depth=1, d_ff=4, experts=config))
    redraw(layer)
    return layer


def run(layers: dict[str, Experts], *given: Tensor, real: Tensor | None = None, n_targets: float = 3.0):
    """The loss of inputs through all layers, in one batch, and the load."""
    with recording(layers) as routed:
        for x in given:
            for layer in layers.values():
                layer(x, real=real)
    return balance_loss(layers, routed, torch.tensor(n_targets))


def written_out(layer: Experts, x: Tensor) -> Tensor:
    """Equations 4 to 6, token by token; of several active experts each token counts in equal parts. x: (t, d)"""
    n, t, k = layer.config.n, len(x), layer.config.active
    p = (x @ layer.router.weight.T).softmax(1)
    f = torch.zeros(n)
    for row in p:
        for i in row.argsort(descending=True)[:k]:
            f[i] += 1 / (t * k)
    return n * sum(f[i] * p[:, i].mean() for i in range(n))


@pytest.mark.parametrize("active", [1, 2, 6])
def test_it_is_that_of_the_switch_transformer(active: int) -> None:
    layer, x = build(active=active), torch.randn(3, 7, 8)
    loss, load = run({"one": layer}, x)
    expected = written_out(layer, x.flatten(0, 1))
    torch.testing.assert_close(loss, 0.5 * 3 * expected, atol=1e-6, rtol=1e-5)
    assert load.balance.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("active", [1, 3])
@pytest.mark.parametrize("padded", [False, True])
def test_it_is_that_of_transformers_where_the_definitions_agree(active: int, padded: bool) -> None:
    """Theirs is of all layers' tokens together, and not divided by the active experts; so of one layer."""
    layer, x = build(active=active, balance=1.0), torch.randn(3, 7, 8)
    real = torch.rand(3, 7) < 0.6 if padded else None
    loss, _ = run({"one": layer}, x, real=real, n_targets=1.0)
    theirs = load_balancing_loss_func(((x @ layer.router.weight.T).flatten(0, 1),), 6, active, real)
    torch.testing.assert_close(active * loss, theirs, atol=1e-6, rtol=1e-5)
    ours, expected = (torch.autograd.grad(each, layer.router.weight)[0] for each in (active * loss, theirs))
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-5)


def test_it_is_1_where_all_experts_get_as_much_and_more_where_not() -> None:
    layer = build(n=4, active=1)
    with torch.no_grad():
        layer.router.weight.zero_()
        layer.router.weight[:, :4] = torch.eye(4)
    even = torch.eye(8)[:4].repeat(5, 1)[None]
    _, load = run({"one": layer}, even)
    assert load.balance.item() == pytest.approx(1)
    assert load.shares["one"].tolist() == [0.25] * 4
    _, load = run({"one": layer}, 5 * even[:, ::4])
    assert load.balance.item() > 2
    assert load.shares["one"].tolist() == [1, 0, 0, 0] and [each.item() for each in load.extremes] == [0, 1]


def test_layers_are_added_up_each_with_its_own_factor() -> None:
    layers = {"one": build(), "other": build(n=3, active=1, balance=0.25), "free": build(balance=0.0)}
    x = torch.randn(2, 9, 8)
    loss, load = run(layers, x)
    expected = {name: written_out(layer, x.flatten(0, 1)) for name, layer in layers.items()}
    torch.testing.assert_close(loss, 3 * (0.5 * expected["one"] + 0.25 * expected["other"]), atol=1e-6, rtol=1e-5)
    assert load.balance.item() == pytest.approx(sum(each.item() for each in expected.values()) / 3, rel=1e-5)
    assert torch.autograd.grad(loss, layers["free"].router.weight, allow_unused=True) == (None,)


def test_several_forward_passes_of_a_batch_are_one() -> None:
    layers, x = {"one": build()}, torch.randn(1, 20, 8)
    whole, parts = run(layers, x)[0], run(layers, x[:, :13], x[:, 13:])[0]
    torch.testing.assert_close(parts, whole)


def test_processes_add_up_to_the_batch_that_they_share() -> None:
    layers, x = {"one": build(), "other": build(n=4)}, torch.randn(1, 30, 8)
    whole, load = run(layers, x, n_targets=10.0)
    numbers: list[Tensor] = []
    shared = []
    for part, n_targets in ((x[:, :7], 2.0), (x[:, 7:], 8.0)):
        with recording(layers) as routed:
            for layer in layers.values():
                layer(part)
        shared.append((routed, torch.tensor(n_targets)))
        balance_loss(layers, *shared[-1], lambda own: numbers.append(own) or own)

    def add_up(_: Tensor) -> Tensor:
        return sum(numbers)

    losses = [balance_loss(layers, routed, n_targets, add_up) for routed, n_targets in shared]
    torch.testing.assert_close(sum(loss for loss, _ in losses), whole)
    gradients = [torch.autograd.grad(loss, layers["one"].router.weight)[0] for loss, _ in losses]
    torch.testing.assert_close(sum(gradients), torch.autograd.grad(whole, layers["one"].router.weight)[0])
    for _, of_all in losses:
        torch.testing.assert_close(of_all, load)


def test_a_batch_without_tokens_has_a_loss_of_0() -> None:
    loss, load = run({"one": build()}, torch.zeros(2, 0, 8))
    assert loss.item() == 0 and load.balance.item() == 0 and load.shares["one"].tolist() == [0] * 6
    loss, _ = balance_loss({"one": build()}, {"one": []}, torch.tensor(0.0))
    assert loss.item() == 0


def test_only_what_runs_meanwhile_is_noted_down() -> None:
    layers = expert_layers(torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2), "b": build()}))
    assert list(layers) == ["b"]
    counts: list[Sequence[int]] = []
    layers["b"](torch.randn(1, 3, 8))
    with recording(layers) as routed:
        layers["b"](torch.randn(1, 5, 8))
        counts += [each.counts.sum().item() for each in routed["b"]]
    layers["b"](torch.randn(1, 3, 8))
    assert counts == [10] and len(routed["b"]) == 1


def test_a_copy_for_inference_is_noted_down_where_its_original_is() -> None:
    layers = {"one": build()}
    with recording(layers):
        copied = for_inference(layers["one"], None)
    with recording(layers) as routed:
        copied(torch.randn(1, 5, 8))
    copied(torch.randn(1, 5, 8))
    assert [each.counts.sum().item() for each in routed["one"]] == [10]
