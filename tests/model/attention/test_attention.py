"""Attention under a sight against torch's own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from anyformer.model.attention.attention import Attention
from anyformer.model.attention.sight import Sight
from anyformer.model.config import TransformerConfig
from tests.helpers.witnesses import error, redraw

SIZES = TransformerConfig(d_model=10, n_heads=5, d_ff=7)


def multihead(ours: Attention, theirs: nn.MultiheadAttention) -> None:
    """Carry the weights over."""
    with torch.no_grad():
        for name, weight, bias in zip("qkv", theirs.in_proj_weight.chunk(3), theirs.in_proj_bias.chunk(3), strict=True):
            projection = getattr(ours, name)
            projection.weight.copy_(weight)
            if projection.bias is not None:
                projection.bias.copy_(bias)
        ours.o.load_state_dict(theirs.out_proj.state_dict(), strict=ours.o.bias is not None)


def pairs(n: int = 7, m: int | None = None) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([n, n - 3])
    real = torch.arange(n) < lengths[:, None]
    return real, torch.randn(2, m or n, 10)


def compare(what: str, **wrong) -> tuple[float, float]:
    """Disagreement with torch.nn.MultiheadAttention, of outputs and of the gradients of the inputs and all weights."""
    theirs = nn.MultiheadAttention(10, 5, batch_first=True)
    redraw(theirs, spread=2.0)
    ours = Attention(replace(SIZES, **wrong))
    redraw(ours)
    multihead(ours, theirs)
    real, memory = pairs(7, 4)
    x = torch.randn(2, 7, 10, requires_grad=True)
    memory.requires_grad_()
    causal = torch.ones(7, 7, dtype=torch.bool).tril()
    bias = torch.randn(2, 5, 7, 7)
    mask, sight = {
        "self": ({}, Sight()),
        "padded": ({"key_padding_mask": ~real}, Sight(real[:, None, None, :])),
        "causal": ({"attn_mask": ~causal}, Sight(causal=True)),
        "causal by mask": ({"attn_mask": ~causal}, Sight(causal[None, None])),
        "bias": ({"attn_mask": bias.flatten(0, 1)}, Sight(bias)),
        "cross": ({}, Sight()),
        "cross padded": ({"key_padding_mask": ~real[:, 3:]}, Sight(real[:, None, None, 3:])),
    }[what]
    crosses = what.startswith("cross")
    expected = theirs(x, memory if crosses else x, memory if crosses else x, need_weights=False, **mask)[0]
    found = ours.cross(x, memory, sight) if crosses else ours(x, sight)
    noise = torch.randn(2, 7, 10) * (real[:, :, None] if "padded" in what else 1)
    # Real places only.
    shown = (noise != 0).all(2)
    inputs = [x, memory] if crosses else [x]
    their_gradients = torch.autograd.grad(
        (expected * noise).sum(), [*inputs, theirs.in_proj_weight, theirs.out_proj.weight]
    )
    our_gradients = torch.autograd.grad(
        (found * noise).sum(), [*inputs, ours.q.weight, ours.k.weight, ours.v.weight, ours.o.weight]
    )
    projections = torch.cat(our_gradients[len(inputs) : -1])
    our_gradients = [*our_gradients[: len(inputs)], projections, our_gradients[-1]]
    return (
        error(found[shown], expected[shown]),
        max(error(mine, other) for mine, other in zip(our_gradients, their_gradients, strict=True)),
    )


MASKS = ("self", "padded", "causal", "causal by mask", "bias", "cross", "cross padded")


@pytest.mark.parametrize("what", MASKS)
def test_attention_is_torchs(what: str) -> None:
    forward, gradient = compare(what)
    assert forward < 1e-4 and gradient < 1e-4


@pytest.mark.parametrize("what", MASKS)
@pytest.mark.parametrize(
    "wrong",
    [
        {"q_bias": False},
        {"v_bias": False},
        {"o_bias": False},
        {"attention_scale": 1.0},
        {"qk_norm": "layernorm"},
        {"qk_norm": "rmsnorm"},
    ],
    ids=str,
)
def test_attention_set_wrong_is_seen(what: str, wrong: dict) -> None:
    assert compare(what, **wrong)[0] > 1e-2


@pytest.mark.parametrize("what", ["self", "padded", "causal", "cross"])
def test_a_wrong_number_of_heads_is_seen(what: str) -> None:
    assert compare(what, n_heads=2)[0] > 1e-2


def test_a_bias_on_keys_moves_no_weight_without_a_norm() -> None:
    # It adds the same to all logits of a query; Whisper leaves it out.
    assert compare("self", k_bias=False)[0] < 1e-4


@pytest.mark.parametrize("what", ["self", "causal", "padded"])
def test_grouped_heads_are_repeated_heads(what: str) -> None:
    grouped, plain = (Attention(replace(SIZES, n_heads=6, d_head=4, n_kv_heads=n)) for n in (2, 6))
    redraw(grouped)
    with torch.no_grad():
        plain.q.load_state_dict(grouped.q.state_dict())
        plain.o.load_state_dict(grouped.o.state_dict())
        for name in ("k", "v"):
            few, many = getattr(grouped, name), getattr(plain, name)
            many.weight.copy_(few.weight.view(2, 4, 10).repeat_interleave(3, 0).flatten(0, 1))
            many.bias.copy_(few.bias.view(2, 4).repeat_interleave(3, 0).flatten())
    real, x = pairs()
    sight = {"self": Sight(), "causal": Sight(causal=True), "padded": Sight(real[:, None, None])}[what]
    torch.testing.assert_close(grouped(x, sight), plain(x, sight))


def test_a_query_that_sees_nothing_gets_0() -> None:
    attention = Attention(replace(SIZES, o_bias=False))
    redraw(attention)
    mask = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    mask[..., 2, :] = False
    for seen in (mask, torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)):
        x = torch.randn(1, 4, 10, requires_grad=True)
        out = attention(x, Sight(seen))
        assert not out[0, 2].any() and out[0, [0, 1, 3]].abs().amax(1).all()
        assert torch.autograd.grad(out.square().sum(), x)[0].isfinite().all()
