"""Heads over ids, tied and not."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from anyformer.errors import InputError
from anyformer.model.config import TransformerConfig
from anyformer.model.heads import Head, HeadConfig
from anyformer.model.lifts import Lookup
from tests.helpers.witnesses import redraw

N, D, V = 23, 6, 17
CONFIG = TransformerConfig(d_model=D, n_heads=2, norm_eps=0.1)


def head(**choices) -> tuple[Lookup, Head]:
    lookup = Lookup(V, D)
    made = Head(lookup, CONFIG, HeadConfig(**choices))
    redraw(lookup)
    redraw(made)
    return lookup, made


@pytest.mark.parametrize(
    "choices", [{}, {"bias": True}, {"scaled": True}, {"tied": False}, {"transform": "gelu", "bias": True}], ids=str
)
def test_the_loss_of_a_head_is_that_of_its_logits(choices: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anyformer.model.losses.cross_entropy.SMALL", 0)
    lookup, made = head(**choices)
    hidden, target = torch.randn(N, D, requires_grad=True), torch.randint(V, (N,))
    inputs = [hidden, lookup.table, *made.parameters()]
    ours = made.loss(hidden, target, label_smoothing=0.1)
    theirs = F.cross_entropy(made(hidden), target, reduction="sum", label_smoothing=0.1)
    torch.testing.assert_close(ours, theirs)
    expected = torch.autograd.grad(theirs, inputs, allow_unused=True)
    for found, known in zip(torch.autograd.grad(ours, inputs, allow_unused=True), expected, strict=True):
        torch.testing.assert_close(found, known, atol=1e-4, rtol=1e-4)


def test_what_a_head_computes() -> None:
    hidden = torch.randn(3, 4, D)
    lookup, made = head()
    torch.testing.assert_close(made(hidden), hidden @ lookup.table.T)
    lookup, made = head(scaled=True, bias=True)
    torch.testing.assert_close(made(hidden), hidden @ lookup.table.T / math.sqrt(D) + made.bias)
    lookup, made = head(tied=False)
    torch.testing.assert_close(made(hidden), hidden @ made.output.weight.T)
    lookup, made = head(transform="relu")
    dense = F.relu(hidden @ made.dense.weight.T + made.dense.bias)
    normed = F.layer_norm(dense, (D,), made.norm.weight, made.norm.bias, eps=0.1)
    torch.testing.assert_close(made(hidden), normed @ lookup.table.T)


def test_a_tied_table_has_one_name_and_follows_its_lookup() -> None:
    module = torch.nn.ModuleDict({"lookup": Lookup(V, D)})
    module["head"] = Head(module["lookup"], CONFIG)
    assert list(module.state_dict()) == ["lookup.table"]
    other = copy.deepcopy(module)
    assert other["head"].weight is other["lookup"].table and other["head"].weight is not module["head"].weight
    module["lookup"].table = torch.nn.Parameter(torch.zeros(V + 1, D))
    assert module["head"](torch.ones(1, D)).shape == (1, V + 1)


def test_a_head_starts_as_it_is_told() -> None:
    lookup = Lookup(V, D)
    assert not Head(lookup, CONFIG, HeadConfig(tied=False, zero=True)).weight.any()
    drawn = Head(Lookup(1000, D), CONFIG, HeadConfig(tied=False)).weight
    assert drawn.std().item() == pytest.approx(CONFIG.init_std, rel=0.1)
    with pytest.raises(InputError, match=r"output.zero: a tied matrix .* cannot start at 0; set output.tied: false"):
        HeadConfig(zero=True)
