"""The MLP, the norms and dropout are their formulas."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from anyformer.model.config import TransformerConfig
from anyformer.model.layers import MLP, Frequencies, dropout, make_norm
from tests.helpers.witnesses import redraw

SMALL = TransformerConfig(d_model=6, n_heads=2, depth=3, d_ff=10)
SIZES = TransformerConfig(d_model=10, n_heads=5, d_ff=7)


def test_frequencies_of_positions_stay_precise_in_a_model_that_was_cast() -> None:
    frequencies = Frequencies(torch.tensor([1.0, 1 / 3]))
    for cast, dtype in (
        (nn.Module.bfloat16, torch.float32),
        (nn.Module.half, torch.float32),
        (nn.Module.double, torch.float64),
    ):
        cast(frequencies)
        assert frequencies.frequency.dtype == dtype
        assert frequencies.frequency.float()[1] == torch.tensor(1 / 3)
        frequencies.float()


# Activations


@pytest.mark.parametrize(
    ("activation", "formula"),
    [
        ("gelu", lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5))),
        ("gelu_tanh", lambda x: 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))),
        ("relu", lambda x: x.clamp(min=0)),
        ("relu2", lambda x: x.clamp(min=0) ** 2),
        ("silu", lambda x: x / (1 + torch.exp(-x))),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
def test_the_mlp_is_its_formula(activation: str, formula: object, gated: bool) -> None:
    mlp, x = MLP(replace(SMALL, activation=activation, gated=gated)), 2 * torch.randn(7, 6)
    redraw(mlp)
    inner = formula(mlp.gate(x)) * mlp.up(x) if gated else formula(mlp.up(x))
    torch.testing.assert_close(mlp(x), mlp.down(inner))


# Norms


@pytest.mark.parametrize("kind", ["layernorm", "rmsnorm"])
@pytest.mark.parametrize("affine", [True, False], ids=["gains", "no gains"])
def test_norms_are_their_formulas(kind: str, affine: bool) -> None:
    norm = make_norm(kind, 6, replace(SIZES, norm_eps=0.3, norm_affine=affine))
    redraw(norm)
    x = torch.randn(4, 6)
    centred = x - x.mean(1, keepdim=True) if kind == "layernorm" else x
    expected = centred / (centred.square().mean(1, keepdim=True) + 0.3).sqrt()
    if affine:
        expected = expected * norm.weight
        if kind == "layernorm":
            expected = expected + norm.bias
    torch.testing.assert_close(norm(x), expected)
    assert len(list(norm.parameters())) == (0 if not affine else 2 if kind == "layernorm" else 1)


def test_rmsnorm_is_that_of_t5() -> None:
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    theirs, x = t5.T5LayerNorm(6, eps=1e-2), torch.randn(4, 6)
    redraw(theirs)
    ours = make_norm("rmsnorm", 6, replace(SIZES, norm_eps=1e-2))
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(x), theirs(x))


# Dropout


@pytest.mark.parametrize("p", [0.0, 0.1, 0.35, 0.9])
def test_dropout_drops_its_share_and_keeps_the_mean(p: float) -> None:
    x = torch.ones(401, 503, requires_grad=True)
    out = dropout(x, p)
    share = 1 - round(p * 2**16) / 2**16
    # Five standard deviations of a share of so many.
    assert (out > 0).double().mean().item() == pytest.approx(share, abs=5 * (p * (1 - p) / out.numel()) ** 0.5)
    torch.testing.assert_close(out[out > 0], torch.full_like(out[out > 0], 1 / share))
    assert share == pytest.approx(1 - p, abs=2**-17)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert torch.equal(gradient, out)


def test_dropout_is_drawn_for_each_number_by_itself() -> None:
    torch.manual_seed(0)
    kept = (dropout(torch.ones(2**18), 0.5) > 0).float() - 0.5
    for apart in (1, 2, 3, 4, 64):
        # Four numbers come from one draw; 5 / sqrt(2**18) is 0.01.
        assert abs(float((kept[apart:] * kept[:-apart]).mean())) * 4 < 0.01


def test_dropout_leaves_the_rest_of_any_shape_and_dtype_as_it_is() -> None:
    x = torch.arange(1.0, 1 + 2 * 3 * 5, dtype=torch.bfloat16).view(2, 3, 5).transpose(0, 2)
    torch.manual_seed(0)
    out = dropout(x, 0.5)
    assert (out.shape, out.dtype) == (x.shape, x.dtype)
    assert 0 < (out == 0).sum() < x.numel()
    assert torch.equal(out[out != 0], 2 * x[out != 0])
    torch.manual_seed(0)
    assert torch.equal(dropout(x, 0.5), out)
    assert dropout(torch.zeros(0, 7), 0.5).shape == (0, 7)
    assert torch.equal(dropout(x, 1e-9), x)
    assert not dropout(x, 1 - 1e-9).isnan().any()
